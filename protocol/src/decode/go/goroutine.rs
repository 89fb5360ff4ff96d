//! What Go's runtime knows of a goroutine: who made it, where, and the labels that `runtime/pprof` set.
//!
//! Source: `runtime.g` (`goid`, `parentGoid`, `gopc`, `labels`; Go's `runtime/runtime2.go`). The labels are a
//! `map[string]string` up to Go 1.23 and a list of pairs, in a struct or two, since (`runtime/pprof/label.go`): they are
//! found by their shapes. Programs may put something else there, so no more than pairs of texts is believed.
//!
//! The agent finds the `g` by the register that Go's compiler keeps it in. It is believed where its id is the one that
//! was read by the thread's own way to its `g`.

use super::{Status, Value, pointee, suspect};
use crate::value::Scalar;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Structs around the list of labels, at most: Go 1.27 has two.
const WRAPPERS_MAX: usize = 3;

/// A goroutine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GoroutineFacts {
    /// Its id; `None` where it could not be read.
    pub id: Option<u64>,
    /// Id of the goroutine that made it; `None` for those that the runtime made itself.
    pub parent: Option<u64>,
    /// Function, file and line of the `go` statement; the address behind its call where that has no name; `None` where
    /// there is none.
    pub created_by: Option<String>,
    /// Labels by their keys. What could not be read is in `problem`.
    pub labels: BTreeMap<String, String>,
    /// What of it is not known, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl fmt::Display for GoroutineFacts {
    /// `goroutine 18, created by main.serve at x.go:12 in goroutine 1, labels {tenant: a}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            Some(id) => write!(f, "goroutine {id}")?,
            None => f.write_str("a goroutine")?,
        }
        match (&self.created_by, self.parent) {
            (Some(by), Some(parent)) => write!(f, ", created by {by} in goroutine {parent}")?,
            (Some(by), None) => write!(f, ", created by {by}")?,
            (None, Some(parent)) => write!(f, ", created in goroutine {parent}")?,
            (None, None) => {}
        }
        if !self.labels.is_empty() {
            let labels: Vec<String> = self.labels.iter().map(|(key, value)| format!("{key}: {value}")).collect();
            write!(f, ", labels {{{}}}", labels.join(", "))?;
        }
        match &self.problem {
            Some(problem) => write!(f, " <{problem}>"),
            None => Ok(()),
        }
    }
}

/// The facts, from the captured fields of a `g`. `id` is what the thread's own way to its `g` has led to.
pub(in crate::decode) fn facts(id: Option<u64>, g: &Value) -> GoroutineFacts {
    let mut facts = GoroutineFacts { id, parent: None, created_by: None, labels: BTreeMap::new(), problem: None };
    let field = |name: &str| g.children.iter().find(|child| child.name == name);
    let number = |name: &str| match field(name).map(|value| (&value.status, &value.scalar)) {
        Some((Status::Exact, Some(Scalar::Int(number)))) => u64::try_from(*number).ok(),
        _ => None,
    };
    if !g.status.is_shown() {
        facts.problem = Some(format!("who made it: {}", unbracketed(&g.status)));
        return facts;
    }
    if id.is_none() || number("goid") != id {
        let why = suspect("the register that should lead to the goroutine leads elsewhere");
        facts.problem = Some(format!("who made it: {}", unbracketed(&why)));
        return facts;
    }
    facts.parent = number("parentGoid").filter(|&parent| parent != 0);
    // The first one was made by the program's start, which is nobody's `go` statement.
    let is_made = |gopc: &&Value| gopc.status.is_shown() && gopc.scalar != Some(Scalar::Address(0)) && id != Some(1);
    let created_by = field("gopc").filter(is_made);
    facts.created_by = created_by.map(|gopc| gopc.value.clone());
    if let Some(pointer) = field("labels") {
        let why = labels(pointer, &mut facts.labels).err();
        facts.problem = why.map(|why| format!("labels: {}", unbracketed(&why)));
    }
    facts
}

fn unbracketed(status: &Status) -> String {
    status.note().trim_start_matches('<').trim_end_matches('>').to_owned()
}

/// Adds the labels; an error says what is missing of them.
fn labels(pointer: &Value, found: &mut BTreeMap<String, String>) -> Result<(), Status> {
    match pointer.scalar {
        Some(Scalar::Address(0) | Scalar::Int(0)) if pointer.status.is_shown() => return Ok(()),
        Some(Scalar::Int(_)) if pointer.status.is_shown() => {
            let detail = "they are set, and not read where hits have no rate limit".to_owned();
            return Err(Status::Partial { detail });
        }
        _ => {}
    }
    let mut at = pointee(pointer);
    if std::ptr::eq(at, pointer) {
        let detail = "they are set, and the build does not describe their type".to_owned();
        return Err(if pointer.status.is_shown() { Status::Partial { detail } } else { pointer.status.clone() });
    }
    for _ in 0..WRAPPERS_MAX {
        match (&at.scalar, at.children.as_slice()) {
            (None, [only]) if at.status == Status::Exact => at = only,
            _ => break,
        }
    }
    let is_map = matches!(at.scalar, Some(Scalar::Map { .. }));
    if !is_map && !matches!(at.scalar, Some(Scalar::Sequence { .. })) {
        let is_odd = at.status == Status::Exact;
        return Err(if is_odd { suspect("they are neither a map nor a list") } else { at.status.clone() });
    }
    for entry in &at.children {
        let (key, value) = match (entry.key.as_deref(), entry.children.as_slice()) {
            (Some(key), _) => (key, entry),
            (None, [key, value]) => (key, value),
            _ => return Err(suspect("they are no pairs of texts")),
        };
        found.insert(text(key)?, text(value)?);
    }
    if at.status == Status::Exact { Ok(()) } else { Err(at.status.clone()) }
}

/// A text; of one that was cut, what there is of it, with dots behind it.
fn text(value: &Value) -> Result<String, Status> {
    match &value.scalar {
        Some(Scalar::Text(bytes)) if value.status == Status::Exact => Ok(String::from_utf8_lossy(bytes).into_owned()),
        Some(Scalar::TextPart { shown, .. }) if value.status.is_shown() => {
            Ok(format!("{}...", String::from_utf8_lossy(shown)))
        }
        _ if value.status != Status::Exact => Err(value.status.clone()),
        _ => Err(suspect("they are no pairs of texts")),
    }
}
