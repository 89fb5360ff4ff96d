//! Every request of the protocol, and what RipTrace does with it: the table of `DAP.md` is made of this one.
//!
//! The table is data beside the code that acts; tests hold it to the commands that are read, to the capabilities that
//! are offered, and to what the state machine answers.

/// Whether a request does what the protocol says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Support {
    /// It does.
    Full,
    /// It is answered, and says why RipTrace cannot do more.
    Honest,
    /// It is refused with the reason.
    Refused,
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Its command.
    pub(crate) command: &'static str,
    /// Whether it does what the protocol says.
    pub(crate) support: Support,
    /// What RipTrace does.
    pub(crate) does: &'static str,
}

const fn entry(command: &'static str, support: Support, does: &'static str) -> Entry {
    Entry { command, support, does }
}

use Support::{Full, Honest, Refused};

/// The requests of the protocol.
pub(crate) const REQUESTS: &[Entry] = &[
    entry("initialize", Full, "offers exactly what this table says"),
    entry("attach", Full, "joins a fleet"),
    entry("launch", Full, "opens a recording, without any fleet"),
    entry("configurationDone", Full, "from here on the first hit of a breakpoint opens the timeline"),
    entry(
        "restart",
        Full,
        "arms all breakpoints anew and empties the timeline; a recording begins at its first hit again",
    ),
    entry("terminate", Full, "takes the session's tracepoints out; the services run on"),
    entry("disconnect", Full, "the same, and ends the conversation; `terminateDebuggee` is never obeyed"),
    entry("cancel", Full, "takes back an attach, a launch or a save, by request or by progress"),
    entry(
        "setBreakpoints",
        Full,
        "a fleet-wide tracepoint each: condition, hit condition, log message, mode (snapshot, log, count, metric); the line \
        is mapped to each build. Hits that are already there are asked anew",
    ),
    entry(
        "setFunctionBreakpoints",
        Full,
        "`NAME` is a function's entry, `NAME:return` its returns with their results, `NAME:call` both, with durations; with \
        a `*` it is a pattern (`main.*`, `*.Handle*:return`) of at most 100 functions; a mode may stand behind the name \
        (`main.f count`)",
    ),
    entry(
        "setExceptionBreakpoints",
        Full,
        "`go-panic`, `go-error` (its condition names functions; their returns with an error that is not nil), `rust-panic`, \
        `cpp-throw`; each with a mode (snapshot, log; count where the results do not decide)",
    ),
    entry(
        "breakpointLocations",
        Full,
        "the lines that have code in some running build, by its line tables; where its agent does not answer, the lines \
        of its text",
    ),
    entry(
        "dataBreakpointInfo",
        Honest,
        "says that memory cannot be watched without stopping threads, and what to do instead",
    ),
    entry("setDataBreakpoints", Honest, "each stays unverified, with that reason"),
    entry(
        "setInstructionBreakpoints",
        Honest,
        "each stays unverified: lines and functions are traced, not instructions",
    ),
    entry("continue", Full, "the next hit of a breakpoint in fleet order; at the newest, the next that comes"),
    entry("reverseContinue", Full, "the hit before"),
    entry("next", Full, "the next hit of the same goroutine (or thread)"),
    entry("stepBack", Full, "the one before"),
    entry("stepIn", Full, "the next hit of the same request on another process; needs `correlate`, and says so"),
    entry("stepOut", Full, "the hit on another process that the request came from; needs `correlate`, and says so"),
    entry("stepInTargets", Refused, "is not offered: a request has one next hit"),
    entry("gotoTargets", Full, "the recorded hits of a line"),
    entry("goto", Full, "opens one of them"),
    entry("pause", Full, "opens the newest hit"),
    entry("restartFrame", Refused, "nothing is executed anew"),
    entry("threads", Full, "the fleet (id 1), and each goroutine (or thread) that has hits, the newest 200"),
    entry("stackTrace", Full, "of the open hit; ranges are honoured"),
    entry(
        "scopes",
        Full,
        "arguments, locals, results, package variables and other captures that were asked for, and the hit itself (of Go with the goroutine's creator and, where the tracepoint has a limit of hits per second, as it has by default, its pprof labels)",
    ),
    entry(
        "variables",
        Full,
        "in pages, named and indexed, in hexadecimal on request, with the place of their declaration",
    ),
    entry("locations", Full, "where a variable is declared, and a Go function that is its value"),
    entry("setVariable", Refused, "RipTrace never changes a running service"),
    entry("setExpression", Refused, "RipTrace never changes a running service"),
    entry(
        "evaluate",
        Full,
        "expressions over the captured values, for watch, hover, console and clipboard; commands in the console",
    ),
    entry("completions", Full, "variables, fields behind a dot, commands"),
    entry("source", Full, "the text that was deployed, from the local clone"),
    entry("loadedSources", Full, "the files that hits came from, as they are here and as they were deployed"),
    entry("modules", Full, "the builds of the fleet"),
    entry("exceptionInfo", Full, "what was thrown, where it was captured, and the stack"),
    entry("readMemory", Refused, "only what a hit captured is there"),
    entry("writeMemory", Refused, "RipTrace never changes a running service"),
    entry("disassemble", Refused, "only what a hit captured is there"),
    entry("terminateThreads", Refused, "RipTrace never ends a thread of a running service"),
];

/// RipTrace's own requests, without their `riptrace/`.
pub(crate) const OWN: &[Entry] = &[
    entry("fleet", Full, "hosts, processes, builds and tracepoints with their states and rates"),
    entry("timelinePage", Full, "a page of hits, filtered"),
    entry("timelineOverview", Full, "hits per service and piece of time"),
    entry("timeline", Full, "a page of hits with all values"),
    entry("statistics", Full, "what arrived and what is missing, in numbers"),
    entry("openHit", Full, "makes a hit the current one"),
    entry("capture", Full, "captures an expression with the next hits of a breakpoint"),
    entry("save", Full, "writes the session's hits into a recording"),
];

/// The table of `DAP.md`.
pub(crate) fn table() -> String {
    let mut table = String::from("| request | | what RipTrace does |\n| --- | --- | --- |\n");
    let named = REQUESTS.iter().map(|entry| (entry.command.to_owned(), entry));
    let own = OWN.iter().map(|entry| (format!("riptrace/{}", entry.command), entry));
    for (command, entry) in named.chain(own) {
        let support = match entry.support {
            Full => "yes",
            Honest => "answered",
            Refused => "refused",
        };
        table.push_str(&format!("| `{command}` | {support} | {} |\n", entry.does));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::types::known_commands;
    use super::*;
    use std::collections::BTreeSet;

    const BEGIN: &str =
        "<!-- The table is made by the crate's tests from src/dap/requests.rs: UPDATE=1 writes it. -->\n";
    const END: &str = "<!-- end of the table -->\n";

    #[test]
    fn each_command_that_is_read_has_one_entry() {
        let mut listed: Vec<&str> = REQUESTS.iter().map(|entry| entry.command).collect();
        listed.sort_unstable();
        let known: BTreeSet<&str> = known_commands().collect();
        assert_eq!(listed, known.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn the_documents_table_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/DAP.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (before, rest) = text.split_once(BEGIN).expect("DAP.md has the beginning of the table");
        let (table_there, after) = rest.split_once(END).expect("DAP.md has the end of the table");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, format!("{before}{BEGIN}\n{}\n{END}{after}", table())).unwrap();
            return;
        }
        assert_eq!(table_there.trim(), table().trim(), "run this test with UPDATE=1 and read the difference");
    }
}
