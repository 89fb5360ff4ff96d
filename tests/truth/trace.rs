//! The corpus as a process, traced by the engine itself: no bus, no coordinator, no editor.

use crate::oracle::Marker;
use crate::support::{LATER, SOON, eventually, fixture::Fixture, process::Program, process::command};
use riptrace_agent::engine::analysis::{BinaryCode, Language};
use riptrace_agent::engine::{
    AttachOptions, Engine, Mechanisms, Probe, ProbeSite, ProcessRuntime, SITE_BYTES, SitePatch,
};
use riptrace_agent::plan;
use riptrace_agent::publish::sink::{CapturedHit, HitQueue, QueueLimits};
use riptrace_agent::symbols::{Build, ResolveError, Svma};
use riptrace_agent::target;
use riptrace_protocol::decode::{CodeNames, CodeWords, Decoder, GoroutineFacts};
use riptrace_protocol::hit::{Frame, RawHit};
use riptrace_protocol::ids::{Avma, LayoutId, ProcessKey, TracepointId};
use riptrace_protocol::layout::Layout;
use riptrace_protocol::limits::FIELDS_DEFAULT;
use riptrace_protocol::location::Location;
use riptrace_protocol::source::SourceFacts;
use riptrace_protocol::tracepoint::{CaptureLimits, Mode, Tracepoint};
use riptrace_protocol::value::Value;
use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

/// How much of one CPU the probes may take, in percent: no passage is to be sampled away.
const CPU_PERCENT: u32 = 10_000;

/// What was seen at the marked lines.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The values of each passage, by marker, in the order of time.
    pub(crate) passages: BTreeMap<String, Vec<Vec<Value>>>,
    /// What was told of the goroutine of each passage.
    pub(crate) goroutines: BTreeMap<String, Vec<Option<GoroutineFacts>>>,
    /// Markers that could not be traced, and why.
    pub(crate) refused: BTreeMap<String, Refused>,
    /// What each topic computed, while traced.
    pub(crate) sums: BTreeMap<String, i64>,
}

/// Why a marker cannot be traced.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The compiler has left no instruction of the line: that is said, and no other line is taken in its place.
    NoCode,
    /// For a reason that no line of the corpus should have.
    Odd(String),
}

/// Limits with room for all that the corpus has.
fn limits() -> CaptureLimits {
    CaptureLimits {
        // More than come; without one, labels are not read.
        rate_per_s: Some(1_000_000),
        count: None,
        string_bytes: 1024,
        elements: 128,
        depth: 4,
        fields: FIELDS_DEFAULT,
        bytes_per_hit: 48 * 1024,
    }
}

/// Runs a build of the corpus with a tracepoint at every marker.
#[track_caller]
pub(crate) fn run(fixture: &Fixture, markers: &[&Marker]) -> Seen {
    let mut program = Program::spawn("truth", command(&fixture.program));
    program.json_of("ready", SOON);
    let pid = program.pid() as u32;
    let exe = PathBuf::from(format!("/proc/{pid}/exe"));
    let build = Build::open(&exe).expect("the corpus is an executable");
    let bias = bias(&build, pid, &exe);
    let code = BinaryCode::open(&exe).expect("the corpus is an executable");
    let mut queue = HitQueue::new(QueueLimits::default());
    let key = ProcessKey { pid, start_time: target::start_time(pid).expect("its start time") };
    let runtime = ProcessRuntime { is_go: true, go: build.go_runtime(bias), is_gnu: false };
    let options = AttachOptions { mechanisms: Mechanisms::Inside, runtime, cpu_percent: CPU_PERCENT };
    let engine = Engine::attach(key, queue.sink(), options, Box::new(|_| ())).unwrap_or_else(|error| panic!("{error}"));

    let mut seen = Seen::default();
    let mut layouts: HashMap<LayoutId, Layout> = HashMap::new();
    for marker in markers {
        let armed = arm(&build, &code, bias, &engine, marker, &mut layouts);
        if let Err(why) = armed {
            seen.refused.insert(marker.marker.clone(), why);
        }
    }
    program.write_line("go");
    let done = program.json_of("done", LATER);
    seen.sums = serde_json::from_value(done["sums"].clone()).expect("sums");

    let mut wanted = 0;
    for marker in markers.iter().filter(|marker| !seen.refused.contains_key(&marker.marker)) {
        let counts = engine.disarm(&id(marker)).expect("it is armed");
        assert!(counts.dropped.is_empty(), "nothing may be dropped: {} {counts:?}", marker.marker);
        wanted += counts.hits as usize;
    }
    let mut hits: Vec<CapturedHit> = Vec::new();
    eventually("every passage is a hit that was taken", SOON, || {
        hits.extend(queue.drain());
        (hits.len() >= wanted).then_some(())
    });
    engine.detach();
    hits.sort_by_key(|hit| hit.time_ns);
    for hit in hits {
        let marker = hit.tracepoint.as_str().to_owned();
        let layout = &layouts[&hit.layout];
        let hit = raw(hit);
        let names = Names::of(&build, bias, layout, &hit);
        let decoder = Decoder::new(layout, &hit).with_names(&names);
        seen.passages.entry(marker.clone()).or_default().push(decoder.variables(None));
        seen.goroutines.entry(marker).or_default().push(decoder.goroutine());
    }
    program.write_line("end");
    program.wait_for_code(0, SOON);
    seen
}

/// Names for the addresses of code of one hit.
#[derive(Debug)]
struct Names(HashMap<Avma, Vec<Frame>>);

impl Names {
    fn of(build: &Build, bias: u64, layout: &Layout, hit: &RawHit) -> Names {
        let frames = |address: Avma| (address, build.frames(Svma::of_process(address, bias), false));
        Names(CodeWords::of(layout).addresses(hit).into_iter().map(frames).collect())
    }
}

impl CodeNames for Names {
    fn frames(&self, address: Avma) -> Option<&[Frame]> {
        self.0.get(&address).map(Vec::as_slice)
    }
}

fn id(marker: &Marker) -> TracepointId {
    TracepointId::new(&marker.marker).expect("a marker is a token")
}

fn arm(
    build: &Build,
    code: &BinaryCode,
    bias: u64,
    engine: &Engine,
    marker: &Marker,
    layouts: &mut HashMap<LayoutId, Layout>,
) -> Result<(), Refused> {
    let odd = |error: &dyn std::fmt::Display| Refused::Odd(error.to_string());
    // As with trimmed paths, whose files are `example.com/truth/NAME`.
    let location = Location::Line { file: format!("truth/{}", marker.file), line: marker.line };
    let tracepoint = Tracepoint {
        id: id(marker),
        location: location.clone(),
        selector: Default::default(),
        condition: None,
        hit_condition: None,
        log_message: None,
        captures: Vec::new(),
        mode: Mode::Hit,
        limits: limits(),
        source: vec![SourceFacts::of_go(&marker.source, marker.line)],
    };
    let mut sites = Vec::new();
    let found = build.resolve(&location).map_err(|error| match error {
        ResolveError::NoCode { .. } => Refused::NoCode,
        error => odd(&error),
    })?;
    for site in found {
        let plan = plan::compile(build, &site, &tracepoint, bias).map_err(|error| odd(&error))?;
        plan.layout.check().map_err(|error| odd(&error))?;
        let layout = plan.layout.id();
        sites.push(ProbeSite {
            address: site.address.in_process(bias),
            program: Arc::new(plan.program),
            layout,
            patch: patch(code, site.address.0),
        });
        layouts.insert(layout, plan.layout);
    }
    let probe = Probe { tracepoint: tracepoint.id, sites, rate_per_s: None };
    engine.arm(probe).map(|_| ()).map_err(|error| odd(&error))
}

fn patch(code: &BinaryCode, address: u64) -> Result<SitePatch, String> {
    let function = code.function_at(address).ok_or_else(|| format!("no function holds {address:#x}"))?;
    let analysis = code.analyse(&function).map_err(|error| error.to_string())?;
    let bytes = code.bytes_at(address);
    Ok(SitePatch {
        choice: analysis.site(address),
        original: bytes[..bytes.len().min(SITE_BYTES)].to_vec(),
        is_go: code.language(&function) == Language::Go,
    })
}

fn bias(build: &Build, pid: u32, exe: &std::path::Path) -> u64 {
    let inode = std::fs::metadata(exe).expect("an executable").ino();
    let mappings = target::mappings(pid).expect("its maps");
    let mut of_exe = mappings.iter().filter(|mapping| mapping.inode == inode);
    of_exe.find_map(|mapping| build.bias(Avma(mapping.lo), mapping.file_offset)).expect("it is mapped")
}

fn raw(hit: CapturedHit) -> RawHit {
    RawHit {
        number: 0,
        tracepoint: hit.tracepoint,
        process: hit.process,
        layout: hit.layout,
        time_ns: hit.time_ns,
        thread: hit.thread,
        goroutine: hit.captured.goroutine,
        roots: hit.captured.roots,
        root_states: hit.captured.root_states,
        chunks: hit.captured.chunks,
        stack: hit.captured.stack,
        stack_end: hit.captured.stack_end,
        duration_ns: None,
    }
}
