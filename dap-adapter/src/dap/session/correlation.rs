//! Which hits belong to one request: those whose captured values hold the same key.
//!
//! The person says in the attach configuration where a key is found (`"correlate": ["traceID", "req.ID"]`): expressions
//! over the captured values, of which the first that has a value counts. Nothing is guessed: a hit without any has no
//! key, and two hits belong together only where their keys are equal.

use super::super::envelope::Failure;
use super::super::types::OutputEventCategory;
use super::motion::{Reason, not_stopped};
use super::state::{Asked, State, Turn};
use crate::timeline::Origin;
use crate::timeline::values::HitValues;
use riptrace_protocol::expression::Expr;
use riptrace_protocol::stream::OrderedHit;
use riptrace_protocol::value::{Scalar, Status};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The key of a hit, by the first expression that has one.
pub(super) fn key(expressions: &[Expr], values: &HitValues) -> Option<String> {
    expressions.iter().find_map(|expression| {
        let value = values.evaluate(expression).ok().filter(|value| value.status == Status::Exact)?;
        match value.scalar? {
            Scalar::Int(number) => Some(number.to_string()),
            Scalar::Text(bytes) if !bytes.is_empty() => Some(String::from_utf8_lossy(&bytes).into_owned()),
            _ => None,
        }
    })
}

/// A key as the timeline keeps it; never 0, which stands for none.
pub(super) fn hash(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish().max(1)
}

impl State {
    /// The key of a hit, as the timeline keeps it.
    pub(super) fn correlation_hash(&self, hit: &OrderedHit) -> u64 {
        self.correlation_key(hit).map_or(0, |key| hash(&key))
    }

    /// The key of a hit.
    pub(super) fn correlation_key(&self, hit: &OrderedHit) -> Option<String> {
        let expressions = &self.attachment.config.correlate;
        if expressions.is_empty() {
            return None;
        }
        key(expressions, &HitValues::decode(hit, &self.dictionaries))
    }

    /// `stepIn` and `stepOut`: the next hit of the same request on another process, or the one it came from.
    pub(super) fn step_request(&mut self, turn: &mut Turn<'_>, asked: Asked, forward: bool) {
        let Some(current) = self.paused_hit().cloned() else { return turn.answer(asked, Err(not_stopped())) };
        if self.attachment.config.correlate.is_empty() {
            return turn.answer(asked, Err(needs_correlation()));
        }
        let Some(key) = self.correlation_key(&current) else {
            let why = format!(
                "Hit {} holds none of the values that \"correlate\" names, so RipTrace does not know which request it \
                 belongs to. Capture one of them there, or use Step Over for the next hit of this goroutine.",
                current.seq
            );
            return turn.answer(asked, Err(Failure::shown(why)));
        };
        turn.answer(asked, Ok(None));
        let (hash, here) = (hash(&key), Origin::of(&current));
        let others = self.timeline.mark_origins(|origin| origin.process_id() != here.process_id());
        let is_other = |hit: &crate::timeline::Glance<'_>| hit.correlation() == hash && hit.is_from(&others);
        let mut from = current.seq;
        // Equal hashes are not yet equal keys.
        let found: Option<Arc<OrderedHit>> = loop {
            let next =
                if forward { self.timeline.next(from, is_other) } else { self.timeline.previous(from, is_other) };
            match next {
                Some(hit) if self.correlation_key(&hit).as_deref() != Some(key.as_str()) => from = hit.seq,
                found => break found,
            }
        };
        match found {
            Some(hit) => self.open_hit(turn, hit, Reason::Step),
            None => {
                let text = if forward {
                    format!("RipTrace: request {key} has no later hit on another process yet.")
                } else {
                    format!("RipTrace: request {key} has no earlier hit on another process: it came from outside.")
                };
                turn.note(OutputEventCategory::Console, text);
                self.open_hit(turn, current, Reason::Step);
            }
        }
    }
}

/// The answer to steps that follow a request from process to process where nothing tells requests apart.
fn needs_correlation() -> Failure {
    Failure::shown(
        "Stepping into and out of a call follows a request from process to process, for which RipTrace has no correlation \
         key: name values that tell requests apart in the attach configuration, e.g. \"correlate\": [\"traceID\", \
         \"req.ID\"]. Or use Step Over for the next hit of this goroutine, Continue for the next hit of any.",
    )
}
