//! Conversations that no sound editor has: arguments of any kind, damaged messages, any bytes.

use super::super::super::super::requests::{OWN, REQUESTS};
use super::{Step, World};
use crate::fuzzing::conversation;
use proptest::prelude::*;
use serde_json::{Value, json};

/// Cases of each test, unless the environment asks for more (`PROPTEST_CASES`).
fn cases(few: u32) -> ProptestConfig {
    let many = std::env::var("PROPTEST_CASES").ok().and_then(|count| count.parse().ok());
    ProptestConfig { cases: many.unwrap_or(few), ..ProptestConfig::default() }
}

/// All requests but those that end the conversation.
fn commands() -> Vec<String> {
    let named = REQUESTS.iter().map(|entry| entry.command.to_owned());
    let own = OWN.iter().map(|entry| format!("riptrace/{}", entry.command));
    named.chain(own).filter(|command| !matches!(command.as_str(), "disconnect" | "terminate")).collect()
}

fn text() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "x",
        "",
        "go-error",
        "go-panic",
        "/a/b.go",
        "file:///%zz",
        "qty >",
        "qty",
        "10:00",
        "web-*",
        "metric",
        "count",
        "main.*",
        "{x}",
        "{",
        "%2",
        "repl",
        "hover",
        "goto 1",
        "capture x",
        "fleet",
        "\u{0}\u{1F980}",
        "-1",
        "none",
    ])
}

/// Any value.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-3i64..40).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(text().prop_map(str::to_owned), inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// What each request takes, all in one: each takes what it knows.
fn sound() -> Value {
    let text = r#"{
        "threadId": 2, "frameId": 1, "variablesReference": 2, "sourceReference": 1,
        "source": {"path": "/a/b.go", "name": "b.go"}, "line": 1, "endLine": 3, "column": 1,
        "breakpoints": [{"line": 1, "name": "main.f", "condition": "x > 1", "hitCondition": "%2", "logMessage": "{x}",
            "mode": "log"}],
        "filters": ["go-panic"], "filterOptions": [{"filterId": "go-error", "condition": "main.f"}],
        "expression": "x", "context": "repl", "format": {"hex": true}, "start": 0, "count": 2, "filter": "named",
        "startFrame": 0, "levels": 1, "targetId": 1, "requestId": 3, "progressId": "1", "arguments": {},
        "recording": "x", "correlate": "qty", "selector": "service=cart", "rate": 5,
        "substitutePath": [{"from": "a", "to": "b"}], "seq": 1, "text": "x", "name": "x", "value": "1", "buckets": 3,
        "refresh": true, "breakpoint": 1, "path": "x", "locationReference": 1, "startModule": 0, "moduleCount": 1,
        "memoryReference": "0x0", "instructionCount": 1, "data": "", "dataId": "x"
    }"#;
    serde_json::from_str(text).expect("it is JSON")
}

/// Sound arguments in which something is something else: a field, what is in a field, or all of it.
fn arguments() -> impl Strategy<Value = Value> {
    let damage = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any_json(), 0u8..6);
    proptest::collection::vec(damage, 0..4).prop_map(|damages| {
        let mut arguments = sound();
        for (which, inner, value, how) in damages {
            let Value::Object(fields) = &mut arguments else { break };
            let keys: Vec<String> = fields.keys().cloned().collect();
            if keys.is_empty() {
                break;
            }
            let key = which.get(keys.as_slice()).clone();
            match how {
                0 => {
                    fields.remove(&key);
                }
                1 => arguments = value,
                2 | 3 => {
                    let inside = match &mut fields[&key] {
                        Value::Array(list) if !list.is_empty() => {
                            let at = inner.index(list.len());
                            &mut list[at]
                        }
                        other => other,
                    };
                    match inside {
                        Value::Object(parts) if !parts.is_empty() => {
                            let names: Vec<String> = parts.keys().cloned().collect();
                            parts.insert(inner.get(names.as_slice()).clone(), value);
                        }
                        other => *other = value,
                    }
                }
                _ => {
                    fields.insert(key, value);
                }
            }
        }
        arguments
    })
}

proptest! {
    #![proptest_config(cases(64))]
    #[test]
    fn whatever_the_arguments_each_request_is_answered_once(
        asked in proptest::collection::vec((any::<prop::sample::Index>(), arguments(), 0u8..4), 1..60),
    ) {
        let commands = commands();
        let mut world = World::new();
        for (command, arguments) in [("initialize", json!({})), ("attach", json!({"correlate": "qty"}))] {
            world.ask(command, arguments);
        }
        world.answer(0, false);
        world.ask("setBreakpoints", json!({"source": {"path": "/a/b.go"}, "breakpoints": [{"line": 1}]}));
        for (index, arguments, then) in asked {
            world.ask(&commands[index.index(commands.len())], arguments);
            match then {
                0 => world.hit(0, 1),
                1 => world.answer(0, false),
                2 => world.answer(1, true),
                _ => world.step(Step::Later { ms: 300 }),
            }
        }
        world.ask("disconnect", json!({}));
        while !world.exited && !world.waiting.is_empty() {
            world.answer(0, false);
        }
        prop_assert!(world.exited && world.unanswered.is_empty(), "unanswered: {:?}", world.unanswered);
        prop_assert!(world.fleet.is_empty(), "left in the fleet: {:?}", world.fleet);
    }

    #[test]
    fn any_bytes_are_a_conversation_that_ends(input in proptest::collection::vec(any::<u8>(), 0..400)) {
        conversation(&input);
    }

    #[test]
    fn a_damaged_conversation_ends_and_what_was_asked_is_answered(
        asked in proptest::collection::vec((any::<prop::sample::Index>(), arguments(), -3i64..9), 1..12),
        damages in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 0..6),
    ) {
        let commands = commands();
        let mut bytes = Vec::new();
        for (index, arguments, seq) in asked {
            let message = json!({"seq": seq, "type": "request", "command": index.get(commands.as_slice()), "arguments": arguments});
            let body = message.to_string();
            bytes.extend(format!("Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes());
        }
        let is_sound = damages.is_empty();
        for (at, byte, how) in damages {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => {
                    bytes.remove(at);
                }
            }
        }
        let answered = conversation(&bytes);
        // Those of the beginning and the end are answered in any case.
        let least = if is_sound { 4 } else { 3 };
        prop_assert!(answered >= least, "{} answers", answered);
    }
}
