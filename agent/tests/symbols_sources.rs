//! Symbols from elsewhere: pushed into a real NATS server, installed on the host, served by a debuginfod server.

use riptrace_agent::plan::compile;
use riptrace_agent::symbol_store::SymbolStore;
use riptrace_agent::symbols::sources::code::{CodeKey, pushable};
use riptrace_agent::symbols::sources::{PushedBuilds, Sources};
use riptrace_agent::symbols::{Build, SymbolCache};
use riptrace_protocol::layout::Variable;
use riptrace_protocol::location::Location;
use riptrace_protocol::tracepoint::Tracepoint;
use riptrace_provision::{BuildFlags, Cache, GoVersion};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const CACHE_BYTES: u64 = 1 << 30;

struct Nats {
    server: Child,
    url: String,
    _store: tempfile::TempDir,
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

async fn nats() -> Nats {
    let cache = Cache::from_env().unwrap_or_else(|error| panic!("{error}"));
    let program = riptrace_provision::nats_server(&cache, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
    let store = tempfile::tempdir().unwrap();
    let server = Command::new(program)
        .args(["-a", "127.0.0.1", "-p", "-1", "-js", "-sd"])
        .arg(store.path().join("js"))
        .arg("--ports_file_dir")
        .arg(store.path())
        .stderr(std::fs::File::create(store.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    let ports = store.path().join(format!("nats-server_{}.ports", server.id()));
    let mut poll = tokio::time::interval(Duration::from_millis(20));
    let url = async {
        loop {
            poll.tick().await;
            let ports = std::fs::read(&ports).unwrap_or_default();
            if let Ok(ports) = serde_json::from_slice::<serde_json::Value>(&ports) {
                return ports["nats"][0].as_str().unwrap().to_owned();
            }
        }
    };
    let url = timeout(PATIENCE, url).await.expect("nats-server writes its ports");
    Nats { server, url, _store: store }
}

/// The store as an agent asks it.
struct Asked(SymbolStore, Handle);

impl PushedBuilds for Asked {
    fn fetch(&self, code: &CodeKey, into: &Path) -> Result<bool, String> {
        self.1.block_on(self.0.fetch(code, into, |_, _| {})).map_err(|error| error.to_string())
    }
}

/// A store that must not be asked.
struct NotAsked;

impl PushedBuilds for NotAsked {
    fn fetch(&self, code: &CodeKey, _: &Path) -> Result<bool, String> {
        panic!("{code} is in the cache")
    }
}

fn values(folder: &Path, name: &str) -> PathBuf {
    let cache = Cache::from_env().unwrap_or_else(|error| panic!("{error}"));
    let go = riptrace_provision::go(&cache, GoVersion::newest(), &mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/values");
    let out = folder.join(name);
    go.build(&sources, ".", &out, &BuildFlags::default()).unwrap_or_else(|error| panic!("{error}"));
    out
}

/// What hits at every marked line of the fixture carry: addresses with their variables.
fn marked(build: &Build) -> Vec<(u64, Vec<Variable>)> {
    let kinds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/values/kinds.go");
    let text = std::fs::read_to_string(kinds).unwrap();
    let lines = (1..).zip(text.lines()).filter(|(_, line)| line.contains("// BP ")).map(|(number, _)| number);
    let mut found = Vec::new();
    for line in lines {
        let location = Location::Line { file: "values/kinds.go".to_owned(), line };
        let tracepoint: Tracepoint = serde_json::from_value(json!({"id": "t", "location": location})).unwrap();
        for site in build.resolve(&location).unwrap_or_else(|error| panic!("{location}: {error}")) {
            let plan = compile(build, &site, &tracepoint, 0).unwrap_or_else(|error| panic!("{location}: {error}"));
            found.push((site.address.0, plan.layout.variables));
        }
    }
    assert!(found.len() > 20, "{} marked lines", found.len());
    found
}

fn open(path: &Path, cache: &Path, pushed: impl PushedBuilds + 'static) -> Build {
    let sources = Sources { pushed: Some(Box::new(pushed)), debuginfod: Vec::new() };
    Build::open_with(path, &SymbolCache::at(cache, CACHE_BYTES), &sources).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pushed_build_gives_the_stripped_one_all_its_values() {
    let nats = nats().await;
    let store = SymbolStore::new(async_nats::connect(&nats.url).await.unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (whole, stripped) = {
        let folder = folder.path().to_owned();
        let built = move || {
            let (whole, stripped) = (values(&folder, "whole"), folder.join("stripped"));
            run(Command::new("objcopy").arg("--strip-all").args([&whole, &stripped]));
            (whole, stripped)
        };
        tokio::task::spawn_blocking(built).await.unwrap()
    };
    let build = pushable(&whole).unwrap();
    let why = pushable(&stripped).unwrap_err();
    assert!(why.contains("no debug information"), "{why}");
    assert!(store.find(&build.code).await.unwrap().is_none() && store.list().await.unwrap().is_empty());

    let cache = folder.path().join("cache");
    let asked = || Asked(store.clone(), Handle::current());
    let opened = |path: &Path| {
        let (path, cache, asked) = (path.to_owned(), cache.clone(), asked());
        tokio::task::spawn_blocking(move || open(&path, &cache, asked))
    };
    let before = opened(&stripped).await.unwrap();
    assert!(before.lacks_debug_info() && before.symbols_note().unwrap().contains("symbols push"));

    let metadata = BTreeMap::from([("file".to_owned(), "whole".to_owned())]);
    let mut told = 0;
    store.push(&build.code, metadata, &whole, |done| told = done).await.unwrap();
    assert_eq!(told, std::fs::metadata(&whole).unwrap().len());
    let list = store.list().await.unwrap();
    assert_eq!((list.len(), list[0].name.as_str(), list[0].size), (1, build.code.as_str(), told));
    assert_eq!(list[0].metadata["file"], "whole");

    let after = opened(&stripped).await.unwrap();
    assert!(!after.lacks_debug_info() && after.symbols_note().unwrap().contains("pushed build"));
    let expected = {
        let whole = whole.clone();
        tokio::task::spawn_blocking(move || marked(&Build::open(&whole).unwrap())).await.unwrap()
    };
    assert_eq!(marked(&after), expected);
    // Another agent of this user finds it on disk.
    let again = open(&stripped, &cache, NotAsked);
    assert_eq!(marked(&again), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pushed_file_of_other_code_is_not_believed() {
    let nats = nats().await;
    let store = SymbolStore::new(async_nats::connect(&nats.url).await.unwrap());
    let folder = tempfile::tempdir().unwrap();
    let program = compile_c(folder.path(), &["-g", "-O1"]);
    let bare = folder.path().join("bare");
    run(Command::new("objcopy").arg("--strip-all").args([&program, &bare]));
    let other = folder.path().join("other.c");
    std::fs::write(&other, "int main(void) { return 7; }\n").unwrap();
    run(Command::new("cc").args(["-g", "-o"]).arg(folder.path().join("other")).arg(&other));
    let code = pushable(&program).unwrap().code;
    // Who may push may also lie.
    store.push(&code, BTreeMap::new(), &folder.path().join("other"), |_| {}).await.unwrap();
    let (cache, asked) = (folder.path().join("cache"), Asked(store.clone(), Handle::current()));
    let opened = tokio::task::spawn_blocking(move || open(&bare, &cache, asked)).await.unwrap();
    assert!(opened.lacks_debug_info());
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap_or_else(|error| panic!("{command:?}: {error}")).success(), "{command:?}");
}

fn compile_c(folder: &Path, flags: &[&str]) -> PathBuf {
    let source = folder.join("twice.c");
    let text = "#include <stdio.h>\n__attribute__((noinline)) int twice(int n) {\n    int m = n + n;\n    return m;\n}\n\
                int main(int argc, char **argv) { (void)argv; printf(\"%d\\n\", twice(argc)); return 0; }\n";
    std::fs::write(&source, text).unwrap();
    let program = folder.join("twice");
    run(Command::new("cc").args(flags).arg("-Wl,--build-id").arg("-o").args([&program, &source]));
    program
}

/// A program without symbols, and the file that has them.
fn split(folder: &Path) -> (PathBuf, PathBuf) {
    let program = compile_c(folder, &["-g", "-O1"]);
    let (bare, debug) = (folder.join("bare"), folder.join("twice.debug"));
    run(Command::new("objcopy").arg("--only-keep-debug").args([&program, &debug]));
    run(Command::new("objcopy").arg("--strip-all").args([&program, &bare]));
    (bare, debug)
}

fn finds_twice(build: &Build) {
    let location = Location::Line { file: "twice.c".to_owned(), line: 4 };
    let sites = build.resolve(&location).unwrap();
    assert_eq!((sites.len(), sites[0].function.as_str()), (1, "twice"));
}

#[test]
fn the_file_that_the_executable_names_is_used_when_its_checksum_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let (bare, debug) = split(folder.path());
    let linked = folder.path().join("linked");
    let link = format!("--add-gnu-debuglink={}", debug.display());
    run(Command::new("objcopy").arg(link).args([&bare, &linked]));
    let open = || Build::open(&linked).unwrap();
    let build = open();
    assert!(build.symbols_note().unwrap().contains("twice.debug"));
    finds_twice(&build);
    let hidden = folder.path().join(".debug");
    std::fs::create_dir(&hidden).unwrap();
    std::fs::rename(&debug, hidden.join("twice.debug")).unwrap();
    finds_twice(&open());
    let mut damaged = std::fs::read(hidden.join("twice.debug")).unwrap();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    std::fs::write(hidden.join("twice.debug"), damaged).unwrap();
    assert!(open().lacks_debug_info());
}

#[test]
fn a_debuginfod_server_is_asked_by_build_id() {
    let folder = tempfile::tempdir().unwrap();
    let (bare, debug) = split(folder.path());
    let content = std::fs::read(&debug).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = String::new();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut asked).unwrap();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len()).unwrap();
        stream.write_all(&content).unwrap();
        asked
    });
    let cache = SymbolCache::at(folder.path().join("cache"), CACHE_BYTES);
    let sources = Sources { pushed: None, debuginfod: vec![server.clone()] };
    let build = Build::open_with(&bare, &cache, &sources).unwrap();
    assert!(build.symbols_note().unwrap().contains(&server));
    finds_twice(&build);
    let asked = serving.join().unwrap();
    let id = build.facts().id.0.trim_start_matches("gnu:").to_owned();
    assert!(asked.starts_with(&format!("GET /buildid/{id}/debuginfo ")), "{asked}");
    // Nobody listens any more: it is on disk.
    finds_twice(&Build::open_with(&bare, &cache, &sources).unwrap());
}
