//! What the fuzz targets of this crate (`protocol/fuzz`) run, and its ordinary tests on random bytes. No part of the
//! library's interface.

use crate::batch::Batch;
use crate::decode::Decoder;
use crate::expression::{Template, eval, parse};
use crate::layout::Layout;
use crate::limits;
use crate::location::Location;
use crate::scenario;
use crate::selector::Selector;
use crate::stream::{StreamItem, StreamMessage};
use crate::tracepoint::HitCondition;
use crate::value::Value;

/// Values of a tree, and how deep it is.
fn size(values: &[Value], depth: usize) -> (usize, usize) {
    let below = values.iter().map(|value| size(&value.children, depth + 1));
    below.fold((values.len(), depth), |(all, deepest), (more, deep)| (all + more, deepest.max(deep)))
}

/// Reads `input` as an expression (its length in one byte, then its text) and a message of a session's stream, and the
/// hits of that as values, each by each layout of the message; evaluates the expression over them.
///
/// # Panics
/// When a value is larger than a value may be, or a message that was read cannot be written again.
pub fn values(input: &[u8]) {
    let Some((&length, rest)) = input.split_first() else { return };
    let (text, message) = rest.split_at(usize::from(length).min(rest.len()));
    let expression = std::str::from_utf8(text).ok().and_then(|text| parse(text).ok());
    let Ok(message) = StreamMessage::decode(message) else { return };
    if let Ok(bytes) = message.encode() {
        assert_eq!(StreamMessage::decode(&bytes).as_ref(), Ok(&message));
    }
    let layouts: Vec<&Layout> = message
        .items
        .iter()
        .filter_map(|item| match item {
            StreamItem::Layout(layout) if layout.check().is_ok() => Some(&**layout),
            _ => None,
        })
        .collect();
    for item in &message.items {
        let StreamItem::Hit(hit) = item else { continue };
        for layout in layouts.iter().take(4) {
            let decoder = Decoder::new(layout, &hit.raw);
            decoder.goroutine();
            let (nodes, depth) = size(&decoder.variables(None), 0);
            assert!(nodes <= 2 * limits::VALUE_NODES_MAX.max(layout.variables.len()), "{nodes} values");
            assert!(depth <= limits::VALUE_DEPTH_MAX + 2, "{depth} deep");
            if let Some(expression) = &expression {
                // Whatever the outcome, it is one.
                let _ = eval(expression, &decoder);
            }
        }
    }
}

/// Reads `input` as what agents publish.
///
/// # Panics
/// When a batch that was read cannot be written again, or is another one then.
pub fn batch(input: &[u8]) {
    if let Ok(batch) = Batch::decode(input) {
        assert!(batch.hits.len() <= limits::BATCH_HITS_MAX);
        if let Ok(bytes) = batch.encode() {
            assert_eq!(Batch::decode(&bytes), Ok(batch));
        }
    }
}

/// Reads `input` as what a person writes: an expression, a log message, a place, a selector, a hit
/// condition, a scenario.
///
/// # Panics
/// When what was read is something else when it is written and read again.
pub fn texts(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(expression) = parse(text) {
        // With all its brackets and escapes it may be longer than an expression that a person may write.
        let written = expression.to_string();
        if written.len() <= limits::EXPRESSION_BYTES_MAX {
            assert_eq!(parse(&written), Ok(expression));
        }
    }
    if let Ok(template) = Template::parse(text) {
        template.expressions().for_each(|expression| drop(expression.to_string()));
    }
    if let Ok(location) = Location::parse(text) {
        assert_eq!(Location::parse(&location.to_string()), Ok(location));
    }
    if let Ok(selector) = Selector::parse(text) {
        assert_eq!(Selector::parse(&selector.to_string()), Ok(selector));
    }
    match scenario::parse(text) {
        Ok(scenario) => assert!(!scenario.tracepoints.is_empty() && !scenario.expectations.is_empty()),
        Err(problems) => {
            let spans = || problems.iter().map(|problem| problem.span.clone());
            assert!(!problems.is_empty() && spans().all(|span| text.get(span).is_some()), "{problems:?}");
        }
    }
    if let Ok(condition) = HitCondition::parse(text) {
        condition.admits(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stored(name: &str) -> Vec<u8> {
        let path = format!("{}/tests/stored/{name}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    /// Each body with what it reads whole. With `RIPTRACE_FUZZ_SEEDS=FOLDER`, they are written there: what the fuzz targets
    /// begin with.
    fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
        let mut seeds = vec![("batch", "batch".to_owned(), stored("batch.hex"))];
        for text in ["c.Items[0].Qty * 2 > len(name)", "err.(*net.OpError).Op == \"read\"", "qty"] {
            let mut input = vec![text.len() as u8];
            input.extend_from_slice(text.as_bytes());
            input.extend(stored("stream.hex"));
            seeds.push(("values", format!("stream-{}", seeds.len()), input));
            seeds.push(("texts", format!("expression-{}", seeds.len()), text.as_bytes().to_vec()));
        }
        for text in
            ["{qty} of {sku,x}: {{", "cart/cart.go:42", "main.(*Cart).Add:return", "host=web-*,label.env=prod", "%3"]
        {
            seeds.push(("texts", format!("text-{}", seeds.len()), text.as_bytes().to_vec()));
        }
        let scenario = "[[tracepoint]]\nname = \"a\"\nat = \"a.go:1\"\nwhen = \"x > 1\"\n[stimulus]\nrun = [\"x\"]\n\
                        [[expect]]\ntracepoint = \"a\"\ncount = \"1..3\"\n[[expect]]\nfrom = \"a\"\nto = \"a\"\nat_most = \"1s\"\n";
        seeds.push(("texts", "scenario".to_owned(), scenario.as_bytes().to_vec()));
        seeds
    }

    fn run(target: &str, input: &[u8]) {
        match target {
            "values" => values(input),
            "batch" => batch(input),
            _ => texts(input),
        }
    }

    #[test]
    fn the_seeds_are_read() {
        assert!(Batch::decode(&stored("batch.hex")).is_ok() && StreamMessage::decode(&stored("stream.hex")).is_ok());
        for (target, name, content) in seeds() {
            run(target, &content);
            if let Some(folder) = std::env::var_os("RIPTRACE_FUZZ_SEEDS").map(std::path::PathBuf::from) {
                std::fs::create_dir_all(folder.join(target)).unwrap();
                std::fs::write(folder.join(target).join(name), content).unwrap();
            }
        }
    }

    proptest! {
        #[test]
        fn damaged_messages_are_errors_or_other_messages(
            which in any::<prop::sample::Index>(),
            damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let seeds = seeds();
            let (target, _, content) = which.get(seeds.as_slice());
            let mut content = content.clone();
            for (at, byte) in damages {
                let at = at.index(content.len());
                content[at] = byte;
            }
            run(target, &content);
        }

        #[test]
        fn any_bytes_are_survived(input in prop::collection::vec(any::<u8>(), 0..200)) {
            ["values", "batch", "texts"].into_iter().for_each(|target| run(target, &input));
        }
    }
}
