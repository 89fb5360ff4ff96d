//! Targets that count and check themselves: how they are started, asked, and looked at from outside.

use crate::console::{Console, HOST};
use crate::support::{
    LATER, SOON, eventually,
    fixture::{Fixture, folder_of, spot_in},
    process::Program,
};
use riptrace_protocol::ids::ProcessKey;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// How long a target may take to answer while everything is hard on it.
const ANSWER: std::time::Duration = LATER;

/// A program with marked lines that counts its own passages.
pub(crate) struct Target {
    pub(crate) program: Program,
    pid: i32,
    exe: PathBuf,
    source: PathBuf,
    /// Its last answer.
    last: Value,
}

impl Target {
    /// Starts a fixture as a process of the console's host.
    #[track_caller]
    pub(crate) fn start(console: &Console, fixture: &Fixture, arguments: &[&str]) -> Target {
        Self::of(console.fleet.spawn_on(HOST, &fixture.program, arguments), fixture)
    }

    /// A program that was started otherwise.
    #[track_caller]
    pub(crate) fn of(mut program: Program, fixture: &Fixture) -> Target {
        let last = program.json_of("ready", SOON);
        Target { pid: program.pid(), program, exe: fixture.program.clone(), source: fixture.source.clone(), last }
    }

    /// What was started is not the target but its parent: this is the target.
    pub(crate) fn runs_as(&mut self, pid: i32) {
        self.pid = pid;
    }

    /// Its pid, as this process sees it.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// The process, as the console's agent knows it.
    #[track_caller]
    pub(crate) fn process(&self, console: &mut Console) -> ProcessKey {
        console.process(self.pid)
    }

    /// Where a marker is, as a tracepoint says it.
    #[track_caller]
    pub(crate) fn location(&self, marker: &str) -> Value {
        let spot = spot_in(&self.source, marker);
        json!({"kind": "line", "file": spot.file, "line": spot.line})
    }

    /// Gives a command and waits for its answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, command: &str) -> Value {
        self.program.write_line(command);
        let answer = self.program.json_where(ANSWER, |answer| answer["type"] == command || answer["type"] == "error");
        assert_eq!(answer["type"], command, "{answer}");
        self.last = answer.clone();
        answer
    }

    /// No marked line is passed from now on.
    #[track_caller]
    pub(crate) fn pause(&mut self) -> BTreeMap<String, u64> {
        passages(&self.ask("pause"))
    }

    /// The marked lines are passed again.
    #[track_caller]
    pub(crate) fn resume(&mut self) {
        self.ask("resume");
    }

    /// Waits until each of these lines has been passed further and each stressor has done another round.
    #[track_caller]
    pub(crate) fn goes_on(&mut self, markers: &[&str]) {
        let before = self.last.clone();
        eventually("every worker and stressor goes on", LATER, || {
            let now = self.ask("stats");
            let (then, here) = (passages(&before), passages(&now));
            let all_passed = markers.iter().all(|&marker| here[marker] > then[marker]);
            let (then, here) = (counts(&before["stress"]), counts(&now["stress"]));
            (all_passed && here.iter().all(|(name, rounds)| *rounds > then[name])).then_some(())
        });
    }

    /// Ends it; it must say that all was right.
    #[track_caller]
    pub(crate) fn exit(mut self) -> Value {
        let answer = self.ask("exit");
        self.program.wait_for_code(0, SOON);
        answer
    }

    /// Nobody traces it.
    #[track_caller]
    pub(crate) fn assert_untraced(&self) {
        let pid = self.pid;
        eventually("nobody traces the target", SOON, || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
            status.contains("TracerPid:\t0").then_some(())
        });
    }

    /// Its text is as in its file.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        eventually("the text is as in its file", SOON, || self.patched_bytes().is_empty().then_some(()));
    }

    /// Addresses (in the file) at which its text is not as in its file.
    #[track_caller]
    pub(crate) fn patched_bytes(&self) -> Vec<usize> {
        patched_bytes(self.pid, &self.exe)
    }
}

/// Offsets in the file at which the text of a process is not as in its executable.
#[track_caller]
pub(crate) fn patched_bytes(pid: i32, exe: &PathBuf) -> Vec<usize> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("its maps");
    let file = fs::read(exe).expect("its file");
    let memory = fs::File::open(format!("/proc/{pid}/mem")).expect("its memory");
    // In another mount namespace the path may be another.
    let path = exe.display().to_string();
    let name = format!("/{}", exe.file_name().expect("a name").to_string_lossy());
    let end = if maps.lines().any(|line| line.ends_with(&path)) { path } else { name };
    let mut patched = Vec::new();
    let mut compared = 0;
    for line in maps.lines().filter(|line| line.contains(" r-xp ") && line.ends_with(&end)) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (lo, hi) = fields[0].split_once('-').expect("a range");
        let number = |text| u64::from_str_radix(text, 16).expect("an address");
        let (lo, hi, offset) = (number(lo), number(hi), number(fields[2]) as usize);
        let mut text = vec![0; (hi - lo) as usize];
        memory.read_exact_at(&mut text, lo).expect("its text");
        let end = (offset + text.len()).min(file.len());
        patched.extend((offset..end).filter(|&at| text[at - offset] != file[at]));
        compared += 1;
    }
    assert!(compared > 0, "no text of {end} in:\n{maps}");
    patched
}

fn counts(of: &Value) -> BTreeMap<String, u64> {
    of.as_object().into_iter().flatten().map(|(name, count)| (name.clone(), count.as_u64().expect("a count"))).collect()
}

/// The passages of each marked line that an answer tells.
pub(crate) fn passages(answer: &Value) -> BTreeMap<String, u64> {
    counts(&answer["passages"])
}

/// The markers of a fixture's lines, as its answers name them.
pub(crate) fn markers(answer: &Value) -> Vec<String> {
    passages(answer).into_keys().collect()
}

/// The C fixture that this folder's tests trace, built with these flags.
#[track_caller]
pub(crate) fn chaos_native(flags: &[&str]) -> Fixture {
    assert!(folder_of("chaos_native").is_dir());
    Fixture::c("chaos_native", flags)
}

impl Target {
    /// The markers of its lines.
    pub(crate) fn markers(&self) -> Vec<String> {
        markers(&self.last)
    }
}
