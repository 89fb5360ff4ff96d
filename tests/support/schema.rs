//! The published JSON schema of the Debug Adapter Protocol, and the check of a message against it.
//!
//! The copy that is at hand (in `debugpy`) is some versions old; what is newer is listed here. Objects are checked
//! strictly: a field that neither the schema nor the list knows is a mistake, most likely in its name.

use super::fixture::cache;
use jsonschema::Validator;
use riptrace::provision::{self, pins};
use serde_json::{Map, Value, json};
use std::{
    collections::HashMap,
    fs,
    sync::{Arc, Mutex, OnceLock},
};

/// Fields of adapters' messages that the protocol's own schema has and the copy lacks: definition, field.
/// Source: the file `debugAdapterProtocol.json` of <https://github.com/microsoft/debug-adapter-protocol>, June 2026.
const NEWER: &[(&str, &str)] = &[
    ("Capabilities", "breakpointModes"),
    ("Capabilities", "supportsANSIStyling"),
    ("Capabilities", "supportsDataBreakpointBytes"),
    ("EvaluateResponse", "valueLocationReference"),
    ("OutputEvent", "locationReference"),
    ("SetExpressionResponse", "valueLocationReference"),
    ("SetVariableResponse", "valueLocationReference"),
    ("Variable", "declarationLocationReference"),
    ("Variable", "valueLocationReference"),
];

/// Definitions that others extend: strict, they would refuse the extension.
const EXTENDED: [&str; 5] = ["ProtocolMessage", "Request", "Event", "Response", "ValueFormat"];

/// The schema, with a validator per kind of message that has been met.
pub struct Schema {
    document: Map<String, Value>,
    /// Name of an event to its definition.
    events: HashMap<String, String>,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

/// The schema; provisioned and read once per test program.
pub fn schema() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let file = provision::pinned(&cache(), &pins::DAP_SCHEMA, &mut |_| {}).unwrap_or_else(|e| panic!("{e}"));
        let text = fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        Schema::new(serde_json::from_slice(&text).expect("the schema is JSON"))
    })
}

impl Schema {
    fn new(mut document: Value) -> Self {
        let definitions = document["definitions"].as_object_mut().expect("definitions");
        definitions.entry("LocationsResponse").or_insert_with(locations_response);
        let mut events = HashMap::new();
        for (name, definition) in definitions.iter_mut() {
            if let Some(event) = definition["allOf"][1]["properties"]["event"]["enum"][0].as_str() {
                events.insert(event.to_owned(), name.clone());
            }
            if !EXTENDED.contains(&name.as_str()) {
                tighten(name, definition);
            }
        }
        let Value::Object(document) = document else { panic!("the schema is an object") };
        Self { document, events, validators: Mutex::default() }
    }

    /// What is wrong with a message of the adapter; `command` is what the script asked, for a response.
    pub fn problems(&self, message: &Value) -> Vec<String> {
        let name = match message["type"].as_str() {
            // The adapter's own events are documented with the adapter; the protocol lets clients pass them over.
            Some("event") if message["event"].as_str().is_some_and(|event| event.starts_with("riptrace/")) => {
                let whole = message["body"].is_object();
                return if whole { Vec::new() } else { vec![format!("{} has no body", message["event"])] };
            }
            // Likewise its own requests, whose answers have a body of their own.
            Some("response") if message["command"].as_str().is_some_and(|c| c.starts_with("riptrace/")) => {
                "Response".to_owned()
            }
            Some("event") => match self.events.get(message["event"].as_str().unwrap_or_default()) {
                Some(name) => name.clone(),
                None => return vec![format!("no event {} in the protocol", message["event"])],
            },
            Some("response") if message["success"] == true => {
                capitalised(message["command"].as_str().unwrap_or_default(), "Response")
            }
            Some("response") => "ErrorResponse".to_owned(),
            Some("request") => capitalised(message["command"].as_str().unwrap_or_default(), "Request"),
            _ => "ProtocolMessage".to_owned(),
        };
        match self.validator(&name) {
            Some(validator) => {
                validator.iter_errors(message).map(|error| format!("{name}{}: {error}", error.instance_path)).collect()
            }
            None => vec![format!("no {name} in the protocol")],
        }
    }

    fn validator(&self, name: &str) -> Option<Arc<Validator>> {
        let mut validators = self.validators.lock().unwrap();
        if !validators.contains_key(name) {
            self.document["definitions"].get(name)?;
            let mut root = self.document.clone();
            for own in ["title", "description", "type"] {
                root.remove(own);
            }
            root.insert("allOf".to_owned(), json!([{"$ref": format!("#/definitions/{name}")}]));
            let validator = jsonschema::draft4::new(&Value::Object(root)).expect("a sound schema");
            validators.insert(name.to_owned(), Arc::new(validator));
        }
        validators.get(name).cloned()
    }
}

/// The one response that the copy lacks altogether, from the same source as [`NEWER`].
fn locations_response() -> Value {
    json!({"allOf": [{"$ref": "#/definitions/Response"}, {
        "type": "object",
        "properties": {"body": {
            "type": "object",
            "properties": {
                "source": {"$ref": "#/definitions/Source"},
                "line": {"type": "integer"}, "column": {"type": "integer"},
                "endLine": {"type": "integer"}, "endColumn": {"type": "integer"}
            },
            "required": ["source", "line"]
        }}
    }]})
}

/// Makes the objects of a definition refuse fields that they do not name.
fn tighten(name: &str, definition: &mut Value) {
    match definition.get_mut("allOf").and_then(Value::as_array_mut) {
        // A message: what is inside its body is strict, its envelope belongs to the definition that it extends.
        Some(parts) => {
            if let Some(body) = parts.last_mut().and_then(|part| part.get_mut("properties")?.get_mut("body")) {
                tighten_object(name, body);
            }
        }
        None => tighten_object(name, definition),
    }
}

fn tighten_object(name: &str, schema: &mut Value) {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for property in properties.values_mut() {
            tighten_object(name, property);
        }
        for (_, newer) in NEWER.iter().filter(|(of, _)| *of == name) {
            properties.entry(*newer).or_insert(json!({}));
        }
        if schema.get("additionalProperties").is_none() {
            schema["additionalProperties"] = json!(false);
        }
    }
    if let Some(items) = schema.get_mut("items") {
        tighten_object(name, items);
    }
}

/// `setBreakpoints` and `Response` make `SetBreakpointsResponse`.
fn capitalised(command: &str, end: &str) -> String {
    let mut letters = command.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect::<String>() + end
}
