//! What an agent costs whose probes are silent.

use super::figure::{Bound, Figure, Report};
use super::target::{Program, failed};
use crate::commands::up::start_nats;
use crate::failure::Failure;
use nix::sys::time::TimeValLike;
use nix::time::ClockId;
use nix::unistd::Pid;
use riptrace_protocol::limits::BUSY_MS;
use serde_json::Value;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Name of the host, and what only its process has in its environment.
const HOST: &str = "bench";
const MARK: &str = "RIPTRACE_BENCH";
/// How long the fleet may take to arm everything.
const ARM_LIMIT: Duration = Duration::from_secs(60);

/// A whole fleet of one host: bus, coordinator, agent, and a session that wants a hundred tracepoints in the target.
pub(super) async fn measure(program: &Program, seconds: u64, report: &mut Report) -> Result<(), Failure> {
    let folder = tempfile::tempdir().map_err(failed("a folder for the message store"))?;
    let server = start_nats(folder.path(), None).await?;
    let url = server.url();
    let mark = format!("{MARK}={}", std::process::id());
    let own = std::env::current_exe().map_err(failed("this program's own path"))?;
    let riptrace = |arguments: &[&str]| {
        let mut command = Command::new(&own);
        command.args(arguments).env("NATS_URL", &url).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        command.stderr(Stdio::null());
        command
    };
    let _target = Command::new(&program.executable)
        .env(MARK, std::process::id().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed("the target"))?;
    let _coordinator = riptrace(&["coordinator"]).spawn().map_err(failed("riptrace coordinator"))?;
    let agent = riptrace(&["agent", "--host", HOST, "--only-env", &mark]).spawn().map_err(failed("riptrace agent"))?;
    let lines = program.silent();
    let mut arguments = vec!["trace", "--json", "--wait"];
    arguments.extend(lines.iter().map(String::as_str));
    let armed = tokio::time::timeout(ARM_LIMIT, async {
        loop {
            // The coordinator may not be there yet.
            let mut trace = riptrace(&arguments).spawn().map_err(failed("riptrace trace"))?;
            if let Some(mechanisms) = all_armed(&mut trace, lines.len()).await? {
                return Ok::<_, Failure>((trace, mechanisms));
            }
        }
    });
    let (_trace, mechanisms) =
        armed.await.map_err(|_| Failure::Failed(format!("{} tracepoints were not armed in time", lines.len())))??;
    let pid = agent.id().ok_or_else(|| Failure::Failed("the agent has ended".to_owned()))?;
    // What arming left to do is done; and an agent is busy for a while behind the last request.
    tokio::time::sleep(Duration::from_millis(BUSY_MS) + Duration::from_secs(2)).await;
    let (from, before) = (Instant::now(), cpu_ns(pid)?);
    tokio::time::sleep(Duration::from_secs(seconds.clamp(5, 30))).await;
    let spent = cpu_ns(pid)?.saturating_sub(before) as f64 / from.elapsed().as_nanos() as f64;
    let note = format!("of a core, with {} armed and silent tracepoints ({mechanisms})", lines.len());
    report.add(Figure::new("agent-idle", spent * 100.0, "%", Bound::AtMost(0.1)).note(note));
    Ok(())
}

/// Waits until a trace has armed so many tracepoints, and names their mechanisms; `None` when it ended before.
async fn all_armed(trace: &mut Child, wanted: usize) -> Result<Option<String>, Failure> {
    let out = trace.stdout.take().ok_or_else(|| Failure::Failed("no pipe from the trace".to_owned()))?;
    let mut lines = BufReader::new(out).lines();
    let mut mechanisms = std::collections::BTreeMap::<String, usize>::new();
    let mut armed = 0;
    while let Some(line) = lines.next_line().await.map_err(failed("the trace"))? {
        let status: Value = serde_json::from_str(&line).unwrap_or_default();
        match status["state"].as_str() {
            Some("armed") => {
                armed += 1;
                *mechanisms.entry(status["mechanism"].as_str().unwrap_or("?").to_owned()).or_default() += 1;
            }
            Some("refused" | "absent") => {
                return Err(Failure::Failed(format!("a silent line was not armed: {}", status["reason"])));
            }
            _ => {}
        }
        if armed == wanted {
            // The pipe stays open behind the lines: nothing else is written to it.
            trace.stdout = Some(lines.into_inner().into_inner());
            let names = mechanisms.iter().map(|(name, count)| format!("{count} {name}"));
            return Ok(Some(names.collect::<Vec<_>>().join(", ")));
        }
    }
    Ok(None)
}

/// Processor time of a process, of threads that have ended as well, in nanoseconds (clock_getcpuclockid(3)).
fn cpu_ns(pid: u32) -> Result<u64, Failure> {
    let unknown = |errno: nix::Error| Failure::Failed(format!("the agent's processor time: {errno}"));
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid.cast_signed())).map_err(unknown)?;
    let time = clock.now().map_err(unknown)?;
    Ok(u64::try_from(time.num_nanoseconds()).unwrap_or(0))
}
