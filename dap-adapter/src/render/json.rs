//! Hits, drops and states as the objects of `--json`, one a line. Names and forms are a contract with programs.

use super::{text, time};
use crate::timeline::Dictionaries;
use crate::timeline::values::HitValues;
use riptrace_protocol::fleet::{Mechanism, ProbeState, ProbeStatus};
use riptrace_protocol::stream::{OrderedHit, StreamDrop};
use serde_json::{Value, json};

/// `{"type":"hit",..}`.
pub fn hit(hit: &OrderedHit, dictionaries: &Dictionaries) -> Value {
    let values = HitValues::decode(hit, dictionaries);
    let message = text::message(hit, dictionaries, &values);
    let place = dictionaries.place(hit);
    let stack: Vec<Value> = dictionaries
        .stack(hit)
        .into_iter()
        .map(|entry| match entry.frame {
            Some(frame) => json!({"function": frame.function, "file": frame.file, "line": frame.line}),
            None => json!({"function": format!("{:#x}", entry.pc.0), "file": "", "line": 0}),
        })
        .collect();
    json!({
        "type": "hit",
        "seq": hit.seq,
        "time": time::rfc3339(hit.time_ns),
        "time_ns": hit.time_ns,
        "uncertainty_ns": hit.uncertainty_ns,
        "host": hit.host,
        "pid": hit.raw.process.pid,
        "service": hit.service,
        "thread": hit.raw.thread,
        "goroutine": hit.raw.goroutine,
        "goroutine_facts": dictionaries.goroutine(hit),
        "tracepoint": hit.raw.tracepoint,
        "function": place.as_ref().map(|frame| &frame.function),
        "file": place.as_ref().map(|frame| &frame.file),
        "line": place.as_ref().map(|frame| frame.line),
        "moment": dictionaries.layout(&hit.raw.layout).map(|layout| layout.moment),
        "duration_ns": hit.raw.duration_ns,
        "message": message,
        "values": values.all(),
        "stack": stack,
        "undetermined_with": hit.undetermined_with,
        "late": hit.late,
    })
}

/// `{"type":"drop",..}`.
pub fn drop(drop: &StreamDrop) -> Value {
    json!({
        "type": "drop",
        "count": drop.count,
        "reason": drop.reason.as_str(),
        "host": drop.host,
        "pid": drop.process.map(|key| key.pid),
        "tracepoint": drop.tracepoint,
    })
}

/// `{"type":"status",..}`.
pub fn status(status: &ProbeStatus) -> Value {
    json!({
        "type": "status",
        "tracepoint": status.tracepoint,
        "host": status.process.host,
        "pid": status.process.key.pid,
        "state": state_word(status.state),
        "mechanism": status.mechanism.map(mechanism_word),
        "sites": status.sites.len(),
        "reason": status.reason,
        "note": status.note,
    })
}

/// `{"type":"summary",..}`.
pub fn summary(hits: u64, dropped: u64) -> Value {
    json!({"type": "summary", "hits": hits, "dropped": dropped})
}

/// The word of a probe's state.
pub fn state_word(state: ProbeState) -> &'static str {
    match state {
        ProbeState::Pending => "pending",
        ProbeState::Armed => "armed",
        ProbeState::Refused => "refused",
        ProbeState::Absent => "absent",
        ProbeState::Off => "off",
    }
}

/// The word of a mechanism.
pub fn mechanism_word(mechanism: Mechanism) -> &'static str {
    match mechanism {
        Mechanism::Jump => "jump",
        Mechanism::Trap => "trap",
        Mechanism::Ptrace => "ptrace",
    }
}
