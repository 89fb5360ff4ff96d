//! Each message of the adapter against the JSON schema of the Debug Adapter Protocol.
//!
//! A copy of the schema ships in the Python package debugpy. It is fetched once through pip, pinned by hash, into the
//! user's cache directory, and is no part of this repository. The schema allows any further field; this module does
//! not: a misspelt field would be one.

use jsonschema::Validator;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

const VERSION: &str = "1.8.17";
const SHA256: &str = "60c7dca6571efe660ccb7a9508d73ca14b8796c4ed484c2002abba714226cfef";
const INSIDE: &str = "debugpy/_vendored/pydevd/_pydevd_bundle/_debug_adapter/debugProtocol.json";

/// Fields that are newer than the copy of the schema, with the version of the protocol that has them.
/// Numbers of list elements are written `*`.
const NEWER: &[(&str, &str)] = &[
    ("/body/breakpointModes", "1.65"),
    ("/body/supportsANSIStyling", "1.69"),
    ("/body/variables/*/declarationLocationReference", "1.68"),
    ("/body/variables/*/valueLocationReference", "1.68"),
];
/// Responses that are newer than the copy of the schema, with the version of the protocol that has them, and the fields
/// of their bodies.
const NEWER_RESPONSES: &[(&str, &str, &[&str])] = &[("locations", "1.68", &["source", "line", "column", "endLine"])];

static SCHEMA: OnceLock<Value> = OnceLock::new();

/// Fails unless `message` is a message of the protocol as the specification spells it.
pub(crate) fn check(message: &Value) {
    let schema = SCHEMA.get_or_init(|| serde_json::from_str(&provisioned()).expect("the schema is JSON"));
    let definition = definition_of(schema, message);
    let validator = validator(schema, &definition);
    let errors: Vec<String> =
        validator.iter_errors(message).map(|error| format!("{}: {error}", error.instance_path)).collect();
    assert!(errors.is_empty(), "{definition}: {errors:#?}\n{message:#}");
    let mut unknown = Vec::new();
    unknown_fields(schema, &schema["definitions"][&definition], message, String::new(), &mut unknown);
    unknown.retain(|path| !NEWER.iter().any(|(newer, _)| *newer == general(path)));
    assert!(unknown.is_empty(), "{definition} has no {unknown:?}\n{message:#}");
}

/// A path with `*` for the numbers of list elements.
fn general(path: &str) -> String {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    path.split('/').map(|part| if is_number(part) { "*" } else { part }).collect::<Vec<_>>().join("/")
}

/// Validators are slow to make and are kept.
fn validator(schema: &Value, definition: &str) -> Arc<Validator> {
    static KNOWN: Mutex<BTreeMap<String, Arc<Validator>>> = Mutex::new(BTreeMap::new());
    // A test that panicked left the map as it was.
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let make = || {
        let mut root = schema.clone();
        root["allOf"] = json!([{"$ref": format!("#/definitions/{definition}")}]);
        Arc::new(jsonschema::validator_for(&root).expect("the schema is a schema"))
    };
    known.entry(definition.to_owned()).or_insert_with(make).clone()
}

fn definition_of(schema: &Value, message: &Value) -> String {
    let named = |name: &Value, suffix: &str| {
        let name = name.as_str().expect("a name");
        let mut chars = name.chars();
        let first = chars.next().expect("a name that is not empty");
        format!("{}{}{suffix}", first.to_uppercase(), chars.as_str())
    };
    let (definition, general) = match message["type"].as_str() {
        Some("event") => (named(&message["event"], "Event"), "Event"),
        Some("response") if message["success"] == false => ("ErrorResponse".to_owned(), "ErrorResponse"),
        Some("response") => (named(&message["command"], "Response"), "Response"),
        other => panic!("{other:?} is not a type of message that an adapter sends"),
    };
    if let Some((_, _, fields)) = NEWER_RESPONSES.iter().find(|(name, _, _)| message["command"] == *name)
        && definition != "ErrorResponse"
    {
        let body = message["body"].as_object().expect("a body");
        assert!(body.keys().all(|key| fields.contains(&key.as_str())), "{message:#}");
        return "Response".to_owned();
    }
    let known = schema["definitions"].get(&definition).is_some();
    let own =
        ["event", "command"].iter().any(|key| message[*key].as_str().is_some_and(|name| name.starts_with("riptrace/")));
    assert!(known || own, "the protocol has no {definition}: {message:#}");
    if known { definition } else { general.to_owned() }
}

/// Paths of fields that no definition has.
fn unknown_fields(schema: &Value, definition: &Value, value: &Value, path: String, unknown: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            let mut properties = Map::new();
            let open = collect_properties(schema, definition, &mut properties);
            if properties.is_empty() {
                return;
            }
            for (key, value) in object {
                let path = format!("{path}/{key}");
                match properties.get(key) {
                    Some(definition) => unknown_fields(schema, definition, value, path, unknown),
                    None if open => {}
                    None => unknown.push(path),
                }
            }
        }
        Value::Array(items) => {
            let definition = resolved(schema, definition);
            for (index, item) in items.iter().enumerate() {
                unknown_fields(schema, &definition["items"], item, format!("{path}/{index}"), unknown);
            }
        }
        _ => {}
    }
}

/// Properties of a definition and of what it is built on; whether it says that others may come.
fn collect_properties(schema: &Value, definition: &Value, into: &mut Map<String, Value>) -> bool {
    let definition = resolved(schema, definition);
    let mut open = definition.get("additionalProperties").is_some();
    for part in definition["allOf"].as_array().into_iter().flatten() {
        open |= collect_properties(schema, part, into);
    }
    for (key, value) in definition["properties"].as_object().into_iter().flatten() {
        into.insert(key.clone(), value.clone());
    }
    open
}

fn resolved<'a>(schema: &'a Value, definition: &'a Value) -> &'a Value {
    match definition["$ref"].as_str() {
        Some(reference) => {
            let name = reference.strip_prefix("#/definitions/").expect("a reference into the schema");
            resolved(schema, &schema["definitions"][name])
        }
        None => definition,
    }
}

/// The schema's text, from the cache or through pip.
fn provisioned() -> String {
    let home = PathBuf::from(std::env::var_os("HOME").expect("HOME is set"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    let folder = cache.join("riptrace").join("dap-schema");
    let file = folder.join(format!("debugProtocol-{VERSION}.json"));
    if let Ok(text) = std::fs::read_to_string(&file) {
        return text;
    }
    std::fs::create_dir_all(&folder).expect("the cache directory can be made");
    let staging = tempfile::tempdir_in(&folder).expect("the cache directory can be written");
    let requirements = staging.path().join("requirements.txt");
    std::fs::write(&requirements, format!("debugpy=={VERSION} --hash=sha256:{SHA256}\n")).expect("a file is written");
    run(Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"])
        .args(["--only-binary", ":all:", "--platform", "any", "--implementation", "py", "--abi", "none"])
        .arg("--require-hashes")
        .arg("--dest")
        .arg(staging.path())
        .arg("--requirement")
        .arg(&requirements));
    let wheel = staging.path().join(format!("debugpy-{VERSION}-py2.py3-none-any.whl"));
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(staging.path()));
    // Renamed when whole: another test may read it at the same time.
    std::fs::rename(staging.path().join(INSIDE), &file).expect("the schema is in the wheel");
    read(&file)
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).expect("the schema was written just now")
}

fn run(command: &mut Command) {
    let output =
        command.output().unwrap_or_else(|error| panic!("python3 is needed for the protocol's schema: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_check_finds_misspelt_and_missing_fields() {
    let fails = |message: Value| std::panic::catch_unwind(|| check(&message)).is_err();
    let good = json!({"seq": 1, "type": "event", "event": "output", "body": {"output": "x", "source": {"path": "/a"}}});
    assert!(!fails(good.clone()));
    let mut misspelt = good.clone();
    misspelt["body"]["source"]["source_reference"] = json!(1);
    assert!(fails(misspelt));
    let mut missing = good;
    missing["body"].as_object_mut().unwrap().remove("output");
    assert!(fails(missing));
    assert!(fails(json!({"seq": 1, "type": "event", "event": "unheard"})));
    let names: BTreeSet<_> = NEWER.iter().map(|(path, _)| path).collect();
    assert_eq!(names.len(), NEWER.len());
}
