//! What the documents name exists.

use std::path::Path;

/// Paths in backticks with a `/` in them, relative to the root; `{a,b}` stands for each of its parts.
fn named(text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for quoted in text.split('`').skip(1).step_by(2) {
        let is_path = |c: char| c.is_ascii_alphanumeric() || "/._-{},".contains(c);
        let top = quoted.split('/').next().unwrap_or_default();
        if !quoted.contains('/') || !quoted.chars().all(is_path) || !Path::new(top).is_dir() {
            continue;
        }
        match (quoted.split_once('{'), quoted.split_once('}')) {
            (Some((before, _)), Some((within, after))) => {
                let parts = within.rsplit('{').next().unwrap_or_default();
                paths.extend(parts.split(',').map(|part| format!("{before}{part}{after}")));
            }
            _ => paths.push(quoted.to_owned()),
        }
    }
    paths
}

#[test]
fn every_path_that_a_document_names_is_there() {
    std::env::set_current_dir(env!("CARGO_MANIFEST_DIR")).expect("the root");
    for document in ["README.md", "ARCHITECTURE.md"] {
        let text = std::fs::read_to_string(document).expect(document);
        let paths = named(&text);
        assert!(paths.len() > 5, "{document} names {paths:?}");
        for path in paths {
            // What is built or made is not in the repository.
            let made = path.starts_with("target/") || path.starts_with("tests/artefacts");
            assert!(made || Path::new(&path).exists(), "{document} names {path}");
        }
    }
}
