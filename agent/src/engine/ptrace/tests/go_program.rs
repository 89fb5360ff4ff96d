//! A Go program that checks its own results in fifty goroutines, while garbage is collected, goroutines are preempted and
//! stacks grow.

use super::killed::{agent, is_patched};
use super::support::{Target, Tracing, captures_rdi, eventually, id, probe};
use crate::capture::program::Program;
use crate::engine::EngineEvent;
use crate::engine::memory::TargetMemory;
use crate::plan;
use crate::symbols::{Build, Site};
use crate::target;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use riptrace_protocol::ids::Avma;
use riptrace_protocol::limits::RATE_PER_S_DEFAULT;
use riptrace_protocol::location::Location;
use riptrace_protocol::selector::Selector;
use riptrace_protocol::tracepoint::{CaptureLimits, Mode, Tracepoint};
use riptrace_provision::{BuildFlags, Cache, GoVersion, go};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// The lines of the program that count their own passages.
pub(in crate::engine) const MARKERS: [&str; 9] =
    ["leaf", "loop", "locals", "recurse", "counted", "spawn", "nil", "panic", "thread"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/torture")
}

/// Built once, with the pinned toolchain of the user's cache.
fn torture() -> &'static Path {
    static BUILT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, program) = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("torture");
        let cache = Cache::from_env().unwrap_or_else(|error| panic!("{error}"));
        go(&cache, GoVersion::newest(), &mut |_| {})
            .and_then(|go| go.build(&source(), ".", &program, &BuildFlags::default()))
            .unwrap_or_else(|error| panic!("{error}"));
        (folder, program)
    });
    program
}

/// A process of the program, and what its debug information says.
pub(in crate::engine) struct Torture {
    pub(in crate::engine) target: Target,
    pub(in crate::engine) build: Build,
}

impl Torture {
    pub(in crate::engine) fn start(args: &[&str]) -> Torture {
        let target = Target::start(torture(), args);
        let build = Build::open(Path::new(&format!("/proc/{}/exe", target.pid()))).unwrap();
        Torture { target, build }
    }

    pub(in crate::engine) fn bias(&self) -> u64 {
        let exe = torture().canonicalize().unwrap();
        let maps = target::mappings(self.target.pid()).unwrap();
        let first = maps.iter().find(|mapping| Path::new(&mapping.path) == exe).unwrap();
        self.build.bias(Avma(first.lo), first.file_offset).unwrap()
    }

    pub(in crate::engine) fn sites(&self, marker: &str) -> Vec<Site> {
        let comment = format!("// BP {marker}");
        let found = fs::read_dir(source()).unwrap().find_map(|file| {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).ok()?;
            let line = text.lines().position(|line| line.ends_with(&comment))? + 1;
            Some(Location::Line { file: path.file_name()?.to_str()?.to_owned(), line: line as u32 })
        });
        self.build.resolve(&found.unwrap()).unwrap()
    }

    /// The addresses of a line, and all that a plan captures there.
    pub(in crate::engine) fn programs(&self, marker: &str) -> Vec<(Avma, Arc<Program>)> {
        let tracepoint = Tracepoint {
            id: id(marker),
            location: Location::Function {
                name: marker.to_owned(),
                at: riptrace_protocol::location::FunctionPoint::Entry,
            },
            selector: Selector::default(),
            condition: None,
            hit_condition: None,
            log_message: None,
            captures: Vec::new(),
            mode: Mode::Hit,
            limits: CaptureLimits { rate_per_s: Some(RATE_PER_S_DEFAULT), ..CaptureLimits::default() },
            source: Default::default(),
        };
        let bias = self.bias();
        let compiled = |site: Site| {
            let plan = plan::compile(&self.build, &site, &tracepoint, bias).unwrap();
            (site.address.in_process(bias), Arc::new(plan.program))
        };
        self.sites(marker).into_iter().map(compiled).collect()
    }

    fn arm(&self, tracing: &Tracing, marker: &str) {
        let mut armed = probe(marker, &[], &Arc::new(captures_rdi()));
        for (address, program) in self.programs(marker) {
            armed.sites.extend(probe(marker, &[address], &program).sites);
        }
        tracing.engine.arm(armed).unwrap();
    }

    pub(in crate::engine) fn ask(&mut self, command: &str) -> Value {
        self.target.send(command);
        self.answer()
    }

    pub(in crate::engine) fn answer(&self) -> Value {
        let line = self.target.line();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("the target says {line:?}"))
    }
}

#[test]
fn fifty_goroutines_pass_every_line_and_every_passage_is_counted() {
    let mut torture = Torture::start(&[]);
    let maps = torture.target.executable_maps();
    let mut tracing = Tracing::attach(&torture.target);
    MARKERS.iter().for_each(|marker| torture.arm(&tracing, marker));
    let said = torture.ask("run 2000");
    assert_eq!(said["type"], "run");
    for marker in MARKERS {
        let counts = tracing.counts(marker);
        assert_eq!(said["passages"][marker], counts.passages, "{marker}");
        assert_eq!(counts.hits + counts.dropped.values().sum::<u64>(), counts.passages, "{marker}: {counts:?}");
    }
    eprintln!("while traced the program seems to have stood still for {} ms at most", said["max_gap_ms"]);
    let hits = tracing.hits();
    assert!(hits.iter().all(|hit| hit.captured.goroutine.is_some()), "every hit of Go code has its goroutine");
    tracing.engine.detach();
    torture.target.assert_is_as_it_was(maps);
    assert_eq!(torture.ask("run 200")["type"], "run");
    torture.ask("exit");
    torture.target.exits_with(0);
}

#[test]
fn a_go_program_may_be_let_go_at_any_moment() {
    let torture = Torture::start(&["-forever", "-pause", "1ms"]);
    let maps = torture.target.executable_maps();
    for round in 0..50 {
        let tracing = Tracing::attach(&torture.target);
        MARKERS.iter().for_each(|marker| torture.arm(&tracing, marker));
        let marker = MARKERS[round % (MARKERS.len() - 1)];
        eventually("a passage", || (tracing.counts(marker).passages > 0).then_some(()));
    }
    torture.target.assert_is_as_it_was(maps);
    torture.target.signal(libc::SIGUSR1);
    assert_eq!(torture.answer()["type"], "stats");
    torture.target.signal(libc::SIGTERM);
    torture.answer();
    torture.target.exits_with(0);
}

#[test]
fn a_storm_of_preemptions_is_passed_on() {
    let mut torture = Torture::start(&[]);
    let tracing = Tracing::attach(&torture.target);
    MARKERS.iter().for_each(|marker| torture.arm(&tracing, marker));
    torture.target.send("run 1000");
    let said = loop {
        // SIGURG is what the runtime preempts goroutines with; it expects foreign ones at any time.
        torture.target.signal(libc::SIGURG);
        if let Some(line) = torture.target.said() {
            break serde_json::from_str::<Value>(&line).unwrap();
        }
    };
    for marker in MARKERS {
        assert_eq!(said["passages"][marker], tracing.counts(marker).passages, "{marker}");
    }
}

#[test]
fn children_and_successors_of_a_go_program_are_not_hurt() {
    let mut torture = Torture::start(&[]);
    let tracing = Tracing::attach(&torture.target);
    MARKERS.iter().for_each(|marker| torture.arm(&tracing, marker));
    for _ in 0..20 {
        assert_eq!(torture.ask("fork")["type"], "fork");
    }
    assert_eq!(torture.ask("run 100")["type"], "run");
    let said = torture.ask("exec");
    assert_eq!((&said["type"], said["generation"].as_u64()), (&Value::from("ready"), Some(1)));
    assert_eq!(tracing.event(), EngineEvent::Execed);
    assert_eq!(torture.ask("run 100")["type"], "run");
}

#[test]
fn a_go_program_survives_its_agent_and_mends_itself() {
    let torture = Torture::start(&["-forever", "-pause", "1ms"]);
    let bias = torture.bias();
    let sites: Vec<Avma> = ["leaf", "loop", "locals", "recurse", "counted", "spawn"]
        .iter()
        .flat_map(|marker| torture.sites(marker))
        .map(|site| site.address.in_process(bias))
        .collect();
    let memory = TargetMemory::open(torture.target.pid() as i32);
    for round in 0..30 {
        let agent = agent(&torture.target, &sites);
        eventually("all sites are patched", || {
            assert_eq!(torture.target.said(), None, "round {round}");
            sites.iter().all(|&at| is_patched(&memory, at)).then_some(())
        });
        for _ in 0..round * 200 {
            std::hint::black_box(is_patched(&memory, sites[0]));
        }
        kill(agent, Signal::SIGKILL).unwrap();
        waitpid(agent, None).unwrap();
        eventually("the sites are mended", || sites.iter().all(|&at| !is_patched(&memory, at)).then_some(()));
    }
    torture.target.assert_text_is_the_files();
    torture.target.signal(libc::SIGTERM);
    assert_eq!(torture.answer()["type"], "stats");
    torture.target.exits_with(0);
}
