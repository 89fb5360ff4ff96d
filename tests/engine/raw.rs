//! The engine without debug information: addresses, and what is in the registers there, followed as if it were pointers.
//!
//! For code of which no source line is known: shared libraries, and programs as a distribution ships them. What is in a
//! register is rarely a pointer, so captures fault all the time.

use riptrace_agent::capture::program::{
    Follow, FollowIndex, Goroutine, GoroutinePointer, Piece, Place, Program, Register, RootRead,
};
use riptrace_agent::engine::analysis::{BinaryCode, Function, Language};
use riptrace_agent::engine::{
    ArmError, ArmOutcome, AttachOptions, Counts, Engine, Mechanisms, Probe, ProbeSite, ProcessRuntime, SITE_BYTES,
    SitePatch,
};
use riptrace_agent::publish::sink::{HitQueue, QueueLimits};
use riptrace_agent::target;
use riptrace_protocol::ids::{Avma, LayoutId, ProcessKey, TracepointId};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often hits are taken out of the queue.
const TAKE_INTERVAL: Duration = Duration::from_millis(2);
/// Where the current `g` of a plain Go executable is (runtime/asm_amd64.s), and the goroutine's id in it: 1.27's place, which
/// may be another word in another Go.
const GOROUTINE: Goroutine = Goroutine { g: GoroutinePointer::ThreadLocal { offset: -8 }, goid_offset: 152 };
/// Registers that hold arguments in C, by their DWARF numbers: rdi, rsi, rdx, rcx, r8, r9; and rbx, rbp.
const REGISTERS: [u16; 8] = [5, 4, 1, 2, 8, 9, 3, 6];

/// A file that a process has in memory.
pub(crate) struct Image {
    pub(crate) code: BinaryCode,
    /// Address in the process less address in the file.
    pub(crate) bias: u64,
}

impl Image {
    /// What is mapped of a file in a process.
    #[track_caller]
    pub(crate) fn of(pid: i32, file: &Path) -> Image {
        let code = BinaryCode::open(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let path = file.canonicalize().expect("a path");
        let mappings = target::mappings(pid as u32).expect("its maps");
        let first = mappings.iter().find(|mapping| Path::new(&mapping.path) == path && mapping.file_offset == 0);
        let first = first.unwrap_or_else(|| panic!("{} is not mapped: {mappings:?}", path.display()));
        // The first segment of what can be moved begins at address 0, of what cannot where it is mapped.
        let is_moved = code.functions().next().is_none_or(|function| function.range.start < first.lo);
        Image { code, bias: if is_moved { first.lo } else { 0 } }
    }

    /// A site, as the engine wants it.
    fn site(&self, address: u64) -> ProbeSite {
        let is_go = self.code.function_at(address).is_some_and(|of| self.code.language(&of) == Language::Go);
        let patch = self.code.function_at(address).ok_or_else(|| "no function".to_owned()).and_then(|function| {
            let analysis = self.code.analyse(&function).map_err(|error| error.to_string())?;
            let bytes = self.code.bytes_at(address);
            Ok(SitePatch {
                choice: analysis.site(address),
                original: bytes[..bytes.len().min(SITE_BYTES)].to_vec(),
                is_go,
            })
        });
        ProbeSite {
            address: Avma(address.wrapping_add(self.bias)),
            program: Arc::new(Program { goroutine: is_go.then_some(GOROUTINE), ..registers() }),
            layout: LayoutId([7; 16]),
            patch,
        }
    }

    /// Functions, evenly chosen, at most `max`.
    pub(crate) fn functions(&self, max: usize) -> Vec<Function> {
        let all = self.code.functions();
        let step = all.len().div_ceil(max).max(1);
        all.step_by(step).collect()
    }
}

/// Copies registers, and 32 bytes behind each, and 32 behind each first word of these.
fn registers() -> Program {
    let root = |n: usize| RootRead::Read {
        offset: n as u32 * 8,
        pieces: vec![Piece { bytes: 8, place: Place::Register(Register(REGISTERS[n])) }],
        follow: FollowIndex(0),
        depth: 2,
    };
    Program {
        condition: None,
        hit_condition: None,
        count_only: false,
        roots: (0..REGISTERS.len()).map(root).collect(),
        root_bytes: REGISTERS.len() as u32 * 8,
        follow: vec![Follow::Pointer { bytes: 32, to: FollowIndex(0) }],
        goroutine: None,
        stack_frames_max: 8,
        return_address: None,
        stack_slice: None,
        bytes_per_hit: 2048,
    }
}

/// An engine of its own, and somebody who takes the hits away.
pub(crate) struct RawEngine {
    engine: Engine,
    taken: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    taker: Option<JoinHandle<()>>,
    next: u64,
}

impl RawEngine {
    #[track_caller]
    pub(crate) fn attach(pid: i32, runtime: ProcessRuntime) -> RawEngine {
        let mut queue = HitQueue::new(QueueLimits::default());
        let sink = queue.sink();
        let (taken, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (count, end) = (Arc::clone(&taken), Arc::clone(&stop));
        let taker = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                count.fetch_add(queue.discard() as u64, Ordering::Relaxed);
                std::thread::sleep(TAKE_INTERVAL);
            }
        });
        let start_time = target::start_time(pid as u32).expect("its start time");
        let key = ProcessKey { pid: pid as u32, start_time };
        let options = AttachOptions { mechanisms: Mechanisms::Auto, runtime, cpu_percent: 100 };
        let engine = Engine::attach(key, sink, options, Box::new(|_| ())).unwrap_or_else(|error| panic!("{error}"));
        RawEngine { engine, taken, stop, taker: Some(taker), next: 0 }
    }

    /// Arms one address of a file.
    pub(crate) fn arm(
        &mut self,
        image: &Image,
        address: u64,
        rate_per_s: Option<u32>,
    ) -> Result<(TracepointId, ArmOutcome), ArmError> {
        self.next += 1;
        let tracepoint = TracepointId::new(format!("raw{}", self.next)).expect("a token");
        let probe = Probe { tracepoint: tracepoint.clone(), sites: vec![image.site(address)], rate_per_s };
        self.engine.arm(probe).map(|outcome| (tracepoint, outcome))
    }

    #[track_caller]
    pub(crate) fn disarm(&self, tracepoint: &TracepointId) -> Counts {
        let counts = self.engine.disarm(tracepoint).expect("it is armed");
        assert_eq!(counts.hits + counts.dropped.values().sum::<u64>(), counts.passages, "{counts:?}");
        counts
    }

    /// Hits that were handed over so far.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for RawEngine {
    fn drop(&mut self) {
        self.engine.detach();
        self.stop.store(true, Ordering::Relaxed);
        if let Some(taker) = self.taker.take() {
            // A panic of it was printed.
            let _ = taker.join();
        }
    }
}

/// A path as a process of this mount namespace has it.
pub(crate) fn exe(pid: i32) -> PathBuf {
    std::fs::read_link(format!("/proc/{pid}/exe")).expect("its executable")
}
