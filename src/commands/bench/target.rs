//! The target: a Go program of this folder, built once per version of its sources, and spoken to in lines.

use crate::failure::Failure;
use crate::output;
use crate::provision::{self, BuildFlags, Cache, GoVersion};
use include_dir::{Dir, include_dir};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

static SOURCES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/src/commands/bench/target");

/// The target's program and sources on disk.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) executable: PathBuf,
    pub(super) sources: PathBuf,
}

pub(super) fn failed(what: &str) -> impl Fn(std::io::Error) -> Failure {
    let what = what.to_owned();
    move |error| Failure::Failed(format!("{what}: {error}"))
}

/// The provisioned Go toolchain.
pub(super) fn go() -> Result<(Cache, provision::GoToolchain), Failure> {
    let unreachable = |e: provision::ProvisionError| {
        Failure::Unreachable(format!("the benchmark's target is a Go program, and there is no Go toolchain: {e}"))
    };
    let cache = Cache::from_env().map_err(unreachable)?;
    let go = provision::go(&cache, GoVersion::newest(), &mut |progress| output::note(&progress.to_string()));
    Ok((cache, go.map_err(unreachable)?))
}

/// Unpacks and builds the target.
pub(super) fn build() -> Result<Program, Failure> {
    let (cache, go) = go()?;
    let mut hash = Sha256::new();
    for file in SOURCES.files() {
        hash.update(file.path().as_os_str().as_encoded_bytes());
        hash.update(file.contents());
    }
    let version: String = hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let folder = cache.root().join(format!("bench-{version}"));
    let sources = folder.join("source");
    fs::create_dir_all(&sources).map_err(failed(&folder.display().to_string()))?;
    for file in SOURCES.files() {
        let path = sources.join(file.path());
        if fs::read(&path).is_ok_and(|there| there == file.contents()) {
            continue;
        }
        fs::write(&path, file.contents()).map_err(failed(&path.display().to_string()))?;
    }
    let executable = folder.join("bench-target");
    go.build(&sources, ".", &executable, &BuildFlags::default()).map_err(|e| Failure::Failed(e.to_string()))?;
    Ok(Program { executable, sources })
}

impl Program {
    /// The line that ends with `// BP marker`.
    pub(super) fn spot(&self, marker: &str) -> Result<(PathBuf, u32), Failure> {
        let end = format!("// BP {marker}");
        let files = fs::read_dir(&self.sources).map_err(failed(&self.sources.display().to_string()))?;
        for path in files.flatten().map(|file| file.path()) {
            let text = fs::read_to_string(&path).unwrap_or_default();
            if let Some(line) = (1..).zip(text.lines()).find(|(_, line)| line.ends_with(&end)).map(|(number, _)| number)
            {
                return Ok((path, line));
            }
        }
        Err(Failure::Failed(format!("the target has no line {end:?}")))
    }

    /// The lines that nobody ever passes, as the command line takes them.
    pub(super) fn silent(&self) -> Vec<String> {
        let file = Path::new("silent.go");
        let text = SOURCES.get_file(file).and_then(|file| file.contents_utf8()).unwrap_or_default();
        let lines = (1..).zip(text.lines()).filter(|(_, line)| line.ends_with("// silent"));
        lines.map(|(number, _)| format!("{}:{number}", self.sources.join(file).display())).collect()
    }
}

/// A line of the target.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Answer {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    pub(super) calls: u64,
    #[serde(default)]
    pub(super) ns: i64,
    #[serde(default)]
    pub(super) median_ns: f64,
    #[serde(default)]
    pub(super) collections: u32,
    #[serde(default)]
    error: String,
}

impl Answer {
    /// Nanoseconds per call, on average.
    pub(super) fn per_call(&self) -> f64 {
        self.ns as f64 / self.calls as f64
    }
}

/// A running target, or the peer that the program can be; it ends when it is dropped.
pub(super) struct Target {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Target {
    pub(super) fn start(program: &Program, arguments: &[&str]) -> Result<Target, Failure> {
        let mut child = Command::new(&program.executable)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed("the target"))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::Failed("the target has no standard streams".to_owned()));
        };
        let mut target = Target { child, stdin, stdout: BufReader::new(stdout) };
        target.answer("ready")?;
        Ok(target)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives a command and waits for its answer.
    pub(super) fn ask(&mut self, command: &str) -> Result<Answer, Failure> {
        writeln!(self.stdin, "{command}").map_err(failed("the target does not listen"))?;
        self.answer("done")
    }

    fn answer(&mut self, kind: &str) -> Result<Answer, Failure> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).map_err(failed("the target does not speak"))?;
        if line.is_empty() {
            let status = self.child.wait().map_err(failed("the target"))?;
            return Err(Failure::Failed(format!("the target ended: {status}")));
        }
        let answer: Answer =
            serde_json::from_str(&line).map_err(|e| Failure::Failed(format!("the target said {line:?}: {e}")))?;
        if answer.kind != kind {
            return Err(Failure::Failed(format!("the target: {}", answer.error)));
        }
        Ok(answer)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
