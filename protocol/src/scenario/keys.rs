//! The keys of a scenario, for editors. A test holds them against what is read.

/// A key of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// The table it belongs to; empty at the top.
    pub table: &'static str,
    /// What it means, in a sentence or two.
    pub meaning: &'static str,
    /// A whole line (or table) that sets it, as an example.
    pub example: &'static str,
}

const fn key(table: &'static str, name: &'static str, meaning: &'static str, example: &'static str) -> Key {
    Key { name, table, meaning, example }
}

/// All keys: those of the top first, then by their tables.
pub const KEYS: [Key; 30] = [
    key("", "version", "Version of the format; else 1.", "version = 1"),
    key("", "name", "What the scenario is called; else as its file.", "name = \"an order is paid once\""),
    key("", "within", "How long it may take, from the stimulus on; else 30s.", "within = \"10s\""),
    key(
        "",
        "settle",
        "How long is watched, when all else was seen, for what must not come; else 1s.",
        "settle = \"500ms\"",
    ),
    key(
        "",
        "tracepoint",
        "What is watched. May be given several times.",
        "[[tracepoint]]\nname = \"charge\"\nat = \"payment/charge.go:42\"",
    ),
    key(
        "",
        "stimulus",
        "What sets it off: a program, or a request. Without it, what happens anyway is watched.",
        "[stimulus]\nhttp = \"POST http://127.0.0.1:8080/orders\"",
    ),
    key(
        "",
        "expect",
        "One thing that must be seen. May be given several times; all must hold.",
        "[[expect]]\ntracepoint = \"charge\"\ncount = 1",
    ),
    key("tracepoint", "name", "What expectations call it; else as `at` says.", "name = \"charge\""),
    key("tracepoint", "at", "Where: FILE:LINE, or a function (`NAME:return`).", "at = \"payment/charge.go:42\""),
    key("tracepoint", "where", "In which processes; else in all.", "where = \"service=payment\""),
    key("tracepoint", "when", "Expression that a passage must fulfil; else each counts.", "when = \"amount > 0\""),
    key(
        "tracepoint",
        "capture",
        "Expressions to capture besides what is in scope. Limits of its own stand behind one: `order.Lines with elements=500`.",
        "capture = [\"order.ID\"]",
    ),
    key(
        "tracepoint",
        "log",
        "What a report says of each hit, with `{expression}`s.",
        "log = \"{amount} of {order.ID}\"",
    ),
    key(
        "tracepoint",
        "rate",
        "Hits per second and process, or `\"none\"`; else as `riptrace.toml` says. Others are dropped, which is told.",
        "rate = 5000",
    ),
    key(
        "tracepoint",
        "mode",
        "`\"hit\"`, or `\"count\"`: passages are counted where they happen, and have neither values nor times.",
        "mode = \"count\"",
    ),
    key(
        "stimulus",
        "run",
        "A program with its arguments; it must end with 0.",
        "run = [\"./order\", \"--sku\", \"tea\"]",
    ),
    key("stimulus", "http", "A request: its method and its URL.", "http = \"POST http://127.0.0.1:8080/orders\""),
    key("stimulus", "headers", "Headers of the request.", "headers = { \"Content-Type\" = \"application/json\" }"),
    key("stimulus", "body", "What the request sends.", "body = \"{}\""),
    key("stimulus", "status", "What the request must answer; else any of 200 to 299.", "status = 201"),
    key("expect", "tracepoint", "The tracepoint whose hits are looked at.", "tracepoint = \"charge\""),
    key(
        "expect",
        "count",
        "How many hits: `3`, `\"1..3\"`, `\"2..\"`, `\"..5\"`; else at least one. Beside dropped hits no greatest number holds.",
        "count = 1",
    ),
    key("expect", "each", "Expression that holds in each of its hits.", "each = \"amount == 1295\""),
    key("expect", "some", "Expression that holds in one of its hits at least.", "some = \"amount > 1000\""),
    key(
        "expect",
        "order",
        "Tracepoints whose first hits come in this order, over all hosts.",
        "order = [\"reserve\", \"charge\"]",
    ),
    key("expect", "absent", "A tracepoint that has no hit, and none dropped.", "absent = \"refund\""),
    key("expect", "from", "Time is counted from the first hit of this one.", "from = \"reserve\""),
    key("expect", "to", "Time is counted to the first hit of this one.", "to = \"charge\""),
    key("expect", "at_most", "The longest time between the two.", "at_most = \"50ms\""),
    key("expect", "at_least", "The shortest time between the two.", "at_least = \"1ms\""),
];

/// Words that other debuggers, and RipTrace itself elsewhere, have for what a scenario calls otherwise.
pub(super) const MEANT: [(&str, &str); 16] = [
    ("timeout", "within"),
    ("deadline", "within"),
    ("tracepoints", "tracepoint"),
    ("breakpoint", "tracepoint"),
    ("assert", "expect"),
    ("location", "at"),
    ("line", "at"),
    ("function", "at"),
    ("selector", "where"),
    ("condition", "when"),
    ("if", "when"),
    ("logMessage", "log"),
    ("message", "log"),
    ("command", "run"),
    ("url", "http"),
    ("hits", "count"),
];
