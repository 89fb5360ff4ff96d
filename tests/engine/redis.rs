//! A C server as Debian ships it, stripped, under its own benchmark: traced at hundreds of functions, by address, with
//! captures that follow whatever is in the registers.
//!
//! Only with `RIPTRACE_REAL_PROGRAMS=1`: the packages are downloaded by apt and unpacked into a folder of the test.

use crate::raw::{Image, RawEngine, exe};
use crate::support::{
    LATER, SOON, eventually,
    process::{Program, command},
};
use riptrace_agent::engine::ProcessRuntime;
use riptrace_protocol::fleet::Mechanism;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// What the server needs besides what every Debian has.
const PACKAGES: [&str; 4] = ["redis-server", "redis-tools", "liblzf1", "libjemalloc2"];
/// Functions that are traced.
const FUNCTIONS: usize = 400;
/// Commands that each server is given, the same ones.
const COMMANDS: u32 = 30_000;

/// The unpacked packages.
struct Redis {
    folder: tempfile::TempDir,
}

impl Redis {
    #[track_caller]
    fn unpacked() -> Redis {
        let folder = tempfile::tempdir().expect("a folder");
        let downloaded = Command::new("apt-get").arg("download").args(PACKAGES).current_dir(folder.path()).output();
        let downloaded = downloaded.expect("apt-get is on PATH");
        assert!(downloaded.status.success(), "apt-get: {}", String::from_utf8_lossy(&downloaded.stderr));
        for entry in fs::read_dir(folder.path()).expect("the folder").map(|entry| entry.expect("an entry").path()) {
            let status = Command::new("dpkg").arg("-x").arg(entry).arg(folder.path().join("root")).status();
            assert!(status.expect("dpkg is on PATH").success());
        }
        Redis { folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn command(&self, program: &str) -> Command {
        let mut made = command(self.root().join("usr/bin").join(program));
        made.env("LD_LIBRARY_PATH", self.root().join("usr/lib/x86_64-linux-gnu")).current_dir(self.folder.path());
        made
    }

    fn client(&self, socket: &Path, arguments: &[&str]) -> Command {
        let mut made = self.command("redis-cli");
        made.arg("-s").arg(socket).args(arguments);
        made
    }
}

/// The same commands each time: strings, lists, hashes, sorted sets, expiry, scripts and errors among them.
fn commands() -> String {
    let mut text = String::new();
    for n in 0..COMMANDS {
        let key = n.wrapping_mul(2_654_435_761) % 997;
        text += &match n % 10 {
            0 => format!("SET s:{key} value-{n}\n"),
            1 => format!("APPEND s:{key} -more\n"),
            2 => format!("RPUSH l:{key} {n} {key}\n"),
            3 => format!("HSET h:{} f{key} {n}\n", key % 31),
            4 => format!("ZADD z:{} {n} m{key}\n", key % 17),
            5 => format!("SADD t:{} {key}\n", key % 13),
            6 => format!("INCRBY c:{} {key}\n", key % 101),
            7 => format!("LTRIM l:{key} 0 40\n"),
            8 => format!("EVAL \"return redis.call('INCR', KEYS[1])\" 1 e:{}\n", key % 7),
            _ => format!("SORT t:{}\n", key % 13),
        };
    }
    text
}

/// Runs a server through all of it; `traced` is called once it serves, and what it returns is kept until the end.
#[track_caller]
fn served<T>(redis: &Redis, traced: impl FnOnce(i32) -> T) -> (String, bool, T) {
    let socket = redis.folder.path().join("socket");
    let mut made = redis.command("redis-server");
    made.args(["--port", "0", "--save", "", "--io-threads", "2", "--enable-debug-command", "yes"]);
    // A thread of jemalloc's own blocks every signal: a process that has one is traced by ptrace.
    made.args(["--jemalloc-bg-thread", "no", "--unixsocket"]);
    let mut server = Program::spawn("redis-server", {
        made.arg(&socket);
        made
    });
    eventually("the server answers", SOON, || {
        let asked = redis.client(&socket, &["PING"]).stderr(Stdio::null()).output().expect("redis-cli runs");
        (asked.stdout == b"PONG\n").then_some(())
    });
    let kept = traced(server.pid());
    let input = redis.folder.path().join("commands");
    fs::write(&input, commands()).expect("written");
    let mut client = redis.client(&socket, &[]);
    let output = client.stdin(fs::File::open(&input).expect("opened")).output().expect("redis-cli runs");
    assert!(output.status.success());
    let mut benchmark = redis.command("redis-benchmark");
    benchmark.arg("-s").arg(&socket).args(["-q", "-n", "20000", "-c", "20", "-P", "4", "-t", "get,ping,lrange_100"]);
    let benchmark = benchmark.stdout(Stdio::null()).status().expect("redis-benchmark runs").success();
    let digest = redis.client(&socket, &["DEBUG", "DIGEST"]).output().expect("redis-cli runs");
    let digest = String::from_utf8_lossy(&digest.stdout).into_owned() + &String::from_utf8_lossy(&output.stdout);
    server.assert_running();
    // Its own end: it removes its socket and says goodbye.
    let _ = redis.client(&socket, &["SHUTDOWN", "NOSAVE"]).stderr(Stdio::null()).status();
    server.wait_for_code(0, LATER);
    (digest, benchmark, kept)
}

#[test]
fn a_redis_server_as_debian_ships_it_serves_the_same_when_it_is_traced() {
    if !env::var("RIPTRACE_REAL_PROGRAMS").is_ok_and(|value| value == "1") {
        return eprintln!("RIPTRACE_REAL_PROGRAMS=1 runs this one");
    }
    let redis = Redis::unpacked();
    let (untraced, sound, ()) = served(&redis, |_| ());
    assert!(sound && untraced.len() > 1000, "{untraced}");
    let (traced, sound, (engine, armed)) = served(&redis, |pid| {
        let image = Image::of(pid, &exe(pid));
        let mut engine = RawEngine::attach(pid, ProcessRuntime { is_go: false, go: None, is_gnu: true });
        let (mut mechanisms, mut refused) = (BTreeMap::<Mechanism, u32>::new(), BTreeMap::<String, u32>::new());
        let (mut armed, mut notes) = (Vec::new(), BTreeMap::<String, u32>::new());
        for (n, function) in image.functions(FUNCTIONS).iter().enumerate() {
            match engine.arm(&image, function.range.start, (n % 4 != 0).then_some(1000)) {
                Ok((id, outcome)) => {
                    outcome.note.into_iter().for_each(|note| *notes.entry(note).or_default() += 1);
                    *mechanisms.entry(outcome.mechanism).or_default() += 1;
                    armed.push(id);
                }
                Err(error) => *refused.entry(error.to_string().chars().take(80).collect()).or_default() += 1,
            }
        }
        eprintln!("redis-server: armed {mechanisms:?} {notes:?}, refused {refused:?}");
        assert!(mechanisms.keys().any(|mechanism| *mechanism != Mechanism::Ptrace) && armed.len() > FUNCTIONS / 2);
        (engine, armed)
    });
    eprintln!("redis-server: {} hits of {} tracepoints", engine.taken(), armed.len());
    assert!(engine.taken() > 1000);
    assert!(sound, "its benchmark ended well");
    assert_eq!(traced, untraced, "the same data, the same answers");
}
