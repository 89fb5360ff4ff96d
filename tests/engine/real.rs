//! Programs that nobody here wrote, under their own load, with many tracepoints: what they put out and how they end is
//! as without.
//!
//! CI has `gofmt`. With `RIPTRACE_REAL_PROGRAMS=1` there are more: the Go compiler at work on its own largest package,
//! `gofmt` over the whole of Go's sources, a NATS server under load.
//!
//! A program that would be over before anything is armed waits for its input: it is given a named pipe, into which the
//! rest of what it reads is written once its tracepoints are armed.

use crate::console::{Console, HOST};
use crate::raw::{Image, RawEngine};
use crate::support::{
    LATER, SOON, eventually,
    fixture::cache,
    process::{Program, command},
};
use async_nats::Client;
use futures::StreamExt;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use riptrace::provision::{self, BuildFlags, GoToolchain, GoVersion};
use riptrace_agent::engine::ProcessRuntime;
use riptrace_protocol::fleet::{Mechanism, ProbeState};
use riptrace_protocol::ids::ProcessKey;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// Whether the long ones run.
pub(crate) fn all() -> bool {
    env::var("RIPTRACE_REAL_PROGRAMS").is_ok_and(|value| value == "1")
}

pub(crate) fn go() -> GoToolchain {
    provision::go(&cache(), GoVersion::newest(), &mut |_| {}).unwrap_or_else(|error| panic!("{error}"))
}

/// The sources of Go's own programs and library.
fn go_sources() -> PathBuf {
    go().program().parent().and_then(Path::parent).expect("a toolchain has a folder").join("src")
}

/// A program of the Go project, built as it is but with its debug information, which is left out where it is shipped.
#[track_caller]
pub(crate) fn built(name: &str) -> PathBuf {
    let folder = cache().root().join("fixtures").join(format!("go-{}", GoVersion::newest()));
    fs::create_dir_all(&folder).expect("a folder");
    let (program, half) = (folder.join(name), folder.join(format!(".{name}.{}", std::process::id())));
    if !program.is_file() {
        let done = go().build(&go_sources().join("cmd"), &format!("./{name}"), &half, &BuildFlags::default());
        done.unwrap_or_else(|error| panic!("{error}"));
        fs::rename(&half, &program).expect("moved to its place");
    }
    program
}

/// What a traced run saw.
#[derive(Debug, Default)]
pub(crate) struct Traced {
    pub(crate) armed: u64,
    pub(crate) refused: BTreeMap<String, u64>,
    pub(crate) mechanisms: BTreeMap<Mechanism, u64>,
    pub(crate) passages: u64,
    pub(crate) hits: u64,
    pub(crate) dropped: u64,
}

/// Arms tracepoints at functions; what cannot be armed says why, and is removed: a host has room for so many.
#[track_caller]
pub(crate) fn arm_functions(
    console: &mut Console,
    process: ProcessKey,
    names: &[String],
    seen: &mut Traced,
) -> Vec<(String, Value)> {
    let mut armed = Vec::new();
    for (n, name) in names.iter().enumerate() {
        let what = match n % 3 {
            0 => json!({}),
            1 => json!({"mode": "count", "limits": {"rate_per_s": null}}),
            _ => json!({"limits": {"rate_per_s": 10_000}}),
        };
        let (id, probe) = console.try_arm(&json!({"kind": "function", "name": name}), &what, process);
        if probe.state == ProbeState::Armed {
            seen.armed += 1;
            *seen.mechanisms.entry(probe.mechanism.expect("armed")).or_default() += 1;
            armed.push((id, what));
        } else {
            let reason = probe.reason.unwrap_or_default();
            *seen.refused.entry(reason.chars().take(60).collect()).or_default() += 1;
            console.remove(&id);
        }
    }
    armed
}

/// Removes them; each passage is a hit or a drop.
#[track_caller]
pub(crate) fn remove(console: &mut Console, armed: &[(String, Value)], seen: &mut Traced) {
    for (id, what) in armed {
        let probe = console.remove(id);
        let tally = console.settled(id, what, &probe);
        seen.passages += probe.passages;
        seen.hits += tally.hits;
        seen.dropped += tally.dropped();
    }
}

/// Names of functions of a Go program whose names begin with one of these, evenly chosen, at most `max`.
fn functions(program: &Path, prefixes: &[&str], max: usize) -> Vec<String> {
    let output = Command::new(go().program()).args(["tool", "nm"]).arg(program).env("GOTOOLCHAIN", "local").output();
    let output = output.expect("go tool nm runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut names: Vec<String> = text
        .lines()
        .filter_map(|line| line.trim().split_once(' ')?.1.trim_start().strip_prefix("T "))
        .filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
        // Wrappers and what linkers and compilers add.
        .filter(|name| {
            !name.contains("..") && !name.contains('·') && !name.contains("[go.shape") && !name.contains("-fm")
        })
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    assert!(
        names.len() > 50,
        "functions of {}: {}\n{}",
        program.display(),
        names.len(),
        String::from_utf8_lossy(&output.stderr)
    );
    let step = names.len().div_ceil(max).max(1);
    names.into_iter().step_by(step).collect()
}

/// A run: how a program is made to begin, held, and what it leaves.
struct Run<'a> {
    program: &'a Path,
    arguments: Vec<String>,
    folder: &'a Path,
    /// The file that it reads first, and the content that it waits for.
    pipe: (PathBuf, Vec<u8>),
    /// What it writes, besides its standard output.
    result: Option<PathBuf>,
}

/// How a run ended: status, and a hash of all it has put out.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    code: Option<i32>,
    output: String,
}

impl Run<'_> {
    fn prepare(&self) -> Command {
        // The file may be there from the run before.
        let _ = fs::remove_file(&self.pipe.0);
        nix::unistd::mkfifo(&self.pipe.0, Mode::from_bits_truncate(0o600)).expect("a named pipe");
        let mut made = command(self.program);
        made.args(&self.arguments).current_dir(self.folder).env("GOMAXPROCS", "2");
        made
    }

    /// Lets it go on.
    fn feed(&self) -> std::thread::JoinHandle<()> {
        let (path, content) = self.pipe.clone();
        std::thread::spawn(move || fs::write(path, content).expect("the program reads"))
    }

    #[track_caller]
    fn ended(&self, code: Option<i32>, stdout: &[u8]) -> Ended {
        let mut hash = Sha256::new();
        hash.update(stdout);
        if let Some(result) = &self.result {
            hash.update(fs::read(result).expect("the result"));
        }
        Ended { code, output: hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect() }
    }

    #[track_caller]
    fn untraced(&self) -> Ended {
        let child = self.prepare().stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts");
        let feeder = self.feed();
        let output = child.wait_with_output().expect("it ends");
        feeder.join().expect("all was read");
        self.ended(output.status.code(), &output.stdout)
    }

    #[track_caller]
    fn traced(&self, names: &[String]) -> (Ended, Traced) {
        let mut console = Console::start();
        let mut made = self.prepare();
        made.env("RIPTRACE_HOST", &console.fleet.host(HOST).tag);
        let mut program = Program::spawn("the program", made);
        let process = console.process(program.pid());
        let mut seen = Traced::default();
        let armed = arm_functions(&mut console, process, names, &mut seen);
        assert!(seen.armed > 0, "{seen:?}");
        let feeder = self.feed();
        let mut output = Vec::new();
        while let Some(line) = program.try_line(LATER) {
            output.extend_from_slice(line.as_bytes());
            output.push(b'\n');
        }
        let status = program.wait(LATER);
        feeder.join().expect("all was read");
        remove(&mut console, &armed, &mut seen);
        (self.ended(status.code(), &output), seen)
    }

    /// Both, and no difference.
    #[track_caller]
    fn compare(&self, what: &str, names: &[String]) {
        let untraced = self.untraced();
        let (traced, seen) = self.traced(names);
        eprintln!("{what}: {untraced:?} {seen:?}");
        assert_eq!(traced, untraced, "{what}: traced and untraced");
        assert!(seen.passages > 0, "{what}: {seen:?}");
    }
}

#[test]
fn gofmt_puts_out_the_same_when_it_is_traced() {
    let program = built("gofmt");
    let folder = tempfile::tempdir().expect("a folder");
    let first = folder.path().join("first.go");
    let sources = go_sources();
    let content = fs::read(sources.join("go/parser/parser.go")).expect("a source");
    let mut arguments = vec!["-d".to_owned(), "-s".to_owned(), first.display().to_string()];
    if all() {
        arguments
            .extend(["cmd", "net", "go", "runtime", "crypto"].map(|name| sources.join(name).display().to_string()));
    } else {
        arguments.push(sources.join("go").display().to_string());
    }
    let names = functions(&program, &["go/", "main.", "strings.", "bytes.", "text/tabwriter.", "sort.", "os."], 150);
    let run = Run { program: &program, arguments, folder: folder.path(), pipe: (first, content), result: None };
    run.compare("gofmt", &names);
}

#[test]
fn the_go_compiler_puts_out_the_same_when_it_is_traced() {
    if !all() {
        return eprintln!("RIPTRACE_REAL_PROGRAMS=1 runs this one");
    }
    let program = built("compile");
    let folder = tempfile::tempdir().expect("a folder");
    // A package without imports but unsafe needs no archives: the largest one there is.
    let sources = go_sources();
    let package = sources.join("unicode");
    let first = folder.path().join("first.go");
    let content = fs::read(package.join("tables.go")).expect("a source");
    let result = folder.path().join("out.a");
    let mut arguments =
        Vec::from(["-p", "unicode", "-complete", "-std", "-nolocalimports", "-pack", "-o"].map(str::to_owned));
    arguments.push(result.display().to_string());
    arguments.push(first.display().to_string());
    arguments.extend(
        ["casetables.go", "digit.go", "graphic.go", "letter.go"].map(|n| package.join(n).display().to_string()),
    );
    let names = functions(&program, &["cmd/compile/internal/", "main."], 400);
    let run = Run { program: &program, arguments, folder: folder.path(), pipe: (first, content), result: Some(result) };
    run.compare("compile unicode", &names);
}

/// What a load of a NATS server has to see: each message once, in order.
async fn nats_load(client: &Client, messages: u64) {
    let mut inbox = client.subscribe("load.>").await.expect("subscribed");
    let responder = client.subscribe("ask").await.expect("subscribed");
    let answers = client.clone();
    let task = tokio::spawn(async move {
        let mut responder = responder;
        while let Some(asked) = responder.next().await {
            if let Some(reply) = asked.reply {
                answers.publish(reply, asked.payload).await.expect("answered");
            }
        }
    });
    client.flush().await.expect("flushed");
    let sender = client.clone();
    let publish = async move {
        for n in 0..messages {
            sender.publish(format!("load.{}", n % 7), n.to_string().into()).await.expect("published");
        }
        sender.flush().await.expect("flushed");
    };
    let receive = async {
        for n in 0..messages {
            let message = inbox.next().await.expect("a message");
            assert_eq!(message.payload, n.to_string().as_bytes());
        }
    };
    tokio::join!(publish, receive);
    for n in 0..200 {
        let answer = client.request("ask", n.to_string().into()).await.expect("an answer");
        assert_eq!(answer.payload, n.to_string().as_bytes());
    }
    task.abort();
}

/// Functions of the NATS server that are traced.
const NATS_FUNCTIONS: usize = 600;

/// Runs a server through its load and its end, and says how it ended; `traced` is called once it serves, and what it
/// returns is kept until the end.
#[track_caller]
fn nats_served<T>(runtime: &tokio::runtime::Handle, traced: impl FnOnce(i32, &Path) -> T) -> (Option<i32>, T) {
    let program = provision::nats_server(&cache(), &mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
    let folder = tempfile::tempdir().expect("a folder");
    let mut made = command(&program);
    made.args(["-a", "127.0.0.1", "-p", "-1", "-js", "-sd"]).arg(folder.path().join("store"));
    made.arg("--ports_file_dir").arg(folder.path());
    let mut server = Program::spawn("nats-server under test", made);
    let ports = folder.path().join(format!("nats-server_{}.ports", server.pid()));
    let url = eventually("nats-server writes its ports", SOON, || {
        let ports: Value = serde_json::from_slice(&fs::read(&ports).ok()?).ok()?;
        Some(ports["nats"][0].as_str()?.to_owned())
    });
    let kept = traced(server.pid(), &program);
    let load = async {
        let client = async_nats::connect(url).await.expect("the server under test");
        tokio::time::timeout(LATER, nats_load(&client, 50_000)).await
    };
    runtime.block_on(load).expect("the load is served in time");
    server.assert_running();
    server.signal(Signal::SIGTERM);
    (server.wait(LATER).code(), kept)
}

/// As it is shipped it has no debug information: it is traced by its function table, at the entries of its functions.
#[test]
fn a_nats_server_serves_the_same_when_it_is_traced() {
    if !all() {
        return eprintln!("RIPTRACE_REAL_PROGRAMS=1 runs this one");
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (untraced, ()) = nats_served(runtime.handle(), |_, _| ());
    let (traced, (engine, armed)) = nats_served(runtime.handle(), |pid, program| {
        let image = Image::of(pid, program);
        // What every message passes, and as many of the others.
        let some = |of: &str, but: &str| {
            let named = |name: &str| name.contains(of) && (but.is_empty() || !name.contains(but));
            let all: Vec<u64> =
                image.code.functions().filter(|function| named(&function.name)).map(|f| f.range.start).collect();
            let step = all.len().div_ceil(NATS_FUNCTIONS / 2).max(1);
            all.into_iter().step_by(step).collect::<Vec<u64>>()
        };
        let client = "nats-server/v2/server.(*client).";
        let entries = [some(client, ""), some("nats-server/v2/server.", client)].concat();
        let mut engine = RawEngine::attach(pid, ProcessRuntime { is_go: true, go: None, is_gnu: false });
        let (mut mechanisms, mut refused) = (BTreeMap::<Mechanism, u32>::new(), BTreeMap::<String, u32>::new());
        let mut armed = Vec::new();
        for (n, entry) in entries.iter().enumerate() {
            match engine.arm(&image, *entry, (n % 4 != 0).then_some(1000)) {
                Ok((id, outcome)) => {
                    *mechanisms.entry(outcome.mechanism).or_default() += 1;
                    armed.push(id);
                }
                Err(error) => *refused.entry(error.to_string().chars().take(80).collect()).or_default() += 1,
            }
        }
        eprintln!("nats-server: {} functions, armed {mechanisms:?}, refused {refused:?}", entries.len());
        assert!(mechanisms.keys().any(|mechanism| *mechanism != Mechanism::Ptrace) && armed.len() > NATS_FUNCTIONS / 2);
        (engine, armed)
    });
    eprintln!("nats-server: {} hits of {} tracepoints, ended by {traced:?}", engine.taken(), armed.len());
    assert!(engine.taken() > 1000);
    assert_eq!(traced, untraced, "it ends as it does untraced");
}
