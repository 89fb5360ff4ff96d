//! Is there a `nats-server` on PATH that will do?

use std::{
    env, fmt,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A version of the NATS server, as `nats-server --version` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NatsVersion {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub patch: u32,
}

impl NatsVersion {
    /// The oldest server that will do: the first releases with all of what the bus and the stores use, and with the
    /// setting `no_fast_producer_stall`. Key-value buckets cannot be made on a 2.9 server by today's client.
    pub const OLDEST: Self = Self { major: 2, minor: 10, patch: 25 };

    /// Reads the line `nats-server: v2.15.1` (development builds append `-beta.3` or the like, which counts as older
    /// than the release: it is refused).
    #[must_use]
    pub fn from_output(output: &str) -> Option<Self> {
        let text = output.trim().strip_prefix("nats-server: v")?;
        let mut numbers = text.split('.').map(|part| {
            // `u32::from_str` takes a leading plus; a version has digits only.
            part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?
        });
        let (major, minor, patch) = (numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(Self { major, minor, patch })
    }
}

impl fmt::Display for NatsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// The first `nats-server` on PATH, if it is new enough.
pub(super) fn nats_server_on_path() -> Option<PathBuf> {
    let program = find(env::var_os("PATH")?.as_os_str(), "nats-server")?;
    let output = Command::new(&program).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let version = NatsVersion::from_output(&String::from_utf8_lossy(&output.stdout))?;
    if version < NatsVersion::OLDEST {
        tracing::info!(
            program = %program.display(), %version, oldest = %NatsVersion::OLDEST,
            "the nats-server on PATH is too old and is not used"
        );
        return None;
    }
    Some(program)
}

/// The first executable file of that name in the folders of `path`. Relative folders are passed over: what they hold
/// depends on where somebody happens to stand.
pub(super) fn find(path: &std::ffi::OsStr, name: &str) -> Option<PathBuf> {
    env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_server_prints() {
        let version = |major, minor, patch| Some(NatsVersion { major, minor, patch });
        assert_eq!(NatsVersion::from_output("nats-server: v2.15.1\n"), version(2, 15, 1));
        assert_eq!(NatsVersion::from_output("nats-server: v2.9.10"), version(2, 9, 10));
        for odd in [
            "",
            "nats-server: v2.15",
            "nats-server: v2.15.1.4",
            "nats-server: v2.12.0-RC.3",
            "nats-server: v2.+1.0",
            "nats-server: v2..0",
            "nats-server: v99999999999.0.0",
            "gnatsd version 1.4.1",
        ] {
            assert_eq!(NatsVersion::from_output(odd), None, "{odd}");
        }
    }

    #[test]
    fn versions_compare_by_number_and_not_by_text() {
        let read = |text: &str| NatsVersion::from_output(&format!("nats-server: v{text}")).unwrap();
        assert!(read("2.9.99") < NatsVersion::OLDEST);
        assert!(read("2.10.4") < NatsVersion::OLDEST);
        assert!(read("2.10.25") >= NatsVersion::OLDEST);
        assert!(read("2.11.0") > NatsVersion::OLDEST);
        assert!(read("3.0.0") > NatsVersion::OLDEST);
    }

    #[test]
    fn only_an_executable_file_in_an_absolute_folder_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("1"), folder.path().join("2"));
        std::fs::create_dir_all(first.join("tool")).unwrap();
        std::fs::create_dir_all(&second).unwrap();
        let path = env::join_paths([Path::new("relative"), &first, &second]).unwrap();
        let tool = second.join("tool");
        std::fs::write(&tool, "").unwrap();
        assert_eq!(find(&path, "tool"), None);
        std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find(&path, "tool"), Some(tool));
    }
}
