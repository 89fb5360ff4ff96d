//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use riptrace_dap_adapter::environment::BusTarget;
use riptrace_protocol::limits;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Distributed tracepoints for running services, driven from an ordinary editor.
#[derive(Debug, Parser)]
#[command(
    name = "riptrace",
    version,
    max_term_width = 110,
    after_help = "\
Start here:
  riptrace demo                            a small shop of Go services, traced in one command
  riptrace up                              this machine, nothing to set up; then, in another terminal:
  riptrace ps                              what can be traced
  riptrace trace cart/cart.go:42           each passage of that line, with its variables

Exit status: 0 done, 1 a check failed, 2 usage, 3 nothing matched, 4 the fleet could not be reached.
Log: set RIPTRACE_LOG (such as info, or riptrace_agent=debug); it goes to standard error."
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trace this machine: a NATS server, a coordinator and an agent in one process, until Ctrl-C
    Up(Up),
    /// Run the agent of a host
    Agent(Agent),
    /// Run the coordinator of a fleet
    Coordinator(Coordinator),
    /// Show the fleet: hosts, processes, builds, tracepoints and their state
    Ps(Ps),
    /// Trace lines or functions and print the hits in one order over the fleet
    Trace(Trace),
    /// Give the fleet the symbols of builds that run stripped
    Symbols(Symbols),
    /// Run the debug adapter (for editors)
    Dap(Dap),
    /// Run the language server (for editors)
    Lsp(Lsp),
    /// Build and trace a small shop of Go services through the debug adapter
    Demo(Demo),
    /// Measure what tracing costs, beside its bounds and beside other tools
    Bench(Bench),
    /// Say what this machine lacks for tracing, and how to mend it
    Doctor(Doctor),
}

/// Where the bus is.
#[derive(Debug, Clone, Args)]
pub struct Bus {
    /// NATS server; default: $NATS_URL, then riptrace.toml, then the `riptrace up` that is running
    #[arg(long, value_name = "URL")]
    pub nats: Option<String>,
    /// NATS credentials file
    #[arg(long, value_name = "FILE")]
    pub creds: Option<PathBuf>,
}

impl Bus {
    /// The bus that the flags mean, seen from the current folder.
    pub fn target(&self) -> BusTarget {
        let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        BusTarget { nats: self.nats.clone(), creds: self.creds.clone(), cwd }
    }
}

/// What an agent says of its host.
#[derive(Debug, Clone, Args)]
pub struct HostFlags {
    /// Name of this host in the fleet; default: its hostname
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Label of all processes of this host; may be given again
    #[arg(long = "label", value_name = "K=V", value_parser = key_value)]
    pub labels: Vec<(String, String)>,
    /// Only processes that have this in their environment belong to this host
    #[arg(long, value_name = "K=V", value_parser = key_value)]
    pub only_env: Option<(String, String)>,
    /// How passages are caught: inside the process where that is sound, or always by stopping the thread that hits
    #[arg(long, value_enum, default_value_t = MechanismFlag::Auto)]
    pub mechanism: MechanismFlag,
    /// How much of one CPU the tracepoints of one process may take, in percent; a tracepoint over it is thinned, then
    /// switched off
    #[arg(long, value_name = "PERCENT", default_value_t = riptrace_agent::CPU_PERCENT_DEFAULT,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub cpu_share: u32,
    /// Keep symbols between runs in this folder; default: the user's cache directory
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// How much is kept there, in MiB; 0 keeps nothing
    #[arg(long, value_name = "MIB", default_value_t = riptrace_agent::symbols::cache::CACHE_BYTES_DEFAULT >> 20)]
    pub cache_size: u64,
}

/// How passages are caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MechanismFlag {
    /// Inside the process: by jumps, in Go programs also by traps; by ptrace where nothing may be injected
    Auto,
    /// The same with traps in native programs as well: one that handles or blocks SIGTRAP or SIGILL itself is killed by them
    Inside,
    /// Inject nothing: a breakpoint stops the thread that hits
    Ptrace,
}

/// `riptrace up`
#[derive(Debug, Args)]
pub struct Up {
    /// Host flags.
    #[command(flatten)]
    pub host: HostFlags,
    /// Listen on this port of the loopback address; default: a free one
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Print {"type":"ready","nats":URL} once everything answers, and nothing else
    #[arg(long)]
    pub json: bool,
}

/// `riptrace agent`
#[derive(Debug, Args)]
pub struct Agent {
    /// Bus flags.
    #[command(flatten)]
    pub bus: Bus,
    /// Host flags.
    #[command(flatten)]
    pub host: HostFlags,
}

/// `riptrace coordinator`
#[derive(Debug, Args)]
pub struct Coordinator {
    /// Bus flags.
    #[command(flatten)]
    pub bus: Bus,
}

/// `riptrace ps`
#[derive(Debug, Args)]
pub struct Ps {
    /// Bus flags.
    #[command(flatten)]
    pub bus: Bus,
    /// Only processes that this selector means (host=web-*,service=cart,...)
    #[arg(long = "where", value_name = "SELECTOR", default_value = "")]
    pub selector: String,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// `riptrace trace`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  riptrace trace cart/cart.go:42
  riptrace trace cart/cart.go:42 --when 'qty > 3 && sku == \"tea\"' --log 'qty={qty} of {sku}' --count 10
  riptrace trace 'main.(*Cart).Add' --where service=cart,host=web-* --for 30s --json")]
pub struct Trace {
    /// FILE:LINE (any unambiguous path suffix), or a function: NAME traces its entry, NAME:return every return with the
    /// results, NAME:call both, and how long each call took
    #[arg(required = true, value_name = "LOCATION")]
    pub locations: Vec<String>,
    /// Bus flags.
    #[command(flatten)]
    pub bus: Bus,
    /// Which processes: host=web-*,service=cart,exe=*/cartd,module=example.com/shop,label.env=prod,pid=12
    #[arg(long = "where", value_name = "SELECTOR")]
    pub selectors: Vec<String>,
    /// Only passages for which this expression holds
    #[arg(long, value_name = "EXPR")]
    pub when: Option<String>,
    /// Text to print for each hit, with {expressions}
    #[arg(long, value_name = "TEXT")]
    pub log: Option<String>,
    /// Capture this expression besides the variables in scope; may be given again. Limits of its own come behind `with`:
    /// 'order.Lines with elements=500, string_bytes=64, depth=4, fields=8'
    #[arg(long, value_name = "EXPR")]
    pub capture: Vec<String>,
    /// What a passage leaves behind
    #[arg(long, value_enum, default_value_t = TraceMode::Hit)]
    pub mode: TraceMode,
    /// End after this many hits over the whole fleet
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after this time, such as 30s, 5m or 1h; default: Ctrl-C
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Hits per second and process, or `none`; default: riptrace.toml, then 1000
    #[arg(long, value_name = "N|none", value_parser = rate)]
    pub rate: Option<RateFlag>,
    /// How much of each value is captured.
    #[command(flatten)]
    pub limits: ValueLimits,
    /// Wait for a process to appear when none matches now
    #[arg(long)]
    pub wait: bool,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// How much of each value a hit captures. What a limit cuts off is said to be truncated, with the limit.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "How much of each value is captured")]
pub struct ValueLimits {
    /// Bytes of a string, 0 to 65536
    #[arg(long, value_name = "N", default_value_t = limits::STRING_BYTES_DEFAULT, value_parser = at_most(limits::HIT_BYTES_MAX))]
    pub string_bytes: u32,
    /// Elements of a slice, array, map or channel, 0 to 1000
    #[arg(long, value_name = "N", default_value_t = limits::ELEMENTS_DEFAULT, value_parser = at_most(limits::VALUE_CHILDREN_MAX))]
    pub elements: u32,
    /// Pointers followed below a variable, 0 to 24
    #[arg(long, value_name = "N", default_value_t = limits::DEPTH_DEFAULT, value_parser = at_most(limits::VALUE_DEPTH_MAX))]
    pub depth: u32,
    /// Fields of a struct, 0 to 1000
    #[arg(long, value_name = "N", default_value_t = limits::FIELDS_DEFAULT, value_parser = at_most(limits::VALUE_CHILDREN_MAX))]
    pub fields: u32,
    /// Bytes of a hit, all its values together, 0 to 65536
    #[arg(long, value_name = "N", default_value_t = limits::BYTES_PER_HIT_DEFAULT, value_parser = at_most(limits::HIT_BYTES_MAX))]
    pub bytes: u32,
}

/// A number from 0 to `most`, which fits 32 bits.
fn at_most(most: usize) -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(0..=most as i64)
}

/// What a passage leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TraceMode {
    /// A hit with variables and call stack
    Hit,
    /// A counter only
    Count,
}

/// A budget on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateFlag(pub Option<u32>);

/// `riptrace symbols`
#[derive(Debug, Args)]
pub struct Symbols {
    /// What to do.
    #[command(subcommand)]
    pub what: SymbolsWhat,
}

/// What to do with symbols.
#[derive(Debug, Subcommand)]
pub enum SymbolsWhat {
    /// Keep unstripped builds in the fleet's store: every process that runs the same code has full values from then on
    Push(SymbolsPush),
    /// List the builds that were pushed
    Ls(SymbolsLs),
}

/// `riptrace symbols push`
#[derive(Debug, Args)]
pub struct SymbolsPush {
    /// Builds as the linker made them, before they were stripped
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Bus flags.
    #[command(flatten)]
    pub bus: Bus,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// `riptrace symbols ls`
#[derive(Debug, Args)]
pub struct SymbolsLs {
    /// Bus flags.
    #[command(flatten)]
    pub bus: Bus,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// `riptrace dap`
#[derive(Debug, Args)]
pub struct Dap {
    /// Bus flags.
    #[command(flatten)]
    pub bus: Bus,
    /// Serve editors that connect to this address instead of the one on standard input
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Serve the editor on standard input: the default, spelt out as many editors do
    #[arg(long, conflicts_with = "listen")]
    pub stdio: bool,
}

/// `riptrace lsp`
#[derive(Debug, Args)]
pub struct Lsp {
    /// Bus flags.
    #[command(flatten)]
    pub bus: Bus,
    /// Serve the editor on standard input: the default, spelt out as many editors do
    #[arg(long)]
    pub stdio: bool,
}

/// `riptrace demo`
#[derive(Debug, Args)]
pub struct Demo {
    /// Keep every host on the loopback interface even where network namespaces can be made
    #[arg(long)]
    pub loopback: bool,
    /// Instead of the story, keep the shop and its fleet running under load until Ctrl-C, to try your own editor on
    #[arg(long)]
    pub stay: bool,
    /// With --stay: print {"type":"ready","nats":URL,"checkout":FOLDER} once everything answers
    #[arg(long, requires = "stay")]
    pub json: bool,
}

/// `riptrace bench`
#[derive(Debug, Args)]
pub struct Bench {
    /// What to measure.
    #[command(subcommand)]
    pub what: BenchWhat,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchWhat {
    /// What a passage through a tracepoint costs its program
    Probe(BenchProbe),
    /// How long it takes to set a tracepoint in a large program, and to read hits
    Symbols(BenchSymbols),
    /// The engine that `probe` measures, as a process of its own
    #[command(hide = true)]
    Engine,
}

/// `riptrace bench probe`
#[derive(Debug, Args)]
#[command(after_help = "\
A Go program of RipTrace's own is built and traced; each figure is a median of rounds with and without a probe, by turns:
  jump-64B-drained      ns that a passage adds at a jump site with a record of 64 bytes, an agent reading all the while
  jump-64B-unread       the same while the agent stands still (SIGSTOP)
  jump-256B-..          the same with a string of 64 bytes and seven words
  ..-2-threads          the same on two threads at once
  condition-false       ns that a passage adds whose condition does not hold
  trap-ratio            a trap site by an int3 with an empty handler, measured beside it
  uprobe-ratio          a kernel uprobe at the same address by jump-64B-drained (needs root, or CAP_PERFMON and more)
  gdb-dprintf, delve-trace   the same passage with gdb and dlv, when they are on PATH
  stopped-N-threads     ms for which a program of N threads stands still while one tracepoint is armed
  collections-ratio     garbage collections a second of an allocating, tight-looping program: traced by untraced
  agent-idle            % of a core that an agent takes with 100 armed and silent tracepoints
  traps-compile, traps-gofmt   % of the statements of the Go compiler and of gofmt that need a trap

Leave the machine alone meanwhile, and use a release build. The Go toolchain is provisioned into the cache.
Exit status: 0 every figure holds its bound, 1 one misses it.")]
pub struct BenchProbe {
    /// Print one JSON object a figure: {\"figure\":NAME,\"value\":52.1,\"unit\":\"ns\",\"at_most\":60}
    #[arg(long)]
    pub json: bool,
    /// About how long to measure what takes as long as it is given; more time, steadier medians
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Only agent-idle, which takes half a minute
    #[arg(long)]
    pub idle: bool,
}

/// `riptrace bench symbols`
#[derive(Debug, Args)]
#[command(after_help = "\
Large Go programs are generated and built once (some minutes); then a fresh agent is asked for one tracepoint by FILE:LINE:
  first-large           ms from the request until it is armed, in a program of 100 MB or more, nothing cached
  first-large-memory    MB by which the agent's memory grew at its peak meanwhile
  cached-large          ms of the same by another agent that finds the symbols in the cache
  first-20MB            ms of the same in a program of 20 MB, nothing cached
  decode                hits a second that one core decodes for display, each with five locals
  gdb-.., delve-..      the same first breakpoint and the memory it took with gdb and dlv, when they are on PATH

Leave the machine alone meanwhile, and use a release build. The Go toolchain is provisioned into the cache.
Exit status: 0 every figure holds its bound, 1 one misses it.")]
pub struct BenchSymbols {
    /// Print one JSON object a figure: {\"figure\":NAME,\"value\":180.3,\"unit\":\"ms\",\"at_most\":250}
    #[arg(long)]
    pub json: bool,
    /// How often each is measured; the median counts
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
}

/// `riptrace doctor`
#[derive(Debug, Args)]
pub struct Doctor {
    /// Bus flags.
    #[command(flatten)]
    pub bus: Bus,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

fn rate(text: &str) -> Result<RateFlag, String> {
    match text {
        "none" => Ok(RateFlag(None)),
        _ => match text.parse() {
            Ok(n) if n > 0 => Ok(RateFlag(Some(n))),
            _ => Err("write a number from 1, or none".to_owned()),
        },
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number with ms, s, m or h, such as 30s".to_owned();
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" | "" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).ok().filter(|d| !d.is_zero()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "s", "3d", "-1s", "0s", "1e400s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
