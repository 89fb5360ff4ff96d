//! Fixture programs: built once per (sources, Go version, flags) into the cache, and found again.
//!
//! A fixture is a folder below `tests/fixtures`. Lines that tests point at end with a marker, `// BP name`.

use super::eventually;
use nix::fcntl::{Flock, FlockArg};
use riptrace::provision::{self, BuildFlags, Cache, GoVersion};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// A program that was built, and the sources that it was built of.
#[derive(Debug, Clone)]
pub struct Fixture {
    /// The executable.
    pub program: PathBuf,
    /// The folder of the sources, as the debug information names it.
    pub source: PathBuf,
}

/// A marked line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// The file, absolute.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: u32,
}

impl Spot {
    /// As the command line takes it: `FILE:LINE`.
    pub fn location(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }
}

impl Fixture {
    /// Builds `package` (`.` or `./cmd/cart`) of the fixture `name` with the newest Go, optimised.
    #[track_caller]
    pub fn go(name: &str, package: &str) -> Self {
        Self::go_with(name, package, GoVersion::newest(), &BuildFlags::default())
    }

    /// The same with a given Go and given flags.
    #[track_caller]
    pub fn go_with(name: &str, package: &str, version: GoVersion, flags: &BuildFlags) -> Self {
        let source = folder_of(name);
        Self::go_in(&source, package, version, flags)
    }

    /// The same for a module anywhere, such as a checkout that a test has made.
    #[track_caller]
    pub fn go_in(source: &Path, package: &str, version: GoVersion, flags: &BuildFlags) -> Self {
        // A stamped binary differs from commit to commit.
        let commit = if flags.vcs { commit_of(source) } else { String::new() };
        let key = format!("go {version} {package} {flags:?} {commit}");
        build(source, &key, |out| {
            provision::go(&cache(), version, &mut |_| {})
                .and_then(|go| go.build(source, package, out, flags))
                .unwrap_or_else(|error| panic!("{error}"));
        })
    }

    /// Builds the C fixture `name`, whose source is `main.c`, with these flags of the compiler.
    #[track_caller]
    pub fn c(name: &str, flags: &[&str]) -> Self {
        let source = folder_of(name);
        build(&source, &format!("c {flags:?}"), |out| {
            let status = Command::new("cc")
                .args(flags)
                .arg(source.join("main.c"))
                .arg("-o")
                .arg(out)
                .arg("-pthread")
                .status()
                .expect("a C compiler, cc, is on PATH");
            assert!(status.success(), "cc ended with {status}");
        })
    }

    /// Builds the C++ fixture `name`, whose source is `main.cc`, with these flags of the compiler.
    #[track_caller]
    pub fn cpp(name: &str, flags: &[&str]) -> Self {
        let source = folder_of(name);
        build(&source, &format!("c++ {flags:?}"), |out| {
            let mut made = Command::new("c++");
            let status = made.args(flags).arg(source.join("main.cc")).arg("-o").arg(out).status();
            let status = status.expect("a C++ compiler, c++, is on PATH");
            assert!(status.success(), "c++ ended with {status}");
        })
    }

    /// Builds the Rust fixture `name`, whose source is `lib.rs`, with these flags of the compiler.
    #[track_caller]
    pub fn rust(name: &str, flags: &[&str]) -> Self {
        let source = folder_of(name);
        build(&source, &format!("rust {flags:?}"), |out| {
            let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
            let mut made = Command::new(compiler);
            made.args(["--edition", "2024"]).args(flags).arg(source.join("lib.rs")).arg("-o").arg(out);
            let status = made.status().expect("the Rust compiler is on PATH, as it built this test");
            assert!(status.success(), "rustc ended with {status}");
        })
    }

    /// The line with this marker, in whichever file of the fixture.
    #[track_caller]
    pub fn spot(&self, marker: &str) -> Spot {
        spot_in(&self.source, marker)
    }
}

#[track_caller]
fn commit_of(source: &Path) -> String {
    let output =
        Command::new("git").arg("-C").arg(source).args(["rev-parse", "HEAD"]).output().expect("git is on PATH");
    assert!(output.status.success(), "{} is no git checkout", source.display());
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The folder of a fixture.
pub fn folder_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The user's cache, shared with the `riptrace` binary.
#[track_caller]
pub fn cache() -> Cache {
    Cache::from_env().unwrap_or_else(|error| panic!("{error}"))
}

/// The line of `file` that ends with the marker, from 1.
#[track_caller]
pub fn line_of(file: &Path, marker: &str) -> u32 {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let found = marked_lines(&text, marker);
    assert_eq!(found.len(), 1, "lines of {} with the marker {marker:?}", file.display());
    found[0]
}

/// The one line with this marker below `folder`.
#[track_caller]
pub fn spot_in(folder: &Path, marker: &str) -> Spot {
    let mut found = Vec::new();
    for file in files_below(folder) {
        if let Ok(text) = fs::read_to_string(&file) {
            found.extend(marked_lines(&text, marker).into_iter().map(|line| Spot { file: file.clone(), line }));
        }
    }
    assert_eq!(found.len(), 1, "lines with the marker {marker:?}: {found:?}");
    found.remove(0)
}

fn marked_lines(text: &str, marker: &str) -> Vec<u32> {
    let end = format!("// BP {marker}");
    (1..).zip(text.lines()).filter(|(_, line)| line.ends_with(&end)).map(|(number, _)| number).collect()
}

/// All files below a folder, sorted; no hidden ones.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut entries = Vec::from_iter(
        fs::read_dir(folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.expect("a folder that can be read").path()),
    );
    entries.sort();
    for path in entries {
        let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if hidden {
            continue;
        }
        if path.is_dir() {
            all.extend(files_below(&path));
        } else {
            all.push(path);
        }
    }
    all
}

/// The program made by `make` from `source`, once per content of the sources and `key`.
fn build(source: &Path, key: &str, make: impl FnOnce(&Path)) -> Fixture {
    let mut hash = Sha256::new();
    hash.update(key);
    hash.update(source.as_os_str().as_encoded_bytes()); // the debug information has it
    for file in files_below(source) {
        hash.update(file.as_os_str().as_encoded_bytes());
        hash.update([0]);
        hash.update(fs::read(&file).expect("a source that can be read"));
    }
    let hash = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
    let name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // The name of the executable is the name of the service.
    let words = Vec::from_iter(key.split_whitespace());
    let program_name = words.iter().find_map(|word| word.strip_prefix("./cmd/")).unwrap_or(&name);
    let folder = cache().root().join("fixtures").join(format!("{name}-{hash}"));
    let program = folder.join(program_name);
    let fixture = Fixture { program: program.clone(), source: source.to_owned() };
    if program.is_file() {
        return fixture;
    }
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let lock = File::create(folder.join(".lock")).expect("a lock file");
    let mut file = Some(lock);
    let _lock = eventually("another test has built the fixture", super::LATER, || {
        match Flock::lock(file.take()?, FlockArg::LockExclusiveNonblock) {
            Ok(held) => Some(held),
            Err((again, _)) => {
                file = Some(again);
                None
            }
        }
    });
    if !program.is_file() {
        let half = folder.join(".half");
        make(&half);
        fs::rename(&half, &program).expect("the fixture is moved to its place");
    }
    fixture
}
