//! Tracepoints: what a person asked for.

use crate::ids::TracepointId;
use crate::limits;
use crate::location::Location;
use crate::selector::Selector;
use crate::source::SourceFacts;
use serde::{Deserialize, Serialize};

/// Texts of one line that a tracepoint tells apart, at most: what a fleet runs while it is being updated.
pub const SOURCES_MAX: usize = 4;

/// What a person asked for: where, in which fleet, under which condition, with which captures and limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tracepoint {
    /// Chosen by the session that creates it.
    pub id: TracepointId,
    /// Where.
    pub location: Location,
    /// In which processes.
    #[serde(default)]
    pub selector: Selector,
    /// Expression that must hold for a passage to become a hit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Which of the passages whose condition held become hits; counted in each process by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hit_condition: Option<HitCondition>,
    /// Text with `{expression}` parts that is shown for each hit; formatted where somebody looks, never at the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_message: Option<String>,
    /// What to capture besides the variables in scope, each an expression, which may have limits of its own
    /// ([`crate::expression::Capture`]): a variable in scope that is named with limits is captured with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub captures: Vec<String>,
    /// What a passage leaves behind.
    #[serde(default)]
    pub mode: Mode,
    /// Budgets and clamps.
    #[serde(default)]
    pub limits: CaptureLimits,
    /// What the sources of the builds say of the variables at the line, one for each that says something else, at most
    /// [`SOURCES_MAX`]; empty where nobody has them. Those that do not fit a build are not for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<SourceFacts>,
}

/// What a passage leaves behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// A hit with variables and stack.
    #[default]
    Hit,
    /// A counter only.
    Count,
}

/// Which passages become hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HitCondition {
    /// Only passage number `n`, from 1.
    Exactly {
        /// Passage number.
        n: u64,
    },
    /// Passage number `n` and all after it.
    From {
        /// First passage number.
        n: u64,
    },
    /// The first `n` passages.
    UpTo {
        /// Last passage number.
        n: u64,
    },
    /// Each `n`th passage.
    Every {
        /// Distance, at least 1.
        n: u64,
    },
}

/// A text that is not a hit condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("hit condition {0:?} is not one of: N, =N, >N, >=N, <N, <=N, %N (N from 1)")]
pub struct BadHitCondition(pub String);

impl HitCondition {
    /// Reads `N`, `=N`, `==N`, `>N`, `>=N`, `<N`, `<=N` or `%N`. A bare `N` means passage `N` and all after it, as in
    /// VS Code's own debuggers.
    pub fn parse(text: &str) -> Result<HitCondition, BadHitCondition> {
        let bad = || BadHitCondition(text.to_owned());
        let trimmed = text.trim();
        let digits_at = trimmed.find(|c: char| c.is_ascii_digit()).ok_or_else(bad)?;
        let (operator, digits) = trimmed.split_at(digits_at);
        let n: u64 = digits.trim().parse().map_err(|_| bad())?;
        let condition = match operator.trim() {
            "=" | "==" => HitCondition::Exactly { n },
            "" | ">=" => HitCondition::From { n },
            ">" => HitCondition::From { n: n.checked_add(1).ok_or_else(bad)? },
            "<=" => HitCondition::UpTo { n },
            "<" => HitCondition::UpTo { n: n.checked_sub(1).ok_or_else(bad)? },
            "%" => HitCondition::Every { n },
            _ => return Err(bad()),
        };
        let (HitCondition::Exactly { n }
        | HitCondition::From { n }
        | HitCondition::UpTo { n }
        | HitCondition::Every { n }) = condition;
        if n == 0 { Err(bad()) } else { Ok(condition) }
    }

    /// Whether passage `number` (from 1) becomes a hit.
    pub fn admits(self, number: u64) -> bool {
        match self {
            HitCondition::Exactly { n } => number == n,
            HitCondition::From { n } => number >= n,
            HitCondition::UpTo { n } => number <= n,
            HitCondition::Every { n } => n != 0 && number.is_multiple_of(n),
        }
    }
}

/// Budgets and clamps of a tracepoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CaptureLimits {
    /// Hits per second and process; `None` lifts the budget.
    pub rate_per_s: Option<u32>,
    /// The tracepoint is removed after this many hits over the whole fleet.
    pub count: Option<u64>,
    /// Bytes of a string.
    pub string_bytes: u32,
    /// Elements of a slice or array.
    pub elements: u32,
    /// Pointers followed below a variable.
    pub depth: u32,
    /// Fields of a struct, in the order of their declaration.
    pub fields: u32,
    /// Raw bytes of one hit.
    pub bytes_per_hit: u32,
}

impl Default for CaptureLimits {
    fn default() -> Self {
        CaptureLimits {
            rate_per_s: Some(limits::RATE_PER_S_DEFAULT),
            count: None,
            string_bytes: limits::STRING_BYTES_DEFAULT,
            elements: limits::ELEMENTS_DEFAULT,
            depth: limits::DEPTH_DEFAULT,
            fields: limits::FIELDS_DEFAULT,
            bytes_per_hit: limits::BYTES_PER_HIT_DEFAULT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hit_conditions_read_as_editors_write_them() {
        for (text, admitted) in [
            ("3", [3, 4, 5].as_slice()),
            ("= 3", &[3]),
            (">3", &[4, 5]),
            (">=3", &[3, 4, 5]),
            ("<3", &[1, 2]),
            ("<= 3", &[1, 2, 3]),
            ("%2", &[2, 4]),
        ] {
            let condition = HitCondition::parse(text).unwrap();
            let got: Vec<u64> = (1..=5).filter(|&n| condition.admits(n)).collect();
            assert_eq!(got, admitted, "{text}");
        }
        for bad in ["", "x", "0", "%0", "<1", "3x", "~3", "99999999999999999999"] {
            assert!(HitCondition::parse(bad).is_err(), "{bad}");
        }
    }
}
