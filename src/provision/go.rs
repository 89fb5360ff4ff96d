//! A provisioned Go toolchain, and building with it.
//!
//! Builds are the same everywhere: the user's Go settings, workspace and module proxy are left out, the module must
//! be on the standard library alone, and the go command keeps all it keeps in RipTrace's cache.

use super::{
    ProvisionError,
    cache::make,
    pins::{self, Pin},
};
use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    str::FromStr,
};

/// How much of what the go command wrote is shown in an error.
const SAID_LINES_MAX: usize = 40;

/// A Go version that can be provisioned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct GoVersion(&'static Pin);

impl GoVersion {
    /// The newest one, which builds the demo.
    #[must_use]
    pub fn newest() -> Self {
        Self(&pins::GO[0])
    }

    /// All of them, newest first.
    pub fn all() -> impl Iterator<Item = Self> {
        pins::GO.iter().map(Self)
    }

    /// As the go command tells it, for example `1.27.3`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.0.version
    }

    pub(super) fn pin(self) -> &'static Pin {
        self.0
    }
}

impl fmt::Display for GoVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for GoVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GoVersion({self})")
    }
}

impl FromStr for GoVersion {
    type Err = ProvisionError;

    /// Reads `1.27.3`, or `1.27` for the patch release of it that is pinned.
    fn from_str(text: &str) -> Result<Self, ProvisionError> {
        Self::all()
            .find(|version| {
                version
                    .as_str()
                    .strip_prefix(text)
                    .is_some_and(|rest| rest.is_empty() || (rest.starts_with('.') && text != "1"))
            })
            .ok_or_else(|| ProvisionError::UnknownGoVersion {
                asked: text.to_owned(),
                known: Vec::from_iter(Self::all().map(Self::as_str)).join(", "),
            })
    }
}

/// How a package is built. The default is a plain optimised static build without a version-control stamp.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct BuildFlags {
    /// Further arguments of `go build`, before the package.
    pub args: Vec<String>,
    /// Whether cgo is on; a C compiler is needed then.
    pub cgo: bool,
    /// Whether `vcs.revision` and the like are stamped into the binary; the folder must be in a git checkout then.
    pub vcs: bool,
    /// Further variables of the environment, such as `GOAMD64`.
    pub env: Vec<(String, String)>,
}

impl BuildFlags {
    /// The default with these arguments.
    pub fn with_args(args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { args: args.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

/// A Go toolchain in the cache.
#[derive(Debug, Clone)]
pub struct GoToolchain {
    version: GoVersion,
    program: PathBuf,
    folder: PathBuf,
}

impl GoToolchain {
    pub(super) fn new(version: GoVersion, program: PathBuf, folder: PathBuf) -> Self {
        Self { version, program, folder }
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> GoVersion {
        self.version
    }

    /// The go command.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Builds `package` (such as `./cmd/cart`) of the module in `folder` into the file `out`.
    ///
    /// # Errors
    /// [`ProvisionError::GoStart`] or [`ProvisionError::GoBuild`] with what the go command wrote.
    pub fn build(&self, folder: &Path, package: &str, out: &Path, flags: &BuildFlags) -> Result<(), ProvisionError> {
        // The go command refuses to start where its temporary folder is missing.
        make(&self.folder.join("tmp"))?;
        let output = self
            .command(flags)
            .current_dir(folder)
            .arg("build")
            .arg(format!("-buildvcs={}", flags.vcs))
            .arg("-o")
            .arg(out)
            .args(&flags.args)
            .arg(package)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| ProvisionError::GoStart { program: self.program.clone(), source })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let lines = Vec::from_iter(said.lines());
        Err(ProvisionError::GoBuild {
            package: package.to_owned(),
            folder: folder.to_owned(),
            status: output.status.to_string(),
            said: lines[lines.len().saturating_sub(SAID_LINES_MAX)..].join("\n"),
        })
    }

    /// The go command in an environment of its own, without a subcommand yet.
    fn command(&self, flags: &BuildFlags) -> Command {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GO") {
                command.env_remove(name);
            }
        }
        let kept = |name: &str| OsString::from(self.folder.join(name));
        command
            .env("GOTOOLCHAIN", "local")
            .env("GOFLAGS", "-mod=mod")
            .env("GOPROXY", "off")
            .env("GOWORK", "off")
            .env("GOENV", "off")
            .env("GOOS", "linux")
            .env("GOARCH", "amd64")
            .env("CGO_ENABLED", if flags.cgo { "1" } else { "0" })
            .env("GOCACHE", kept("build"))
            .env("GOPATH", kept("path"))
            .env("GOTMPDIR", kept("tmp"))
            .env("TMPDIR", kept("tmp"))
            // Telemetry counters go to the user's configuration directory, which Go finds by this variable.
            .env("XDG_CONFIG_HOME", kept("config"));
        command.envs(flags.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_asked_for_whole_or_by_its_release() {
        let read = |text: &str| text.parse::<GoVersion>().map(GoVersion::as_str);
        assert_eq!(read("1.21.13").unwrap(), "1.21.13");
        assert_eq!(read("1.21").unwrap(), "1.21.13");
        assert_eq!(read("1.27").unwrap(), GoVersion::newest().as_str());
        for odd in ["", "1", "1.2", "1.27.", "1.27.99", "go1.27.3", "2"] {
            let error = read(odd).unwrap_err();
            assert!(error.to_string().contains("1.21.13"), "{odd}: {error}");
        }
    }

    #[test]
    fn the_users_go_settings_do_not_reach_the_build() {
        let toolchain = GoToolchain::new(GoVersion::newest(), "/t/bin/go".into(), "/c/go".into());
        let flags = BuildFlags { cgo: true, env: vec![("GOAMD64".into(), "v3".into())], ..BuildFlags::default() };
        let command = toolchain.command(&flags);
        let value = |name: &str| {
            command
                .get_envs()
                .find(|(known, _)| *known == name)
                .and_then(|(_, value)| value)
                .map(|value| value.to_string_lossy().into_owned())
        };
        assert_eq!(value("GOPROXY").as_deref(), Some("off"));
        assert_eq!(value("GOTOOLCHAIN").as_deref(), Some("local"));
        assert_eq!(value("GOCACHE").as_deref(), Some("/c/go/build"));
        assert_eq!(value("XDG_CONFIG_HOME").as_deref(), Some("/c/go/config"));
        assert_eq!(value("CGO_ENABLED").as_deref(), Some("1"));
        assert_eq!(value("GOAMD64").as_deref(), Some("v3"));
    }
}
