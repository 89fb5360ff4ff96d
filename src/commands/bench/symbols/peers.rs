//! The same first breakpoint with gdb and Delve, where they are found.

use super::first::memory;
use super::program::Program;
use crate::commands::bench::figure::{Bound, Figure, Report, median};
use crate::commands::bench::peers::on_path;
use crate::commands::bench::target::failed;
use crate::failure::Failure;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Rounds of a peer.
const ROUNDS: usize = 3;
/// How long a debugger may take.
const LIMIT: Duration = Duration::from_secs(120);
/// How often its memory is looked at: its highest mark stays while it lives.
const POLL: Duration = Duration::from_millis(2);

/// Ends its child.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn measure(program: &Program, own_ms: f64, report: &mut Report) -> Result<(), Failure> {
    let spot = format!("{}:{}", program.file, program.line);
    let gdb = |pid: u32| {
        let mut command = Command::new("gdb");
        command.args(["-nx", "-q", "-batch", "-p", &pid.to_string(), "-ex", &format!("break {spot}"), "-ex", "detach"]);
        Ok(command)
    };
    debugger("gdb", program, own_ms, gdb, report)?;
    let mut script = tempfile::NamedTempFile::new().map_err(failed("a script for dlv"))?;
    writeln!(script, "break {spot}\nexit").map_err(failed("a script for dlv"))?;
    let delve = |pid: u32| {
        let mut command = Command::new("dlv");
        command.args(["attach", &pid.to_string(), "--allow-non-terminal-interactive=true", "--init"]);
        command.arg(script.path());
        Ok(command)
    };
    debugger("dlv", program, own_ms, delve, report)
}

/// From the start of a debugger to its end, with one breakpoint set in a running process; each in one of its own.
fn debugger(
    name: &'static str,
    program: &Program,
    own_ms: f64,
    command: impl Fn(u32) -> Result<Command, Failure>,
    report: &mut Report,
) -> Result<(), Failure> {
    let figure = format!("{name}-first-large");
    if on_path(name).is_none() {
        report.absent(&figure, format!("{name} is not on PATH"));
        return Ok(());
    }
    let (mut times, mut peaks) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let target = Command::new(&program.executable).stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        let target = Ended(target.map_err(failed("the generated program"))?);
        let from = Instant::now();
        let mut command = command(target.0.id())?;
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut peer = Ended(spawned.map_err(failed(name))?);
        let mut peak = 0;
        let status = loop {
            peak = peak.max(memory(peer.0.id(), "VmHWM:").unwrap_or(0));
            if let Some(status) = peer.0.try_wait().map_err(failed(name))? {
                break status;
            }
            if from.elapsed() > LIMIT {
                report.absent(&figure, format!("{name} took longer than {} s", LIMIT.as_secs()));
                return Ok(());
            }
            std::thread::sleep(POLL);
        };
        let took = from.elapsed();
        let mut said = String::new();
        if let Some(mut out) = peer.0.stdout.take() {
            // What is no text is no breakpoint.
            let _ = std::io::Read::read_to_string(&mut out, &mut said);
        }
        if !said.contains("Breakpoint 1") {
            report.absent(&figure, format!("{name} set no breakpoint ({status}): {}", said.trim()));
            return Ok(());
        }
        times.push(took.as_secs_f64() * 1000.0);
        peaks.push(peak as f64 / super::MB);
    }
    let ms = median(&times);
    report.add(Figure::new(&figure, ms, "ms", Bound::None).peer(name).note("from its start to its end"));
    report.add(Figure::new(format!("{figure}-memory"), median(&peaks), "MB", Bound::None).peer(name));
    report.add(Figure::new(format!("{figure}-ratio"), ms / own_ms, "times", Bound::None).peer(name));
    Ok(())
}
