//! Who may import whom: the rules of `ARCHITECTURE.md`, checked with `cargo metadata`.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Each package of the workspace with the names of its direct dependencies (development ones left out).
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let direct = package["dependencies"].as_array().expect("dependencies").iter();
            let names = direct.filter(|d| d["kind"].is_null()).map(|d| d["name"].as_str().unwrap().to_owned());
            (package["name"].as_str().unwrap().to_owned(), names.collect())
        })
        .collect()
}

const PARTS: [&str; 3] = ["riptrace-agent", "riptrace-coordinator", "riptrace-dap-adapter"];

#[test]
fn every_part_imports_the_protocol_and_no_part_imports_a_sibling() {
    let dependencies = dependencies();
    for part in PARTS {
        let own: BTreeSet<&str> =
            dependencies[part].iter().filter(|name| name.starts_with("riptrace")).map(String::as_str).collect();
        assert_eq!(own, BTreeSet::from(["riptrace-protocol"]), "{part}");
    }
    let root = &dependencies["riptrace"];
    assert!(PARTS.iter().all(|&part| root.contains(part)), "{root:?}");
}

#[test]
fn the_protocol_is_plain_data() {
    let own = &dependencies()["riptrace-protocol"];
    for foreign in ["tokio", "async-nats", "gimli", "object", "dap", "tower-lsp", "nix", "libc", "futures"] {
        assert!(!own.contains(foreign), "protocol depends on {foreign}");
    }
}

#[test]
fn only_one_part_knows_each_outside_world() {
    let dependencies = dependencies();
    for (foreign, part) in [
        ("gimli", "riptrace-agent"),
        ("object", "riptrace-agent"),
        ("iced-x86", "riptrace-agent"),
        ("dap", "riptrace-dap-adapter"),
        ("tower-lsp", "riptrace-dap-adapter"),
    ] {
        let users: Vec<&String> =
            dependencies.iter().filter(|(_, names)| names.contains(foreign)).map(|(name, _)| name).collect();
        assert_eq!(users, [part], "{foreign}");
    }
}

#[test]
fn the_packages_that_the_project_promises_to_use_are_used() {
    let all: BTreeSet<String> = dependencies().into_values().flatten().collect();
    for named in ["tower-lsp", "dap", "tokio", "async-nats", "serde_json", "nix", "gimli"] {
        assert!(all.contains(named), "{named}");
    }
}
