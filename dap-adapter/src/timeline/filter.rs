//! Which hits are meant: by where they come from, by what was captured, by what is said of them.
//!
//! A filter has a cheap part ([`Prepared::fits_origin`]), which needs no decoded value, and a dear one
//! ([`Prepared::fits_content`]). A term that is absent holds for every hit; all terms must hold.

use super::values::HitValues;
use super::{Dictionaries, Glance, Marks, Timeline};
use crate::render::text;
use riptrace_protocol::expression::{self, Expr, ParseError};
use riptrace_protocol::ids::TracepointId;
use riptrace_protocol::selector::glob;
use riptrace_protocol::stream::OrderedHit;
use riptrace_protocol::value::Scalar;
use serde::Deserialize;
use std::collections::BTreeSet;

/// A filter as it is written: `{"host": "web-*", "service": "cart", "goroutine": 34, "text": "tea", "when": "qty > 3"}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilterText {
    /// Name of the host; `*` and `?` are wildcards.
    pub host: Option<String>,
    /// Service of the process; `*` and `?` are wildcards.
    pub service: Option<String>,
    /// Process id.
    pub pid: Option<u32>,
    /// Thread id.
    pub thread: Option<u32>,
    /// Goroutine id.
    pub goroutine: Option<u64>,
    /// Id of a tracepoint.
    pub tracepoint: Option<String>,
    /// Id of a breakpoint of the editor.
    pub breakpoint: Option<i64>,
    /// Key of the request that it belongs to, as `correlate` finds it.
    pub correlation: Option<String>,
    /// Part of the hit's text or of its function's name, without regard to case.
    pub text: Option<String>,
    /// An expression over the captured values that must be true.
    pub when: Option<String>,
}

/// A filter that was understood.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    written: FilterText,
    tracepoints: Option<BTreeSet<TracepointId>>,
    /// As the timeline keeps it.
    correlation: Option<u64>,
    text: Option<String>,
    when: Option<Expr>,
}

impl Filter {
    /// Understands a filter. `tracepoints` are those of the breakpoint that it names, `key` is how the timeline keeps a
    /// correlation key.
    pub fn new(
        written: FilterText,
        tracepoints: impl IntoIterator<Item = TracepointId>,
        key: impl Fn(&str) -> u64,
    ) -> Result<Filter, ParseError> {
        let when = written.when.as_deref().filter(|when| !when.trim().is_empty());
        let when = when.map(expression::parse).transpose()?;
        let text = written.text.as_ref().filter(|text| !text.is_empty()).map(|text| text.to_lowercase());
        let tracepoints = written.breakpoint.map(|_| tracepoints.into_iter().collect());
        let correlation = written.correlation.as_deref().map(key);
        Ok(Filter { written, tracepoints, correlation, text, when })
    }

    /// Applies the filter to what a timeline holds now: names are compared once, not once per hit.
    pub fn prepare(&self, timeline: &Timeline) -> Prepared<'_> {
        let FilterText { host, service, pid, tracepoint, .. } = &self.written;
        let origins = timeline.mark_origins(|origin| {
            host.as_ref().is_none_or(|host| glob(host, origin.host.as_str()))
                && service.as_ref().is_none_or(|service| glob(service, &origin.service))
                && pid.is_none_or(|pid| origin.process.pid == pid)
        });
        let tracepoints = timeline.mark_tracepoints(|id| {
            tracepoint.as_ref().is_none_or(|tracepoint| id.as_str() == tracepoint)
                && self.tracepoints.as_ref().is_none_or(|tracepoints| tracepoints.contains(id))
        });
        Prepared { filter: self, origins, tracepoints }
    }
}

/// A filter for the hits that a timeline holds now.
#[derive(Debug)]
pub struct Prepared<'a> {
    filter: &'a Filter,
    origins: Marks,
    tracepoints: Marks,
}

impl Prepared<'_> {
    /// Whether [`Prepared::fits_content`] has to be asked.
    pub fn needs_content(&self) -> bool {
        self.filter.text.is_some() || self.filter.when.is_some()
    }

    /// Whether the hit's origin is meant.
    pub fn fits_origin(&self, hit: &Glance<'_>) -> bool {
        let FilterText { thread, goroutine, .. } = &self.filter.written;
        hit.is_from(&self.origins)
            && hit.is_of(&self.tracepoints)
            && thread.is_none_or(|thread| hit.thread() == thread)
            && goroutine.is_none_or(|goroutine| hit.goroutine() == Some(goroutine))
            && self.filter.correlation.is_none_or(|key| hit.correlation() == key)
    }

    /// Whether what was captured is meant. An expression that cannot be computed for a hit does not hold for it.
    pub fn fits_content(&self, hit: &OrderedHit, dictionaries: &Dictionaries, values: &HitValues) -> bool {
        let holds =
            |when: &Expr| matches!(values.evaluate(when), Ok(value) if value.scalar == Some(Scalar::Bool(true)));
        if !self.filter.when.as_ref().is_none_or(holds) {
            return false;
        }
        let Some(part) = &self.filter.text else { return true };
        let function = dictionaries.place(hit).map(|frame| frame.function).unwrap_or_default();
        function.to_lowercase().contains(part) || text::message(hit, dictionaries, values).to_lowercase().contains(part)
    }
}
