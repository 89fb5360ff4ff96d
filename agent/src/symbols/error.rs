//! What can go wrong with a build's symbols: one variant per condition, each saying what to do.

use std::path::PathBuf;

/// The file cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum SymbolsError {
    /// It cannot be opened or read.
    #[error("cannot read {path}: {source}; the agent needs read access to the executables of the processes it traces")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not an ELF file, or is cut short.
    #[error("{path} is not a usable ELF file ({why}); rebuild or redeploy it")]
    BadElf {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It is for another machine.
    #[error("{path} is built for machine type {machine}, and RipTrace traces x86-64 (62) only")]
    Machine {
        /// Which file.
        path: PathBuf,
        /// `e_machine` of the ELF header.
        machine: u16,
    },
}

/// A location that a build cannot take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// There is no debug information.
    #[error(
        "the executable has no DWARF debug information (was it built with -ldflags=-w or stripped?); deploy a build that keeps it, or push one of the same code with `riptrace symbols push`"
    )]
    NoDwarf,
    /// There is no debug information, and Go's function table cannot be used either.
    #[error(
        "the executable has no DWARF debug information, and {0}; push a build of the same code that has it with `riptrace symbols push`"
    )]
    NoTable(String),
    /// The debug information is damaged.
    #[error("the debug information cannot be read ({0}); rebuild the executable")]
    BadDwarf(String),
    /// No source file of the build ends in this path.
    #[error("no source file {file:?} in this build{}", nearest(.candidates))]
    NoSuchFile {
        /// As asked for.
        file: String,
        /// Files of the build with the same name, or the most alike.
        candidates: Vec<String>,
    },
    /// Several source files of the build end in this path.
    #[error("{file:?} is ambiguous in this build: write more of the path{}", nearest(.candidates))]
    AmbiguousFile {
        /// As asked for.
        file: String,
        /// The files it may mean.
        candidates: Vec<String>,
    },
    /// The line has no code of its own.
    #[error("no code at {file}:{line} in this build{}", nearest_lines(.nearest))]
    NoCode {
        /// The file as the build knows it.
        file: String,
        /// As asked for.
        line: u32,
        /// Nearest lines of the file that have code: at most one before and one after.
        nearest: Vec<u32>,
    },
    /// No function of the build has this name.
    #[error("no function {name:?} with code in this build{}", nearest(.candidates))]
    NoSuchFunction {
        /// As asked for.
        name: String,
        /// Functions whose names are alike.
        candidates: Vec<String>,
    },
    /// The name is a suffix of the names of several functions.
    #[error("{name:?} is ambiguous in this build: write more of the name{}", nearest(.candidates))]
    AmbiguousFunction {
        /// As asked for.
        name: String,
        /// The functions it may mean.
        candidates: Vec<String>,
    },
    /// The function was inlined wherever it is called, so it never returns by itself.
    #[error("{name:?} has no return in this build: it is inlined into {}; trace its entry, or a line behind the call", .callers.join(", "))]
    NoReturn {
        /// As asked for.
        name: String,
        /// Functions that hold its copies.
        callers: Vec<String>,
    },
    /// Tracing this function could harm the process.
    #[error("{function} cannot be traced: {why}; choose a place in the code that calls it")]
    Denied {
        /// The function.
        function: String,
        /// Why.
        why: &'static str,
    },
    /// A condition or a capture for a function of which nothing but its symbol is known.
    #[error(
        "nothing but the name of {function} is known, so it has no variables: trace it without a condition and without captures"
    )]
    OnlyName {
        /// The function.
        function: String,
    },
    /// A pattern that means too many functions.
    #[error("{pattern} means {count} functions of this build ({} ..), and one tracepoint may mean {max}: write more of their names", .some.join(", "), max = riptrace_protocol::limits::PATTERN_FUNCTIONS_MAX)]
    TooManyFunctions {
        /// As asked for.
        pattern: String,
        /// How many it means.
        count: usize,
        /// The first of them.
        some: Vec<String>,
    },
    /// Too many addresses.
    #[error("{count} addresses belong to this location, and one tracepoint may have {max}; choose a more specific line", max = riptrace_protocol::limits::PROBE_SITES_MAX)]
    TooManySites {
        /// How many.
        count: usize,
    },
}

impl ResolveError {
    /// Whether the build simply has no code for the place: it is another program, or was built from other text.
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            ResolveError::NoSuchFile { .. } | ResolveError::NoCode { .. } | ResolveError::NoSuchFunction { .. }
        )
    }
}

fn nearest(candidates: &[String]) -> String {
    if candidates.is_empty() { String::new() } else { format!(" (candidates: {})", candidates.join(", ")) }
}

fn nearest_lines(lines: &[u32]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let lines: Vec<String> = lines.iter().map(u32::to_string).collect();
    format!("; the nearest lines with code: {}", lines.join(", "))
}

impl From<gimli::Error> for ResolveError {
    fn from(error: gimli::Error) -> ResolveError {
        ResolveError::BadDwarf(error.to_string())
    }
}
