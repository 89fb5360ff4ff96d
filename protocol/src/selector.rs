//! Selectors: which processes are meant, as a person writes it.
//!
//! `host=web-*,service=cart,exe=*/cartd,module=example.com/shop,build=go:*,label.env=prod,pid=12`. All terms must hold; a
//! value is a glob in which `*` stands for any run of characters and `?` for one. A key given twice means either.

use crate::fleet::ProcessFacts;
use crate::ids::HostName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a term looks at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Host,
    Service,
    Exe,
    Module,
    Build,
    Pid,
    Label(String),
}

/// Which processes are meant; the empty selector means all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector {
    terms: Vec<(Key, String)>,
}

/// A text that is not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSelector {
    /// A term without `=`.
    #[error("selector term {0:?} is not KEY=VALUE")]
    NoValue(String),
    /// An unknown key.
    #[error("selector key {0:?} is unknown: use host, service, exe, module, build, pid or label.NAME")]
    UnknownKey(String),
}

impl Selector {
    /// Reads a selector; blanks around terms are ignored.
    pub fn parse(text: &str) -> Result<Selector, BadSelector> {
        let mut terms = Vec::new();
        for term in text.split(',').map(str::trim).filter(|t| !t.is_empty()) {
            let (key, value) = term.split_once('=').ok_or_else(|| BadSelector::NoValue(term.to_owned()))?;
            let key = match key.trim() {
                "host" => Key::Host,
                "service" => Key::Service,
                "exe" => Key::Exe,
                "module" => Key::Module,
                "build" => Key::Build,
                "pid" => Key::Pid,
                other => match other.strip_prefix("label.") {
                    Some(name) if !name.is_empty() => Key::Label(name.to_owned()),
                    _ => return Err(BadSelector::UnknownKey(other.to_owned())),
                },
            };
            terms.push((key, value.trim().to_owned()));
        }
        Ok(Selector { terms })
    }

    /// Whether a host of this name can have a process that is meant.
    pub fn may_match_host(&self, host: &HostName) -> bool {
        self.all_keys(|key| matches!(key, Key::Host), |_, value| glob(value, host.as_str()))
    }

    /// Whether the process is meant.
    pub fn matches(&self, host: &HostName, process: &ProcessFacts) -> bool {
        self.all_keys(
            |_| true,
            |key, value| match key {
                Key::Host => glob(value, host.as_str()),
                Key::Service => glob(value, &process.service),
                Key::Exe => glob(value, &process.exe),
                Key::Module => process.build.module.as_deref().is_some_and(|module| glob(value, module)),
                Key::Build => glob(value, &process.build.id.0),
                Key::Pid => glob(value, &process.key.pid.to_string()),
                Key::Label(name) => process.labels.get(name).is_some_and(|label| glob(value, label)),
            },
        )
    }

    fn all_keys(&self, consider: impl Fn(&Key) -> bool, holds: impl Fn(&Key, &str) -> bool) -> bool {
        let considered = || self.terms.iter().filter(|(key, _)| consider(key));
        considered().all(|(key, _)| considered().any(|(other, value)| other == key && holds(key, value)))
    }
}

impl TryFrom<String> for Selector {
    type Error = BadSelector;
    fn try_from(text: String) -> Result<Self, BadSelector> {
        Selector::parse(&text)
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> String {
        selector.to_string()
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (key, value)) in self.terms.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            match key {
                Key::Host => write!(f, "{comma}host={value}")?,
                Key::Service => write!(f, "{comma}service={value}")?,
                Key::Exe => write!(f, "{comma}exe={value}")?,
                Key::Module => write!(f, "{comma}module={value}")?,
                Key::Build => write!(f, "{comma}build={value}")?,
                Key::Pid => write!(f, "{comma}pid={value}")?,
                Key::Label(name) => write!(f, "{comma}label.{name}={value}")?,
            }
        }
        Ok(())
    }
}

/// Whether `text` fits `pattern`, where `*` is any run of characters and `?` any one. Linear in both: it backs up to
/// the last star only.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, taken)) => {
                    p = at + 1;
                    t = taken + 1;
                    star = Some((at, taken + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_texts() {
        for (pattern, text, expect) in [
            ("web-*", "web-1", true),
            ("*/cartd", "/usr/bin/cartd", true),
            ("*a*b*", "xxaxxbxx", true),
            ("?art", "cart", true),
            ("cart", "carts", false),
            ("", "", true),
            ("*", "", true),
            ("", "x", false),
        ] {
            assert_eq!(glob(pattern, text), expect, "{pattern} {text}");
        }
    }

    #[test]
    fn a_selector_reads_back_what_it_writes() {
        let text = "host=web-*,service=cart,build=go:x/y,label.env=prod,pid=12";
        assert_eq!(Selector::parse(text).unwrap().to_string(), text);
        assert_eq!(Selector::parse("zone=a"), Err(BadSelector::UnknownKey("zone".into())));
        assert_eq!(Selector::parse("host"), Err(BadSelector::NoValue("host".into())));
        assert_eq!(Selector::parse("label.=x"), Err(BadSelector::UnknownKey("label.".into())));
    }

    #[test]
    fn a_key_given_twice_means_either() {
        let selector = Selector::parse("host=a,host=b").unwrap();
        assert!(selector.may_match_host(&HostName::new("a").unwrap()));
        assert!(selector.may_match_host(&HostName::new("b").unwrap()));
        assert!(!selector.may_match_host(&HostName::new("c").unwrap()));
    }
}
