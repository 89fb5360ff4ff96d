//! `riptrace.toml`: defaults at the root of a checkout.
//!
//! It is searched in the current folder and those above it. Unknown keys are refused, so that a misspelt one is seen.
//!
//! ```toml
//! nats = "nats://bus.example.com:4222"
//! creds = "~/.config/riptrace/me.creds"
//! selector = "label.env=staging"
//! rate = 500                      # hits per second and process, or "none"
//! [[substitute_path]]             # where the build machine had what is here, as `substitutePath` of an editor
//! from = "."                      # here; relative to the file
//! to = "/build/src"               # there
//! ```

use riptrace_dap_adapter::environment::{CheckoutDefaults, ConnectError, SettingsKey, SettingsProblem};
use riptrace_protocol::selector::Selector;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Largest `riptrace.toml`, in bytes: a hand-written file is far below.
const SETTINGS_BYTES_MAX: u64 = 256 * 1024;
const NAME: &str = "riptrace.toml";

/// The keys, for editors. A test holds them against what is read.
pub const KEYS: [SettingsKey; 7] = [
    SettingsKey {
        name: "nats",
        table: "",
        meaning: "URL of the NATS server of the fleet. `--nats` and `$NATS_URL` go before it.",
        example: "nats = \"nats://bus.example.com:4222\"",
    },
    SettingsKey {
        name: "creds",
        table: "",
        meaning: "Credentials file for it. `~/` is the home folder; a relative path starts at this file's folder.",
        example: "creds = \"~/.config/riptrace/me.creds\"",
    },
    SettingsKey {
        name: "selector",
        table: "",
        meaning: "Which processes tracepoints mean that do not say it themselves.",
        example: "selector = \"label.env=staging\"",
    },
    SettingsKey {
        name: "rate",
        table: "",
        meaning: "Budget of hits per second and process: a number, or `\"none\"`.",
        example: "rate = 500",
    },
    SettingsKey {
        name: "substitute_path",
        table: "",
        meaning: "Where the build machine had what is here. May be given several times.",
        example: "[[substitute_path]]\nfrom = \".\"\nto = \"/build/src\"",
    },
    SettingsKey {
        name: "from",
        table: "substitute_path",
        meaning: "Folder here, relative to this file.",
        example: "from = \".\"",
    },
    SettingsKey {
        name: "to",
        table: "substitute_path",
        meaning: "The same folder on the build machine.",
        example: "to = \"/build/src\"",
    },
];

/// Whether a text can be a `riptrace.toml`.
///
/// # Errors
/// What is wrong with it, in the words of the reader, and where.
pub fn check(text: &str) -> Result<(), SettingsProblem> {
    let problem = |error: toml::de::Error| SettingsProblem {
        message: error.message().to_owned(),
        span: error.span().unwrap_or(0..0),
    };
    toml::from_str::<Settings>(text).map(|_| ()).map_err(problem)
}

/// Defaults at the root of a checkout.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// URL of the bus.
    pub nats: Option<String>,
    /// Credentials file; `~/` is the home folder, a relative path starts at the file's folder.
    pub creds: Option<PathBuf>,
    /// Selector of tracepoints that give none.
    pub selector: Option<Selector>,
    /// Budget of hits per second and process.
    pub rate: Option<Rate>,
    /// Paths here and what they are in the build.
    #[serde(default)]
    pub substitute_path: Vec<Substitution>,
    /// Folder of the file; the folder that was asked about when there is none.
    #[serde(skip)]
    pub root: PathBuf,
}

/// A budget of hits per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Rate {
    /// At most this many.
    PerSecond(u32),
    /// `"none"`: no budget.
    Unlimited(NoneWord),
}

/// The word `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoneWord {
    /// `"none"`
    None,
}

/// What a path here is in the build.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Substitution {
    /// Folder here, relative to the settings file.
    pub from: PathBuf,
    /// Folder in the build.
    pub to: String,
}

impl Settings {
    /// Reads the nearest `riptrace.toml` in `folder` or above; the defaults when there is none.
    pub fn find(folder: &Path) -> Result<Settings, ConnectError> {
        let candidates = folder.ancestors().map(|dir| dir.join(NAME));
        match candidates.into_iter().find(|path| path.is_file()) {
            Some(path) => Settings::read(&path),
            None => Ok(Settings { root: folder.to_owned(), ..Settings::default() }),
        }
    }

    fn read(path: &Path) -> Result<Settings, ConnectError> {
        let wrong = |why: String| ConnectError::Configuration(format!("{}: {why}", path.display()));
        let bytes = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?.len();
        if bytes > SETTINGS_BYTES_MAX {
            return Err(wrong(format!("{bytes} bytes; a settings file has at most {SETTINGS_BYTES_MAX}")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        let mut settings: Settings = toml::from_str(&text).map_err(|e| wrong(e.to_string().trim_end().to_owned()))?;
        settings.root = path.parent().unwrap_or(Path::new("/")).to_owned();
        settings.creds = settings.creds.map(|creds| expand(&settings.root, &creds));
        Ok(settings)
    }

    /// The part that the editor side uses.
    pub fn checkout(&self) -> CheckoutDefaults {
        CheckoutDefaults {
            root: self.root.clone(),
            selector: self.selector.as_ref().map(ToString::to_string),
            rate_per_s: self.rate.map(|rate| match rate {
                Rate::PerSecond(n) => Some(n),
                Rate::Unlimited(_) => None,
            }),
            substitute_path: self
                .substitute_path
                .iter()
                .map(|s| {
                    // Without the dots, which a text comparison of paths would not see through.
                    let here: PathBuf = expand(&self.root, &s.from).components().collect();
                    (s.to.clone(), here.to_string_lossy().into_owned())
                })
                .collect(),
        }
    }
}

fn expand(root: &Path, path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::var_os("HOME")) {
        (Ok(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => root.join(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, ConnectError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), text).unwrap();
        let below = dir.path().join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        Settings::find(&below)
    }

    #[test]
    fn the_keys_told_to_editors_are_those_that_are_read() {
        for key in KEYS {
            let text = if key.table.is_empty() {
                key.example.to_owned()
            } else {
                let whole = KEYS.iter().find(|table| table.name == key.table && table.table.is_empty()).unwrap();
                assert!(whole.example.contains(key.example), "{}", key.name);
                whole.example.to_owned()
            };
            assert_eq!(check(&text), Ok(()), "{}", key.name);
        }
        // The reader names all keys that it knows when it meets another.
        let unknown = check("x = 1").unwrap_err();
        for key in KEYS.iter().filter(|key| key.table.is_empty()) {
            assert!(unknown.message.contains(&format!("`{}`", key.name)), "{unknown}");
        }
        assert_eq!(unknown.message.matches('`').count(), 2 * (1 + KEYS.iter().filter(|k| k.table.is_empty()).count()));
        assert_eq!(unknown.span, 0..1);
    }

    #[test]
    fn the_nearest_file_above_gives_the_defaults() {
        let settings = read("nats = \"nats://h:1\"\nrate = \"none\"\nselector = \"service=cart\"\n").unwrap();
        assert_eq!(settings.nats.as_deref(), Some("nats://h:1"));
        assert_eq!(settings.checkout().rate_per_s, Some(None));
        assert_eq!(settings.checkout().selector.as_deref(), Some("service=cart"));
        let settings = read("[[substitute_path]]\nfrom = \".\"\nto = \"/build/src\"\n").unwrap();
        let root = settings.root.to_string_lossy().into_owned();
        assert_eq!(settings.checkout().substitute_path, [("/build/src".to_owned(), root)]);
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named_with_its_place() {
        for (text, part) in [
            ("nats = 3", "line 1"),
            ("natz = \"x\"", "unknown field `natz`"),
            ("selector = \"zone=a\"", "selector key"),
            ("rate = -1", "rate"),
            ("\u{0}\u{1}[[", "line 1"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(NAME), "{text:?}: {error}");
        }
    }
}
