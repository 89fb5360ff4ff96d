//! What came out, as a table.

use riptrace::provision::{BuildFlags, GoVersion};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::Path;

/// How the corpus is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Default,
    Unoptimised,
    Pie,
    TrimPath,
}

impl Mode {
    pub(crate) const ALL: [Mode; 4] = [Mode::Default, Mode::Unoptimised, Mode::Pie, Mode::TrimPath];

    pub(crate) fn flags(self) -> BuildFlags {
        match self {
            Mode::Default => BuildFlags::default(),
            Mode::Unoptimised => BuildFlags::with_args(["-gcflags=all=-N -l"]),
            Mode::Pie => BuildFlags::with_args(["-buildmode=pie"]),
            Mode::TrimPath => BuildFlags::with_args(["-trimpath"]),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Default => "default",
            Mode::Unoptimised => "-N -l",
            Mode::Pie => "PIE",
            Mode::TrimPath => "-trimpath",
        })
    }
}

/// What became of a variable at a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Shown, all of it, and right.
    Exact,
    /// Shown and right, but for a part that is not shown.
    InPart(String),
    /// Not shown, with its status.
    Withheld(String),
    /// Shown and wrong.
    Wrong,
}

impl Outcome {
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Outcome::Exact => 0,
            Outcome::InPart(_) => 1,
            Outcome::Withheld(_) => 2,
            Outcome::Wrong => 3,
        }
    }
}

/// What Delve shows at the lines where both were compared.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    pub(crate) lines: usize,
    pub(crate) variables: usize,
    /// Shown, all of it, and right.
    pub(crate) exact: usize,
    /// Shown, without a mark, and wrong.
    pub(crate) wrong: usize,
    /// What RipTrace shows as it is at these lines.
    pub(crate) own_exact: usize,
    /// What is wrong.
    pub(crate) examples: Vec<String>,
    /// What Delve shows as it is and RipTrace does not, with its reason.
    pub(crate) ahead: Vec<String>,
}

/// What came out of one build.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) version: GoVersion,
    pub(crate) mode: Mode,
    /// By `MARKER.VARIABLE`.
    pub(crate) outcomes: Vec<(String, Outcome)>,
    /// Marked lines that were traced.
    pub(crate) lines: usize,
    /// Marked lines of which the compiler has left no instruction.
    pub(crate) no_code: usize,
    /// Shown and wrong.
    pub(crate) wrong: Vec<String>,
    /// Optimised lines whose first instruction runs more or less often than the line, as what a loop does not change is
    /// computed in front of it.
    pub(crate) astray: Vec<String>,
    /// What the test could not look at.
    pub(crate) odd: Vec<String>,
    /// Of a default build, where Delve is at hand.
    pub(crate) delve: Option<Peer>,
}

impl Run {
    pub(crate) fn new(version: GoVersion, mode: Mode) -> Run {
        Run {
            version,
            mode,
            outcomes: Vec::new(),
            lines: 0,
            no_code: 0,
            wrong: Vec::new(),
            astray: Vec::new(),
            odd: Vec::new(),
            delve: None,
        }
    }

    pub(crate) fn variables(&self) -> usize {
        self.outcomes.len()
    }

    pub(crate) fn exact(&self) -> usize {
        self.count(0)
    }

    fn count(&self, rank: u8) -> usize {
        self.outcomes.iter().filter(|(_, outcome)| outcome.rank() == rank).count()
    }

    /// Why variables are not shown: the word of the status and how many.
    fn reasons(&self) -> BTreeMap<&str, usize> {
        let mut reasons = BTreeMap::new();
        for (_, outcome) in &self.outcomes {
            if let Outcome::Withheld(why) = outcome {
                let word = why.trim_matches(['<', '>']).split(':').next().unwrap_or_default();
                *reasons.entry(word).or_default() += 1;
            }
        }
        reasons
    }
}

/// A row per build.
pub(crate) fn table(runs: &[Run]) -> String {
    let words = ["partial", "suspect", "optimised out", "not captured", "unreadable", "not mentioned"];
    let mut text = String::from("| Go | build | lines | without code | hit otherwise | variables | exact | in part |");
    for word in words {
        let _ = write!(text, " {word} |");
    }
    text.push_str(" wrong |\n|---|---|---|---|---|---|---|---|");
    text.push_str(&"---|".repeat(words.len() + 1));
    for run in runs {
        let share = 100.0 * run.exact() as f64 / run.variables().max(1) as f64;
        let reasons = run.reasons();
        let _ = write!(
            text,
            "\n| {} | {} | {} | {} | {} | {} | {} ({share:.1} %) | {} |",
            run.version,
            run.mode,
            run.lines,
            run.no_code,
            run.astray.len(),
            run.variables(),
            run.exact(),
            run.count(1)
        );
        for word in words {
            let _ = write!(text, " {} |", reasons.get(word).copied().unwrap_or_default());
        }
        let _ = write!(text, " {} |", run.count(3));
    }
    text.push('\n');
    text
}

/// A row per build that Delve has seen; empty where it was not at hand.
pub(crate) fn delve_table(runs: &[Run]) -> String {
    let mut rows = String::new();
    for run in runs {
        let Some(peer) = &run.delve else { continue };
        let share = |count: usize| 100.0 * count as f64 / peer.variables.max(1) as f64;
        let _ = write!(
            rows,
            "\n| {} | {} | {} | {} | {} ({:.1} %) | {} ({:.1} %) | {} |",
            run.version,
            run.mode,
            peer.lines,
            peer.variables,
            peer.own_exact,
            share(peer.own_exact),
            peer.exact,
            share(peer.exact),
            peer.wrong
        );
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "| Go | build | lines | variables | exact | exact in Delve | wrong in Delve, unmarked |\n\
         |---|---|---|---|---|---|---|{rows}\n"
    )
}

/// Where the table of RipTrace's own results begins, and that of Delve's.
const OWN: &str = "| Go | build | lines | without code |";
const DELVE: &str = "| Go | build | lines | variables |";

/// Writes the tables of results that the repository keeps; that of Delve stays where there is no new one.
#[track_caller]
pub(crate) fn keep(table: &str, delve: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/truth/RESULTS.md");
    let before = std::fs::read_to_string(&path).expect("the results that are kept");
    let (head, rest) = before.split_once(OWN).expect("its table");
    let (_, behind) = rest.split_once("\n\n").expect("what is said of Delve");
    let (about, kept) = behind.split_once(DELVE).unwrap_or((behind, ""));
    let kept = match delve {
        "" if kept.is_empty() => String::new(),
        "" => format!("{DELVE}{kept}"),
        new => new.to_owned(),
    };
    std::fs::write(&path, format!("{head}{table}\n{about}{kept}")).expect("the results are written");
}
