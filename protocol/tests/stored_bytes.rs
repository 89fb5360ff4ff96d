//! Every message, as bytes that are kept.
//!
//! `stored/` holds one message of each kind: `.json` as it is on the wire, `.hex` for the binary ones. Reading gives
//! the value that is built here, writing gives the same bytes. A change of the format shows up as a difference;
//! `UPDATE=1 cargo test -p riptrace-protocol` rewrites the files and the examples in `PROTOCOL.md`, and the difference
//! is read: a field that JSON readers of the last version do not expect is fine, anything else in a binary message
//! raises its version.

mod samples;

use riptrace_protocol::WireError;
use riptrace_protocol::agent_api::{Create, Heartbeat, Reply};
use riptrace_protocol::batch::{BATCH_VERSION, Batch};
use riptrace_protocol::coordinator_api::TracepointCreate;
use riptrace_protocol::decode;
use riptrace_protocol::fleet::FleetView;
use riptrace_protocol::layout::Layout;
use riptrace_protocol::limits;
use riptrace_protocol::stream::{STREAM_VERSION, StreamItem, StreamMessage};
use samples::{Json, batch, empty_batch, json_messages, stream_message};
use std::path::PathBuf;

fn stored(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/stored").join(name)
}

fn updating() -> bool {
    std::env::var_os("UPDATE").is_some_and(|value| value == "1")
}

fn read_or_update(name: &str, now: &str) -> String {
    let path = stored(name);
    if updating() {
        std::fs::write(&path, now).unwrap();
    }
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}; UPDATE=1 writes it", path.display()))
}

fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    bytes.chunks(32).map(line).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn control_messages_keep_their_bytes() {
    for Json { name, now, reads_as_itself } in json_messages() {
        let kept = read_or_update(&format!("{name}.json"), &format!("{now}\n"));
        assert_eq!(kept.trim_end(), now, "{name}: written otherwise than before");
        reads_as_itself(kept.trim_end()).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn no_stored_file_is_left_over() {
    let mut known: Vec<String> = json_messages().iter().map(|json| format!("{}.json", json.name)).collect();
    known.extend(["batch.hex", "batch_empty.hex", "stream.hex"].map(str::to_owned));
    for entry in std::fs::read_dir(stored("")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(known.contains(&name), "{name} belongs to no message");
    }
}

#[test]
fn binary_messages_keep_their_bytes() {
    for (name, message) in [("batch", batch()), ("batch_empty", empty_batch())] {
        let now = message.encode().unwrap();
        let kept = from_hex(&read_or_update(&format!("{name}.hex"), &hex(&now)));
        assert_eq!(kept, now, "{name}: written otherwise than before");
        assert_eq!(Batch::decode(&kept).unwrap(), message, "{name}: read otherwise than before");
    }
    let message = stream_message();
    let now = message.encode().unwrap();
    let kept = from_hex(&read_or_update("stream.hex", &hex(&now)));
    assert_eq!(kept, now, "stream: written otherwise than before");
    assert_eq!(StreamMessage::decode(&kept).unwrap(), message, "stream: read otherwise than before");
}

#[test]
fn a_reader_ignores_fields_that_it_does_not_know_and_fills_in_those_that_have_a_default() {
    let kept = std::fs::read_to_string(stored("heartbeat.json")).unwrap();
    let newer = kept.trim_end().replacen('{', r#"{"added_later":[1,{"x":null}],"#, 1);
    let heartbeat: Heartbeat = serde_json::from_str(&newer).unwrap();
    assert_eq!(heartbeat, serde_json::from_str(&kept).unwrap());

    let shortest = r#"{"tracepoint":{"id":"t1","location":{"kind":"line","file":"a.go","line":3}},"processes":[]}"#;
    let create: Create = serde_json::from_str(shortest).unwrap();
    assert_eq!(create.tracepoint.limits.string_bytes, limits::STRING_BYTES_DEFAULT);
    assert_eq!(create.tracepoint.limits.rate_per_s, Some(limits::RATE_PER_S_DEFAULT));
    assert_eq!(create.tracepoint.condition, None);
}

#[test]
fn garbage_in_control_messages_is_an_error() {
    for Json { name, now, reads_as_itself } in json_messages() {
        for end in (0..now.len()).filter(|&end| now.is_char_boundary(end)) {
            assert!(reads_as_itself(&now[..end]).is_err(), "{name}: cut at {end}");
        }
    }
    for bad in [
        r#"{"session":"a.b","tracepoint":{"id":"t","location":{"kind":"line","file":"a.go","line":3}}}"#,
        r#"{"session":"s","tracepoint":{"id":"*","location":{"kind":"line","file":"a.go","line":3}}}"#,
        r#"{"session":"s","tracepoint":{"id":"t","location":{"kind":"page","file":"a.go","line":3}}}"#,
        r#"{"session":"s","tracepoint":{"id":"t","location":{"kind":"line","file":"a.go","line":-3}}}"#,
        r#"{"session":"s","tracepoint":{"id":"t","location":{"kind":"line","file":"a.go","line":3},"selector":"colour=red"}}"#,
    ] {
        assert!(serde_json::from_str::<TracepointCreate>(bad).is_err(), "{bad}");
    }
    assert!(serde_json::from_str::<Reply<FleetView>>(r#"{"perhaps":1}"#).is_err());
}

/// Truncations always fail; any other change fails or gives a message, from which values can be built.
fn survives_corruption<T>(kept: &[u8], decode: impl Fn(&[u8]) -> Result<T, WireError>, look: impl Fn(&T)) {
    for end in 0..kept.len() {
        assert!(decode(&kept[..end]).is_err(), "cut at {end}");
    }
    let longer = [kept, &[0]].concat();
    assert!(matches!(decode(&longer), Err(WireError::Inconsistent { .. })));
    for at in 1..kept.len() {
        for flip in [0x01, 0x02, 0x10, 0x40, 0x80, 0xff] {
            let mut bytes = kept.to_vec();
            bytes[at] ^= flip;
            if let Ok(message) = decode(&bytes) {
                look(&message);
            }
        }
    }
}

#[test]
fn a_corrupt_batch_is_an_error_or_a_batch() {
    let layout = samples::layout();
    let look = |batch: &Batch| {
        assert!(batch.hits.len() <= limits::BATCH_HITS_MAX);
        batch.hits.iter().for_each(|hit| drop(decode::values(&layout, hit)));
    };
    survives_corruption(&batch().encode().unwrap(), Batch::decode, look);
    survives_corruption(&empty_batch().encode().unwrap(), Batch::decode, look);
}

#[test]
fn a_corrupt_stream_message_is_an_error_or_a_message() {
    survives_corruption(&stream_message().encode().unwrap(), StreamMessage::decode, |message| {
        let mut layouts: Vec<&Layout> = Vec::new();
        for item in &message.items {
            match item {
                StreamItem::Layout(layout) => layouts.push(layout),
                StreamItem::Hit(hit) => layouts.iter().for_each(|layout| drop(decode::values(layout, &hit.raw))),
                StreamItem::Frames(_) | StreamItem::Drop(_) => {}
            }
        }
    });
}

#[test]
fn another_version_is_named() {
    let mut bytes = batch().encode().unwrap();
    bytes[0] = BATCH_VERSION + 1;
    let error = Batch::decode(&bytes).unwrap_err();
    assert!(matches!(error, WireError::Version { known: BATCH_VERSION, .. }), "{error}");
    let mut bytes = stream_message().encode().unwrap();
    bytes[0] = STREAM_VERSION + 1;
    let error = StreamMessage::decode(&bytes).unwrap_err();
    assert!(error.to_string().contains("run the same riptrace on all hosts"), "{error}");
    assert!(matches!(Batch::decode(&[]), Err(WireError::Empty { .. })));
    assert!(matches!(Batch::decode(&vec![1; limits::MESSAGE_BYTES_MAX + 1]), Err(WireError::TooLarge { .. })));
}

#[test]
fn what_a_batch_promises_about_itself_is_checked() {
    let refuse = |change: fn(&mut Batch), rule: &str| {
        let mut batch = batch();
        change(&mut batch);
        let error = Batch::decode(&batch.encode().unwrap()).unwrap_err();
        assert!(error.to_string().contains(rule), "{error}");
    };
    refuse(|batch| batch.first_hit += 1, "hit numbers are not consecutive");
    refuse(|batch| batch.hits[1].time_ns = 0, "not in the order of time");
    refuse(|batch| batch.hits[0].stack = vec![batch.hits[0].stack[0]; limits::STACK_FRAMES_MAX + 1], "more frames");
    refuse(|batch| batch.hits[0].chunks = vec![batch.hits[0].chunks[0].clone(); 1025], "more chunks");
    refuse(
        |batch| {
            let hit = samples::bare_hit();
            batch.first_hit = 0;
            batch.hits = (0..=limits::BATCH_HITS_MAX as u64)
                .map(|number| riptrace_protocol::hit::RawHit { number, ..hit.clone() })
                .collect();
        },
        "more hits than a batch may have",
    );
    let mut too_large = batch();
    too_large.hits[0].roots = vec![7; limits::MESSAGE_BYTES_MAX];
    assert!(matches!(too_large.encode(), Err(WireError::TooLarge { .. })));
}

#[test]
fn what_a_stream_message_promises_about_itself_is_checked() {
    let refuse = |change: fn(&mut StreamMessage), rule: &str| {
        let mut message = stream_message();
        change(&mut message);
        let error = StreamMessage::decode(&message.encode().unwrap()).unwrap_err();
        assert!(error.to_string().contains(rule), "{error}");
    };
    refuse(|message| message.resume.next_seq = 1, "not beyond the last");
    refuse(
        |message| {
            let hit = message.items.iter().find(|item| matches!(item, StreamItem::Hit(_))).unwrap().clone();
            message.items.push(hit);
        },
        "do not increase",
    );
    refuse(
        |message| {
            for item in &mut message.items {
                if let StreamItem::Hit(hit) = item {
                    hit.undetermined_with = vec![1; limits::UNDETERMINED_MAX + 1];
                }
            }
        },
        "more undetermined neighbours",
    );
}
