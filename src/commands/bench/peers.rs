//! The same passage with others: a kernel uprobe at the same address, Delve and gdb where they are found.

use super::cost::Bench;
use super::figure::{Bound, Figure, Report, median};
use super::target::{Program, Target, failed};
use crate::failure::Failure;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Rounds with and without a peer.
const ROUNDS: usize = 5;
/// Time of one measurement, in milliseconds.
const SLICE_MS: u64 = 150;
/// How long a debugger may take to attach.
const ATTACH_LIMIT: Duration = Duration::from_secs(60);
/// A call takes so much longer once a debugger's breakpoint is in it, at least, in nanoseconds: two stops and a line of
/// output. A target that is off its CPU for a moment does not.
const SLOWED_NS: f64 = 10_000.0;
/// Measurements of a debugger.
const TIMES: usize = 3;

pub(super) fn measure(
    bench: &mut Bench<'_>,
    program: &Program,
    jump_ns: f64,
    report: &mut Report,
) -> Result<(), Failure> {
    uprobe(bench, program, jump_ns, report)?;
    let (file, line) = program.spot("words")?;
    let spot = format!("{}:{line}", file.display());
    let gdb = |pid: u32| {
        let mut command = Command::new("gdb");
        let print = format!("dprintf {spot},\"%lu %lu\\n\", $rax, $rbx");
        command.args(["-nx", "-q", "-batch", "-p", &pid.to_string()]);
        for setting in ["set pagination off", "handle SIGURG nostop noprint pass", &print, "continue"] {
            command.args(["-ex", setting]);
        }
        command
    };
    debugger("gdb", "gdb-dprintf", gdb, program, jump_ns, report)?;
    let delve = |pid: u32| {
        let mut command = Command::new("dlv");
        command.args(["trace", "--pid", &pid.to_string(), "^main.words$"]);
        command
    };
    debugger("dlv", "delve-trace", delve, program, jump_ns, report)
}

/// A uprobe, counted by perf and not sampled: the least that one can cost.
fn uprobe(bench: &mut Bench<'_>, program: &Program, jump_ns: f64, report: &mut Report) -> Result<(), Failure> {
    let (offset, target) = bench.place_of_words()?;
    let path = program.executable.display().to_string();
    let command = format!("calls words 1 {SLICE_MS}");
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(target.ask(&command)?.per_call());
        let mut probe = match Target::start(program, &["-uprobe", &path, &offset.to_string()]) {
            Ok(probe) => probe,
            Err(why) => {
                report.absent("uprobe", why.to_string());
                // The bound is on a ratio that cannot be told.
                report.add(Figure::new("uprobe-ratio", f64::NAN, "times", Bound::AtLeast(100.0)).note("no uprobe"));
                return Ok(());
            }
        };
        let answer = target.ask(&command)?;
        let counted = probe.ask("count")?.calls;
        if counted < answer.calls {
            return Err(Failure::Failed(format!("{} calls were made, and the uprobe counted {counted}", answer.calls)));
        }
        with.push(answer.per_call());
    }
    let added = median(&with) - median(&without);
    report.add(Figure::new("uprobe", added, "ns", Bound::None).peer("uprobe").note("counted by perf, no record"));
    report.add(
        Figure::new("uprobe-ratio", added / jump_ns, "times", Bound::AtLeast(100.0))
            .note("uprobe by jump-64B-drained, at the same address"),
    );
    Ok(())
}

/// Ends its child.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// A debugger that prints at each passage, to nowhere, in a target of its own (which rarely survives it).
fn debugger(
    name: &'static str,
    figure: &str,
    command: impl Fn(u32) -> Command,
    program: &Program,
    jump_ns: f64,
    report: &mut Report,
) -> Result<(), Failure> {
    if on_path(name).is_none() {
        report.absent(figure, format!("{name} is not on PATH"));
        return Ok(());
    }
    let mut target = Target::start(program, &[])?;
    let call = format!("calls words 1 {SLICE_MS}");
    let without = target.ask(&call)?.per_call();
    let spawned = command(target.pid()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _peer = Peer(spawned.map_err(failed(name))?);
    let deadline = Instant::now() + ATTACH_LIMIT;
    let mut slowed = Vec::new();
    loop {
        // One stride of calls is enough; each stride looks at the clock.
        let with = match target.ask(&call) {
            Ok(answer) => answer.per_call(),
            Err(why) => {
                report.absent(figure, format!("the target did not survive it: {why}"));
                return Ok(());
            }
        };
        if with > without + SLOWED_NS {
            slowed.push(with - without);
        }
        if slowed.len() == TIMES {
            let added = median(&slowed);
            report.add(Figure::new(figure, added, "ns", Bound::None).peer(name).note("means of strides"));
            let ratio = added / jump_ns;
            report.add(Figure::new(format!("{figure}-ratio"), ratio, "times", Bound::None).peer(name));
            return Ok(());
        }
        if Instant::now() >= deadline {
            report.absent(figure, format!("{name} did not attach within {} s", ATTACH_LIMIT.as_secs()));
            return Ok(());
        }
    }
}
