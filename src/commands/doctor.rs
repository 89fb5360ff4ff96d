//! `riptrace doctor`: what this machine lacks for tracing, and how to mend it.
//!
//! Each check looks at the real thing (it traces a child, asks the bus) rather than at a version number.

use crate::args;
use crate::connect::{connect, resolve};
use crate::failure::Failure;
use crate::output;
use crate::provision::{Cache, NatsVersion};
use riptrace_dap_adapter::environment::ConnectError;
use riptrace_dap_adapter::fleet::FleetClient;
use serde_json::json;
use std::fs;
use std::process::Stdio;

/// What a check found.
struct Finding {
    check: &'static str,
    state: State,
    detail: String,
    /// What to do; empty when nothing needs doing.
    mend: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    /// Something works less well or is needed for some commands only.
    Warn,
    /// Tracing cannot work.
    Fail,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "fail",
        }
    }
}

/// Prints what was found; fails when tracing cannot work.
pub(super) async fn run(args: args::Doctor) -> Result<(), Failure> {
    let mut findings =
        vec![architecture(), kernel(), ptrace_child(), ptrace_scope(), capability(), nats_server(), pip()];
    findings.extend(fleet(&args).await);
    for finding in &findings {
        let printed = if args.json {
            output::json_line(&json!({
                "type": "check", "check": finding.check, "state": finding.state.word(), "detail": finding.detail,
                "mend": finding.mend,
            }))
        } else {
            let mend = if finding.mend.is_empty() { String::new() } else { format!("\n      {}", finding.mend) };
            output::line(&format!("{:4}  {}: {}{mend}", finding.state.word(), finding.check, finding.detail))
        };
        if printed.is_err() {
            break;
        }
    }
    match findings.iter().filter(|finding| finding.state == State::Fail).count() {
        0 => Ok(()),
        n => Err(Failure::Failed(format!("{n} of {} checks failed; mend them as said above", findings.len()))),
    }
}

fn found(check: &'static str, state: State, detail: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding { check, state, detail: detail.into(), mend: mend.into() }
}

fn architecture() -> Finding {
    match std::env::consts::ARCH {
        "x86_64" => found("architecture", State::Ok, "x86_64", ""),
        other => found(
            "architecture",
            State::Fail,
            format!("{other} is not supported yet"),
            "run the agent on an x86_64 Linux host; editors and coordinators may be anywhere",
        ),
    }
}

fn kernel() -> Finding {
    match fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(release) => found("kernel", State::Ok, release.trim(), ""),
        Err(why) => found("kernel", State::Fail, format!("/proc: {why}"), "mount /proc: the agent reads it"),
    }
}

/// Attaches to a child the way the agent attaches to a target, and lets go.
fn ptrace_child() -> Finding {
    const CHECK: &str = "ptrace";
    let mend = "in a container, allow it with --cap-add SYS_PTRACE and a seccomp profile that permits ptrace";
    let spawned = std::process::Command::new("sleep").arg("5").stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(why) => return found(CHECK, State::Warn, format!("no child to try it on: {why}"), ""),
    };
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    let seized = nix::sys::ptrace::seize(pid, nix::sys::ptrace::Options::empty());
    let _ = child.kill();
    let _ = child.wait();
    match seized {
        Ok(()) => found(CHECK, State::Ok, "a child of this process can be traced", ""),
        Err(why) => found(CHECK, State::Fail, format!("a child of this process cannot be traced: {why}"), mend),
    }
}

fn ptrace_scope() -> Finding {
    const CHECK: &str = "ptrace scope";
    match fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").as_deref().map(str::trim) {
        Err(_) => found(CHECK, State::Ok, "not restricted (no Yama)", ""),
        Ok("0") => found(CHECK, State::Ok, "0: processes of the same user can be traced", ""),
        Ok("3") => found(CHECK, State::Fail, "3: nobody may trace", "set kernel.yama.ptrace_scope to 1 and reboot"),
        Ok(scope) if has_capability() => found(CHECK, State::Ok, format!("{scope}, and CAP_SYS_PTRACE is there"), ""),
        Ok(scope) => found(
            CHECK,
            State::Fail,
            format!("{scope}: only children can be traced without CAP_SYS_PTRACE"),
            "run the agent with CAP_SYS_PTRACE: sudo setcap cap_sys_ptrace+ep $(command -v riptrace)",
        ),
    }
}

/// Bit of CAP_SYS_PTRACE in a capability set, `linux/capability.h`.
const CAP_SYS_PTRACE: u32 = 19;

fn has_capability() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    bits & (1 << CAP_SYS_PTRACE) != 0
}

fn capability() -> Finding {
    if has_capability() {
        found("capability", State::Ok, "CAP_SYS_PTRACE: processes of any user can be traced", "")
    } else {
        found(
            "capability",
            State::Warn,
            "no CAP_SYS_PTRACE: only processes of this user can be traced",
            "to trace other users' services: sudo setcap cap_sys_ptrace+ep $(command -v riptrace), or run the agent as root",
        )
    }
}

fn nats_server() -> Finding {
    const CHECK: &str = "nats-server";
    let output = std::process::Command::new("nats-server").arg("--version").output();
    match output.ok().and_then(|out| NatsVersion::from_output(&String::from_utf8_lossy(&out.stdout))) {
        Some(version) if version >= NatsVersion::OLDEST => found(CHECK, State::Ok, format!("{version} on PATH"), ""),
        Some(version) => found(
            CHECK,
            State::Ok,
            format!("{version} on PATH is too old; `riptrace up` provisions its own into the cache"),
            "",
        ),
        None => match Cache::from_env() {
            Ok(cache) => found(
                CHECK,
                State::Ok,
                format!("not on PATH; `riptrace up` and `riptrace demo` provision one into {}", cache.root().display()),
                "",
            ),
            Err(why) => found(CHECK, State::Warn, why.to_string(), "install nats-server, or set RIPTRACE_CACHE"),
        },
    }
}

fn pip() -> Finding {
    let tried = std::process::Command::new("python3").args(["-m", "pip", "--version"]).stderr(Stdio::null()).output();
    match tried {
        Ok(out) if out.status.success() => found("pip", State::Ok, "python3 with pip, to provision tools", ""),
        _ => found(
            "pip",
            State::Warn,
            "python3 with pip is not there: nats-server and Go cannot be provisioned",
            "install python3 and pip, or put nats-server on PATH",
        ),
    }
}

async fn fleet(args: &args::Doctor) -> Vec<Finding> {
    const BUS: &str = "bus";
    let target = match resolve(&args.bus.target()) {
        Ok(target) => target,
        Err(ConnectError::Unknown) => {
            return vec![found(BUS, State::Warn, "none is known", "run `riptrace up`, or give --nats URL")];
        }
        Err(why) => return vec![found(BUS, State::Fail, why.to_string(), "")],
    };
    let bus = match connect(&target, "riptrace doctor").await {
        Ok(bus) => bus,
        Err(why) => return vec![found(BUS, State::Fail, why.to_string(), "")],
    };
    let info = bus.server_info();
    let mut findings = vec![if info.jetstream {
        found(BUS, State::Ok, format!("nats-server {} with JetStream", info.version), "")
    } else {
        found(
            BUS,
            State::Fail,
            "nats-server runs without JetStream",
            "start it with `jetstream {}` in its configuration",
        )
    }];
    findings.push(match FleetClient::new(bus).fleet().await {
        Ok(fleet) => {
            let alive = fleet.hosts.iter().filter(|view| view.alive).count();
            let state = if alive == 0 { State::Warn } else { State::Ok };
            let mend = if alive == 0 { "run `riptrace agent --nats URL` on each host" } else { "" };
            found("fleet", state, format!("a coordinator and {alive} hosts answer"), mend)
        }
        Err(why) => found("fleet", State::Fail, why.to_string(), ""),
    });
    findings
}
