//! `riptrace/timeline`, `timelinePage`, `timelineOverview` and `openHit`: the hits for a view of their own.
//!
//! A filter that has to decode values looks at a bounded number of hits per request and says where to go on: the
//! session never waits for a search.

use super::super::super::envelope::Failure;
use super::super::super::limits::{OVERVIEW_BUCKETS_MAX, SEARCH_HITS_MAX, TIMELINE_PAGE_MAX};
use super::super::correlation;
use super::super::motion::Reason;
use super::super::state::{Asked, State, Turn};
use crate::render::{json as rendered, text, time};
use crate::timeline::values::HitValues;
use crate::timeline::{Filter, FilterText, Glance, Prepared};
use riptrace_protocol::stream::OrderedHit;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Arguments of `riptrace/timelinePage`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in super::super) struct PageArguments {
    /// The oldest hit of the page has this number or a greater one.
    from: Option<u64>,
    /// The newest hit of the page has a smaller number; not with `from`.
    before: Option<u64>,
    /// Hits, at most.
    count: Option<usize>,
    filter: FilterText,
}

impl PageArguments {
    /// Whether the page begins at a hit and not in front of one.
    pub(in super::super) fn is_forward(&self) -> bool {
        self.from.is_some()
    }
}

/// Arguments of `riptrace/timelineOverview`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct OverviewArguments {
    /// Nanoseconds since the first hit.
    from_ns: Option<i64>,
    /// Nanoseconds since the first hit.
    to_ns: Option<i64>,
    buckets: Option<usize>,
    filter: FilterText,
}

impl State {
    /// Understands a filter of the editor.
    pub(in super::super) fn filter(&self, written: FilterText) -> Result<Filter, Failure> {
        let tracepoints = written.breakpoint.map(|id| self.breakpoints.tracepoints_of(id)).unwrap_or_default();
        Filter::new(written, tracepoints, correlation::hash)
            .map_err(|error| Failure::quiet(format!("the filter's \"when\": {error}")))
    }

    /// Whether a hit is meant; the values are decoded only where the filter asks for them.
    fn fits(&self, filter: &Prepared<'_>, hit: &Glance<'_>, looked_at: &mut usize) -> Option<Arc<OrderedHit>> {
        if !filter.fits_origin(hit) {
            return None;
        }
        let whole = hit.whole()?;
        if filter.needs_content() {
            *looked_at += 1;
            let values = HitValues::decode(&whole, &self.dictionaries);
            return filter.fits_content(&whole, &self.dictionaries, &values).then_some(whole);
        }
        Some(whole)
    }

    /// `riptrace/timelinePage`: hits that are not kept any more are read back first.
    pub(super) fn page_asked(&mut self, turn: &mut Turn<'_>, asked: Asked, arguments: PageArguments) {
        let first = arguments.from.or_else(|| arguments.before.map(|before| before.saturating_sub(1)));
        let arguments = Box::new(arguments);
        let waits = match first.filter(|&seq| seq > 0) {
            Some(seq) => self.park_page(turn, asked, arguments, seq),
            None => Err((asked, arguments)),
        };
        if let Err((asked, arguments)) = waits {
            let outcome = self.page(*arguments);
            turn.answer_raw(asked, outcome.map(Some));
        }
    }

    pub(in super::super) fn page(&mut self, arguments: PageArguments) -> Result<Value, Failure> {
        if arguments.from.is_some() && arguments.before.is_some() {
            return Err(Failure::quiet("give \"from\" or \"before\", not both"));
        }
        let filter = self.filter(arguments.filter)?;
        // A page is of the timeline, or of the window of older hits; the next one goes on in the other.
        let first = arguments.from.or(arguments.before.map(|before| before.saturating_sub(1)));
        let is_past = first.is_some_and(|seq| self.past.window.glance(seq).is_some())
            && first.is_some_and(|seq| self.timeline.glance(seq).is_none());
        let timeline = if is_past { &self.past.window } else { &self.timeline };
        let filter = filter.prepare(timeline);
        let count = arguments.count.unwrap_or(TIMELINE_PAGE_MAX).clamp(1, TIMELINE_PAGE_MAX);
        let forward = arguments.from.is_some();
        let mut looked_at = 0;
        let mut found = Vec::new();
        // Where a search that was cut goes on.
        let mut cut = None;
        if let Some(from) = arguments.from {
            for hit in timeline.from(from) {
                if found.len() == count || looked_at == SEARCH_HITS_MAX {
                    cut = Some(hit.seq());
                    break;
                }
                found.extend(self.fits(&filter, &hit, &mut looked_at));
            }
        } else {
            let before = arguments.before.unwrap_or(u64::MAX);
            for hit in timeline.before(before) {
                if found.len() == count || looked_at == SEARCH_HITS_MAX {
                    cut = Some(hit.seq() + 1);
                    break;
                }
                found.extend(self.fits(&filter, &hit, &mut looked_at));
            }
            found.reverse();
        }
        if cut.is_none() {
            cut = if forward {
                timeline.newest_seq().filter(|_| is_past).map(|last| last + 1)
            } else {
                timeline.oldest().filter(|&oldest| self.is_readable(oldest.saturating_sub(1)))
            };
        }
        let hits: Vec<Value> = found.iter().map(|hit| self.page_hit(hit)).collect();
        let (arrived, dropped) = self.statistics.counts();
        Ok(json!({
            "hits": hits,
            "next": if forward { json!(cut) } else { Value::Null },
            "previous": if forward { Value::Null } else { json!(cut) },
            "origin": self.statistics.origin_ns().map(time::rfc3339),
            "oldest": self.timeline.oldest(),
            "newest": self.timeline.newest_seq(),
            "open": self.paused_hit().map(|hit| hit.seq),
            "kept": self.timeline.len(),
            "arrived": arrived,
            "evicted": self.timeline.evicted(),
            "dropped": dropped,
        }))
    }

    /// A hit as a row of a page: no values but what its text says.
    fn page_hit(&mut self, hit: &OrderedHit) -> Value {
        let values = self.values_of(hit);
        let label = text::message(hit, &self.dictionaries, &values);
        let function = self.dictionaries.place(hit).map(|frame| frame.function);
        let place = self.place_of(hit);
        let origin_ns = self.statistics.origin_ns().unwrap_or(hit.time_ns);
        json!({
            "seq": hit.seq,
            "time": time::rfc3339(hit.time_ns),
            "at_ns": hit.time_ns.saturating_sub(origin_ns),
            "uncertainty_ns": hit.uncertainty_ns,
            "host": hit.host,
            "service": hit.service,
            "pid": hit.raw.process.pid,
            "thread": hit.raw.thread,
            "goroutine": hit.raw.goroutine,
            "correlation": self.correlation_key(hit),
            "function": function,
            "file": place.as_ref().and_then(|(source, _)| source.path.as_ref()),
            "line": place.as_ref().map(|(_, line)| self.client.line_out(*line)),
            "label": label,
            "tracepoint": hit.raw.tracepoint,
            "breakpoint": self.breakpoints.of(&hit.raw.tracepoint),
            "log": self.breakpoints.is_log(&hit.raw.tracepoint),
            "moment": self.dictionaries.layout(&hit.raw.layout).map(|layout| layout.moment),
            "duration_ns": hit.raw.duration_ns,
            "undetermined_with": hit.undetermined_with,
            "late": hit.late,
        })
    }

    /// How many hits each service has in each piece of time: what a view shows that cannot draw every hit.
    pub(super) fn overview(&mut self, arguments: OverviewArguments) -> Result<Value, Failure> {
        let filter = self.filter(arguments.filter)?;
        let filter = filter.prepare(&self.timeline);
        if filter.needs_content() {
            return Err(Failure::quiet(
                "an overview is by origin only: \"text\" and \"when\" are for 'riptrace/timelinePage'",
            ));
        }
        let buckets = arguments.buckets.unwrap_or(200).clamp(1, OVERVIEW_BUCKETS_MAX);
        let Some(origin_ns) = self.statistics.origin_ns() else {
            return Ok(json!({"origin": null, "from_ns": 0, "to_ns": 0, "buckets": buckets, "services": []}));
        };
        let span = self.timeline.span_ns();
        let from_ns = arguments.from_ns.or_else(|| Some(span?.0.saturating_sub(origin_ns))).unwrap_or(0);
        let to_ns = arguments.to_ns.or_else(|| Some(span?.1.saturating_sub(origin_ns).saturating_add(1))).unwrap_or(1);
        if to_ns <= from_ns {
            return Err(Failure::quiet("\"to_ns\" must be greater than \"from_ns\""));
        }
        // In 128 bits: the ends may be anywhere.
        let width = i128::from(to_ns) - i128::from(from_ns);
        let mut lanes: BTreeMap<&str, Lane> = BTreeMap::new();
        for hit in self.timeline.from(0) {
            let at = hit.time_ns().saturating_sub(origin_ns);
            if at < from_ns || at >= to_ns || !filter.fits_origin(&hit) {
                continue;
            }
            let Some(origin) = hit.origin() else { continue };
            let bucket = ((i128::from(at) - i128::from(from_ns)) * buckets as i128 / width) as usize;
            match lanes.get_mut(origin.service.as_str()) {
                Some(lane) => lane.add(bucket, &hit),
                None => lanes.entry(&origin.service).or_insert_with(|| Lane::new(buckets)).add(bucket, &hit),
            }
        }
        let services: Vec<Value> = lanes
            .into_iter()
            .map(|(service, lane)| {
                json!({
                    "service": service, "hits": lane.hits, "counts": lane.counts, "first": lane.first,
                    "uncertainty_ns": lane.uncertainty_ns,
                })
            })
            .collect();
        Ok(json!({
            "origin": time::rfc3339(origin_ns), "from_ns": from_ns, "to_ns": to_ns, "buckets": buckets,
            "services": services,
        }))
    }

    /// A page of whole hits: `from` (a `seq`; absent: the newest page) and `count`.
    pub(super) fn whole_hits(&self, arguments: &Value) -> Result<Value, Failure> {
        let number = |key: &str| match &arguments[key] {
            Value::Null => Ok(None),
            value => {
                value.as_u64().map(Some).ok_or_else(|| Failure::quiet(format!("\"{key}\" must be a whole number")))
            }
        };
        let count = number("count")?.map_or(TIMELINE_PAGE_MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
        let count = count.min(TIMELINE_PAGE_MAX);
        let newest = self.timeline.newest_seq().unwrap_or(0);
        let from = number("from")?.unwrap_or_else(|| (newest + 1).saturating_sub(count as u64));
        let hits = self.timeline.from(from).take(count).filter_map(|hit| hit.whole());
        let hits: Vec<Value> = hits.map(|hit| rendered::hit(&hit, &self.dictionaries)).collect();
        let (arrived, dropped) = self.statistics.counts();
        Ok(json!({
            "hits": hits,
            "oldest": self.timeline.oldest(),
            "newest": (newest > 0).then_some(newest),
            "open": self.paused_hit().map(|hit| hit.seq),
            "arrived": arrived,
            "evicted": self.timeline.evicted(),
            "dropped": dropped,
        }))
    }

    /// Opens a hit by its number, or the first at or after a time.
    pub(super) fn open_asked(&mut self, turn: &mut Turn<'_>, asked: Asked, arguments: &Value) {
        let hit = match (arguments["seq"].as_u64(), arguments["time"].as_str()) {
            (Some(seq), _) => return self.open_number(turn, asked, seq, Reason::Pause),
            (None, Some(time)) => self.hit_named(time),
            (None, None) => Err(Failure::quiet("\"seq\" must be the number of a hit, or \"time\" a time")),
        };
        match hit {
            Err(failure) => turn.answer(asked, Err(failure)),
            Ok(hit) => {
                turn.answer(asked, Ok(None));
                self.open_hit(turn, hit, Reason::Pause);
            }
        }
    }
}

/// The hits of one service, counted.
struct Lane {
    hits: u64,
    counts: Vec<u64>,
    /// Number of the first hit of each piece; `None` where there is none.
    first: Vec<Option<u64>>,
    uncertainty_ns: u64,
}

impl Lane {
    fn new(buckets: usize) -> Lane {
        Lane { hits: 0, counts: vec![0; buckets], first: vec![None; buckets], uncertainty_ns: 0 }
    }

    fn add(&mut self, bucket: usize, hit: &Glance<'_>) {
        self.hits += 1;
        self.uncertainty_ns = self.uncertainty_ns.max(hit.uncertainty_ns());
        self.counts[bucket] += 1;
        self.first[bucket].get_or_insert(hit.seq());
    }
}
