//! The Go compiler building the standard library: each of its processes is traced, and all archives are as without.
//!
//! A compiler is over before anything is armed, so each waits for the list of its imports, which is a named pipe: what
//! `go build` runs in its place (`WRAPPER`) gives it that pipe, says that it waits, and fills the pipe when it is told to.
//!
//! `RIPTRACE_REAL_PROGRAMS=1` runs it; some two hundred processes are traced one after the other, which takes minutes.

use crate::console::{Console, HOST};
use crate::real::{Traced, all, arm_functions, built, go, remove};
use crate::support::process::command;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What runs in place of each tool. `MEET` is the folder in which the two sides meet: `N` is the pipe of a compiler, `N.waits`
/// says its pid, and who has opened and closed `N.go` lets it go on.
const WRAPPER: &str = r#"#!/bin/sh
tool=$1
shift
case "$tool $*" in
*-V=full*) exec "$tool" "$@" ;;
*/compile\ *) ;;
*) exec "$tool" "$@" ;;
esac
pipe=$(mktemp -u "$MEET/XXXXXXXXXX") imports=
for argument in "$@"; do
    shift
    if [ "$imports" = next ]; then
        imports=$argument argument=$pipe
    elif [ "$argument" = -importcfg ]; then
        imports=next
    fi
    set -- "$@" "$argument"
done
mkfifo "$pipe" "$pipe.go"
"$COMPILER" "$@" &
echo $! >"$pipe.new"
mv "$pipe.new" "$pipe.waits"
read -r _ <"$pipe.go"
cat "$imports" >"$pipe"
wait $!
"#;

/// What is traced of each compiler: its parser, its register allocator, of which all functions are counted, and two passes
/// between them. What takes variables of a hundred functions at once is refused.
const PATTERNS: [&str; 4] = [
    "cmd/compile/internal/syntax.(*parser).funcDeclOrNil",
    "ssa.(*regAllocState).*",
    "cmd/compile/internal/walk.walkCall",
    "cmd/compile/internal/escape.(*batch).finish",
];
/// How often the two sides look for each other.
const LOOK: Duration = Duration::from_millis(20);

/// Where a build goes on.
struct Build {
    folder: PathBuf,
    wrapper: PathBuf,
    compiler: PathBuf,
}

impl Build {
    fn go(&self, tag: &str) -> Command {
        let mut made = command(go().program());
        for (name, value) in [("GOTOOLCHAIN", "local"), ("CGO_ENABLED", "0"), ("GOFLAGS", ""), ("RIPTRACE_HOST", tag)] {
            made.env(name, value);
        }
        made.env("GOCACHE", self.folder.join("cache")).env("GOTMPDIR", &self.folder);
        made.env("MEET", self.meet()).env("COMPILER", &self.compiler);
        made.current_dir(&self.folder).stdin(Stdio::null());
        made
    }

    fn meet(&self) -> PathBuf {
        self.folder.join("meet")
    }

    fn toolexec(&self) -> String {
        format!("-toolexec={}", self.wrapper.display())
    }

    #[track_caller]
    fn start(&self, tag: &str) -> Child {
        fs::create_dir_all(self.meet()).expect("a folder");
        let mut made = self.go(tag);
        made.args(["build", "-p", "2", &self.toolexec(), "std"]);
        made.spawn().expect("the go command starts")
    }

    /// Compilers that have come since the last time: their pipes and pids.
    fn waiting(&self, known: &mut BTreeSet<PathBuf>) -> Vec<(PathBuf, i32)> {
        let entries = fs::read_dir(self.meet()).expect("the folder").flatten().map(|entry| entry.path());
        let new = entries.filter(|path| path.extension().is_some_and(|end| end == "waits") && !known.contains(path));
        let new: Vec<PathBuf> = new.collect();
        known.extend(new.iter().cloned());
        let pid = |path: &Path| fs::read_to_string(path).ok()?.trim().parse().ok();
        new.into_iter().map(|path| (path.with_extension("go"), pid(&path).expect("a pid"))).collect()
    }

    /// The archives of all packages, by their content.
    #[track_caller]
    fn archives(&self) -> BTreeMap<String, String> {
        let mut made = self.go("");
        made.args(["list", "-export", "-f", "{{.ImportPath}} {{.Export}}", &self.toolexec(), "std"]);
        let output = made.stderr(Stdio::inherit()).output().expect("the go command starts");
        assert!(output.status.success(), "go list: {}", output.status);
        let text = String::from_utf8(output.stdout).expect("text");
        let archive = |line: &str| {
            let (package, path) = line.split_once(' ')?;
            // The cache names a file by a hash of its content.
            Some((package.to_owned(), Path::new(path).file_name()?.to_str()?.to_owned()))
        };
        text.lines().filter_map(archive).collect()
    }
}

fn let_go_on(pipe: &Path) {
    fs::write(pipe, "\n").expect("the wrapper reads");
}

fn is_there(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn the_go_compiler_builds_the_same_library_when_it_is_traced() {
    if !all() {
        return eprintln!("RIPTRACE_REAL_PROGRAMS=1 runs this one");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let wrapper = folder.path().join("wrapper");
    fs::write(&wrapper, WRAPPER).expect("written");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("executable");
    let build = |name: &str| {
        let folder = folder.path().join(name);
        fs::create_dir_all(&folder).expect("a folder");
        Build { folder, wrapper: wrapper.clone(), compiler: built("compile") }
    };

    let plain = build("plain");
    let (mut child, mut known) = (plain.start(""), BTreeSet::new());
    let untraced = loop {
        plain.waiting(&mut known).iter().for_each(|(pipe, _)| let_go_on(pipe));
        match child.try_wait().expect("a child") {
            Some(status) => break status,
            None => std::thread::sleep(LOOK),
        }
    };
    assert!(untraced.success(), "{untraced}");

    let watched = build("watched");
    let names = PATTERNS.map(str::to_owned);
    let mut console = Console::start();
    let tag = console.fleet.host(HOST).tag.clone();
    let (mut child, mut known) = (watched.start(&tag), BTreeSet::new());
    let (mut seen, mut processes) = (Traced::default(), 0u64);
    let mut running: Vec<(i32, Vec<(String, Value)>)> = Vec::new();
    let traced = loop {
        for (pipe, pid) in watched.waiting(&mut known) {
            let process = console.process(pid);
            running.push((pid, arm_functions(&mut console, process, &names, &mut seen)));
            processes += 1;
            let_go_on(&pipe);
        }
        let ended = running.extract_if(.., |(pid, _)| !is_there(*pid)).collect::<Vec<_>>();
        ended.iter().for_each(|(_, armed)| remove(&mut console, armed, &mut seen));
        match child.try_wait().expect("a child") {
            Some(status) => break status,
            None => std::thread::sleep(LOOK),
        }
    };
    running.iter().for_each(|(_, armed)| remove(&mut console, armed, &mut seen));
    eprintln!("{processes} compilers: {traced}, {seen:?}");
    assert_eq!(traced, untraced);
    assert!(
        processes > 100 && seen.armed == processes * PATTERNS.len() as u64 && seen.passages > 0,
        "{processes} compilers: {seen:?}"
    );
    let (expected, found) = (plain.archives(), watched.archives());
    assert!(expected.len() > 100, "{expected:?}");
    assert_eq!(found, expected);
}
