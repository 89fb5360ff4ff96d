//! `riptrace trace`: hits of some locations over the whole fleet, printed in one order.

use crate::args::{self, TraceMode};
use crate::connect::connect;
use crate::environment::CommandEnvironment;
use crate::failure::Failure;
use crate::output;
use crate::settings::Settings;
use crate::shutdown;
use riptrace_dap_adapter::environment::Environment;
use riptrace_dap_adapter::fleet::{FleetClient, Session, SessionEvent, SessionHandle};
use riptrace_dap_adapter::render::{self, text::Style};
use riptrace_dap_adapter::timeline::Dictionaries;
use riptrace_protocol::coordinator_api::SessionState;
use riptrace_protocol::expression::{Capture, Expr, Template, parse};
use riptrace_protocol::fleet::{ProbeState, ProbeStatus, TracepointStatus};
use riptrace_protocol::ids::{ProcessId, TracepointId};
use riptrace_protocol::limits;
use riptrace_protocol::location::Location;
use riptrace_protocol::selector::Selector;
use riptrace_protocol::source::{SOURCE_BYTES_MAX, SourceFacts};
use riptrace_protocol::stream::StreamItem;
use riptrace_protocol::tracepoint::{CaptureLimits, Mode, Tracepoint};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long nothing may arrive at the end of a trace while captured hits are still on their way: the merge's patience
/// and a little.
const DRAIN: Duration = Duration::from_millis(limits::MERGE_WAIT_MS + 3_000);

/// How long a process that is meant may take to appear, without `--wait`.
const APPEAR: Duration = Duration::from_secs(3);

/// Runs until the count is reached, the time is over, or Ctrl-C.
pub(super) async fn run(args: args::Trace) -> Result<(), Failure> {
    let target = args.bus.target();
    let settings = Settings::find(&target.cwd)?;
    let tracepoints = tracepoints(&args, &settings)?;
    let shutdown = shutdown::on_signals().map_err(|e| Failure::Unreachable(format!("signals: {e}")))?;
    let bus = connect(&target, "riptrace trace").await?;
    let environment = CommandEnvironment { flags: target, part: "trace" };
    let client = FleetClient::new(bus);
    let Session { handle, mut events } =
        client.open_session(environment.new_session_id(), environment.viewer()).await?;
    let mut printer = Printer::new(&args, &tracepoints);

    let started = start(&client, &handle, tracepoints.clone(), &mut printer, args.wait).await;
    if let Err(failure) = started {
        // The session's lease would end it as well; saying so now takes the probes out now.
        let _ = handle.close().await;
        return Err(failure);
    }

    let deadline = async {
        match args.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(deadline);
    let ended = shutdown.ended();
    tokio::pin!(ended);
    while !printer.done() {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => printer.event(event),
                None => break,
            },
            () = &mut deadline => break,
            () = &mut ended => break,
        }
    }

    // The hits may have been faster than what is said of the probes that they come from.
    if let Ok(fleet) = client.fleet().await {
        let own = |status: &TracepointStatus| tracepoints.iter().any(|each| each.id == status.tracepoint);
        printer.answered(&fleet.tracepoints.into_iter().filter(own).collect::<Vec<_>>());
    }
    printer.say_answered();
    // What was captured and is still on its way belongs to the trace.
    for tracepoint in &tracepoints {
        if let Ok(last) = handle.remove(&tracepoint.id).await {
            printer.last_status(&last);
        }
    }
    let (captured, counted) = (printer.captured(), printer.counted());
    let mut patience = std::pin::pin!(tokio::time::sleep(DRAIN));
    while !printer.done() && (printer.seen() < captured || printer.told() < counted) {
        let before = printer.told();
        tokio::select! {
            event = events.next() => match event {
                Some(event) => printer.event(event),
                None => break,
            },
            () = &mut patience => {
                let missing = captured.saturating_sub(printer.seen());
                if missing > 0 {
                    output::note(&format!("riptrace trace: {missing} hits that were captured did not arrive"));
                } else {
                    let missing = counted.saturating_sub(printer.told());
                    output::note(&format!("riptrace trace: {missing} more passages were dropped than was told"));
                }
                break;
            }
        }
        if printer.told() > before {
            patience.set(tokio::time::sleep(DRAIN));
        }
    }
    let _ = handle.close().await;
    printer.summary();
    Ok(())
}

/// What the source says of a line, if its file is here.
fn source_facts(location: &Location) -> Vec<SourceFacts> {
    let Location::Line { file, line } = location else { return Vec::new() };
    let is_small = std::fs::metadata(file).is_ok_and(|it| it.is_file() && it.len() <= SOURCE_BYTES_MAX as u64);
    let text = if is_small && file.ends_with(".go") { std::fs::read_to_string(file).ok() } else { None };
    text.map(|text| SourceFacts::of_go(&text, *line)).into_iter().filter(|facts| !facts.is_empty()).collect()
}

/// One tracepoint per location.
fn tracepoints(args: &args::Trace, settings: &Settings) -> Result<Vec<Tracepoint>, Failure> {
    let usage = |what: &str, why: String| Failure::Usage(format!("{what}: {why}"));
    let selector = if args.selectors.is_empty() {
        settings.selector.clone().unwrap_or_default()
    } else {
        Selector::parse(&args.selectors.join(",")).map_err(|e| usage("--where", e.to_string()))?
    };
    let rate_per_s = match (args.rate, settings.checkout().rate_per_s) {
        (Some(flag), _) => flag.0,
        (None, Some(rate)) => rate,
        (None, None) => CaptureLimits::default().rate_per_s,
    };
    if let Some(text) = &args.log {
        Template::parse(text).map_err(|e| usage("--log", e.to_string()))?;
    }
    if let Some(text) = &args.when {
        parse(text).map_err(|e| usage("--when", e.to_string()))?;
    }
    for text in &args.capture {
        Capture::parse(text).map_err(|e| usage("--capture", e.to_string()))?;
    }
    let one = |(i, text): (usize, &String)| {
        let location = Location::parse(text).map_err(|e| usage(text, e.to_string()))?;
        Ok(Tracepoint {
            id: TracepointId::new(format!("trace-{i}-{:012x}", crate::environment::random() >> 16))
                .unwrap_or_else(|_| unreachable!("digits make a token")),
            source: source_facts(&location),
            location,
            selector: selector.clone(),
            condition: args.when.clone(),
            hit_condition: None,
            log_message: args.log.clone(),
            captures: args.capture.clone(),
            mode: match args.mode {
                TraceMode::Hit => Mode::Hit,
                TraceMode::Count => Mode::Count,
            },
            limits: CaptureLimits {
                rate_per_s,
                count: args.count,
                string_bytes: args.limits.string_bytes,
                elements: args.limits.elements,
                depth: args.limits.depth,
                fields: args.limits.fields,
                bytes_per_hit: args.limits.bytes,
            },
        })
    };
    args.locations.iter().enumerate().map(one).collect()
}

async fn start(
    client: &FleetClient,
    handle: &SessionHandle,
    tracepoints: Vec<Tracepoint>,
    printer: &mut Printer,
    wait: bool,
) -> Result<(), Failure> {
    let mut created = Vec::new();
    for tracepoint in tracepoints {
        // Said to the person by the session's events, which are in order; this answer overtakes some of them.
        created.push(handle.create(tracepoint).await?);
    }
    let taken = |probe: &ProbeStatus| matches!(probe.state, ProbeState::Armed | ProbeState::Pending);
    // An agent that has just started is still looking around.
    let patience = tokio::time::sleep(APPEAR);
    tokio::pin!(patience);
    while !wait && created.iter().all(|status| status.probes.is_empty()) && !patience.is_elapsed() {
        tokio::select! {
            () = &mut patience => {}
            () = tokio::time::sleep(APPEAR / 12) => {
                let now = client.fleet().await?.tracepoints;
                created = now.into_iter().filter(|s| created.iter().any(|c| c.tracepoint == s.tracepoint)).collect();
            }
        }
    }
    if wait || created.iter().any(|status| status.probes.iter().any(taken)) {
        printer.answered(&created);
        return Ok(());
    }
    if printer.json {
        created.iter().for_each(|status| printer.status(status));
    }
    let mut why: Vec<String> = created
        .iter()
        .flat_map(|status| &status.probes)
        .filter_map(|probe| {
            Some(format!("{} pid {}: {}", probe.process.host, probe.process.key.pid, probe.reason.as_ref()?))
        })
        .collect();
    why.dedup();
    if why.is_empty() {
        let fleet = client.fleet().await?;
        let processes: usize = fleet.hosts.iter().map(|view| view.profile.processes.len()).sum();
        why.push(format!(
            "no process is meant (the fleet has {} hosts and {processes} processes): see `riptrace ps`, or give --wait",
            fleet.hosts.len()
        ));
    }
    Err(Failure::NothingMatched(format!("nothing is traced\n  {}", why.join("\n  "))))
}

/// One tracepoint in one process.
type ProbeKey = (TracepointId, ProcessId);

/// Prints what a person or a program reads, and keeps the sums.
struct Printer {
    json: bool,
    count_mode: bool,
    count_max: Option<u64>,
    style: Style,
    dictionaries: Dictionaries,
    /// What was said of each probe last.
    said: BTreeMap<ProbeKey, (ProbeState, Option<String>)>,
    /// Probes that are or were armed, as the answers to requests have them, while no event has told more than that they
    /// are asked for.
    answered: BTreeMap<ProbeKey, ProbeStatus>,
    /// Probes that were told from `answered`: that they are asked for is old by then.
    overtaken: BTreeSet<ProbeKey>,
    /// Hits of each probe: before it was last set anew, and since.
    counts: BTreeMap<ProbeKey, (u64, u64)>,
    /// Passages that each probe has dropped, as its state has said last.
    drops: BTreeMap<ProbeKey, u64>,
    ended: BTreeMap<TracepointId, bool>,
    hits: u64,
    dropped: u64,
    /// Hits that were captured but dropped on the way here.
    lost: u64,
    reader_gone: bool,
}

impl Printer {
    fn new(args: &args::Trace, tracepoints: &[Tracepoint]) -> Printer {
        let template = args.log.as_deref().and_then(|text| Template::parse(text).ok());
        let captures: Vec<Expr> =
            args.capture.iter().filter_map(|text| Some(Capture::parse(text).ok()?.expr)).collect();
        let mut dictionaries = Dictionaries::default();
        for tracepoint in tracepoints {
            dictionaries.set_message(&tracepoint.id, template.clone());
            dictionaries.set_captures(&tracepoint.id, captures.clone());
        }
        Printer {
            json: args.json,
            count_mode: args.mode == TraceMode::Count,
            count_max: args.count,
            style: if output::colour() { Style::Ansi } else { Style::Plain },
            dictionaries,
            said: BTreeMap::new(),
            answered: BTreeMap::new(),
            overtaken: BTreeSet::new(),
            counts: BTreeMap::new(),
            drops: BTreeMap::new(),
            ended: tracepoints.iter().map(|tracepoint| (tracepoint.id.clone(), false)).collect(),
            hits: 0,
            dropped: 0,
            lost: 0,
            reader_gone: false,
        }
    }

    fn done(&self) -> bool {
        self.reader_gone
            || self.count_max.is_some_and(|max| self.hits >= max)
            || (self.ended.values().all(|&ended| ended) && self.count_max.is_none())
    }

    /// Hits that all probes have captured, as far as their states have said; a counter's passages leave none behind.
    fn captured(&self) -> u64 {
        if self.count_mode { 0 } else { self.counts.values().map(|(before, now)| before + now).sum() }
    }

    /// A process that became another program, or whose agent was restarted, counts from 0 again.
    fn count(&mut self, probe: &ProbeStatus) {
        let key = (probe.tracepoint.clone(), probe.process.clone());
        // Of one that counts anew the last number: none is waited for in vain.
        self.drops.insert(key.clone(), probe.dropped);
        let (before, now) = self.counts.entry(key).or_default();
        if probe.hits < *now {
            *before += *now;
        }
        *now = probe.hits;
    }

    fn seen(&self) -> u64 {
        self.hits + self.lost
    }

    /// Hits that came, and drops that were told.
    fn told(&self) -> u64 {
        self.hits + self.dropped
    }

    /// How many of both there are, as far as the states of the probes have said; a counter's drops are not waited for.
    fn counted(&self) -> u64 {
        if self.count_mode { 0 } else { self.captured() + self.drops.values().sum::<u64>() }
    }

    fn event(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Items(items) => {
                for item in items {
                    self.item(item);
                }
            }
            SessionEvent::State(SessionState { tracepoints, .. }) => {
                for status in &tracepoints {
                    self.status(status);
                }
            }
            SessionEvent::Disconnected { why } => output::note(&format!("riptrace trace: {why}; waiting for it")),
            SessionEvent::Reconnected { reopened } => output::note(if reopened {
                "riptrace trace: the coordinator is back and had forgotten this session; tracepoints are set again"
            } else {
                "riptrace trace: the coordinator is back"
            }),
        }
    }

    fn item(&mut self, item: StreamItem) {
        match item {
            StreamItem::Hit(hit) => {
                if self.done() {
                    return;
                }
                self.say_answered();
                self.hits += 1;
                if self.json {
                    let object = render::json::hit(&hit, &self.dictionaries);
                    self.print_json(&object);
                } else {
                    let text = render::text::hit(&hit, &self.dictionaries, self.style);
                    self.print(&text);
                }
            }
            StreamItem::Drop(drop) => {
                self.dropped += drop.count;
                use riptrace_protocol::hit::DropReason;
                if matches!(drop.reason, DropReason::Queue | DropReason::Bus | DropReason::Lost | DropReason::Session) {
                    self.lost += drop.count;
                }
                if self.json {
                    self.print_json(&render::json::drop(&drop));
                } else {
                    let text = render::text::drop(&drop, self.style);
                    self.print(&text);
                }
            }
            other => {
                if let Err(why) = self.dictionaries.learn(&other) {
                    output::note(&format!("riptrace trace: {why}; its hits are shown without values"));
                }
            }
        }
    }

    fn status(&mut self, status: &TracepointStatus) {
        if status.ended.is_some() {
            self.ended.insert(status.tracepoint.clone(), true);
        }
        for probe in &status.probes {
            self.count(probe);
            let key = (probe.tracepoint.clone(), probe.process.clone());
            if probe.state == ProbeState::Pending && self.overtaken.contains(&key) {
                continue;
            }
            if probe.state != ProbeState::Pending {
                self.answered.remove(&key);
                self.overtaken.remove(&key);
            }
            self.say(probe);
        }
    }

    fn say(&mut self, probe: &ProbeStatus) {
        let key = (probe.tracepoint.clone(), probe.process.clone());
        let now = (probe.state, probe.reason.clone());
        if self.said.get(&key) == Some(&now) {
            return;
        }
        let unsaid = self.said.get(&key).is_none_or(|(state, _)| *state == ProbeState::Pending);
        self.said.insert(key, now);
        if unsaid && probe.state == ProbeState::Off && !probe.sites.is_empty() {
            // It was armed and has ended since, as one does whose count is reached at once.
            self.print_status(&ProbeStatus { state: ProbeState::Armed, reason: None, ..probe.clone() });
        }
        self.print_status(probe);
    }

    fn print_status(&mut self, probe: &ProbeStatus) {
        if self.json {
            self.print_json(&render::json::status(probe));
        } else if !matches!(probe.state, ProbeState::Pending | ProbeState::Absent) {
            output::note(&render::text::status(probe, self.style));
        }
    }

    /// Keeps what the answers say of probes that are or were armed. Events tell the same in their order, but not in that
    /// of the hits: those come by another way, and may end the trace before it.
    fn answered(&mut self, created: &[TracepointStatus]) {
        let was_armed = |probe: &&ProbeStatus| matches!(probe.state, ProbeState::Armed | ProbeState::Off);
        for probe in created.iter().flat_map(|status| &status.probes).filter(was_armed) {
            self.answered.insert((probe.tracepoint.clone(), probe.process.clone()), probe.clone());
        }
    }

    /// Tells where it is armed what is still untold of it: in front of the first hit, and of the end.
    fn say_answered(&mut self) {
        for (key, probe) in std::mem::take(&mut self.answered) {
            self.say(&probe);
            self.overtaken.insert(key);
        }
    }

    /// The final state of a tracepoint; of a counter, what it has counted: passages whose condition held.
    fn last_status(&mut self, status: &TracepointStatus) {
        status.probes.iter().for_each(|probe| self.count(probe));
        if !self.count_mode {
            return;
        }
        for probe in status.probes.iter().filter(|probe| probe.state != ProbeState::Absent) {
            let key = (probe.tracepoint.clone(), probe.process.clone());
            let count = self.counts.get(&key).map_or(0, |(before, now)| before + now);
            let (host, pid) = (&probe.process.host, probe.process.key.pid);
            if self.json {
                self.print_json(&json!({
                    "type": "count", "tracepoint": probe.tracepoint, "host": host, "pid": pid,
                    "service": probe.service, "count": count, "final": !probe.unfinished,
                }));
            } else {
                // The agent had not read all of them when the coordinator stopped waiting for it.
                let least = if probe.unfinished { "at least " } else { "" };
                self.print(&format!("{}  {host} {}[{pid}]  {least}{count} passages", status.location, probe.service));
            }
        }
    }

    fn summary(&mut self) {
        if self.json {
            self.print_json(&render::json::summary(self.hits, self.dropped));
        } else {
            output::note(&format!("{} hits, {} dropped", self.hits, self.dropped));
        }
    }

    fn print(&mut self, text: &str) {
        self.reader_gone |= output::line(text).is_err();
    }

    fn print_json(&mut self, object: &serde_json::Value) {
        self.reader_gone |= output::json_line(object).is_err();
    }
}
