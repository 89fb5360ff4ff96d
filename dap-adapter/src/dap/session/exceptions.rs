//! Exception breakpoints: places that every failure of a kind passes, as tracepoints; and the kinds of breakpoints that
//! RipTrace does not have.
//!
//! A panic or a throw is a function of the language's runtime. An `error` that is not nil is told at the returns of the
//! functions that the person names: each return is recorded, and only those with an error are shown; the others are
//! counted in the breakpoint's message, as are those whose error could not be read.

use super::super::envelope::Failure;
use super::super::types::{
    Breakpoint as DapBreakpoint, Command, DataBreakpointInfoArguments, DataBreakpointInfoResponse,
    ExceptionBreakpointsFilter, ResponseBody, SetDataBreakpointsResponse, SetExceptionBreakpointsArguments,
    SetInstructionBreakpointsResponse,
};
use super::breakpoints::{At, Owner, Spec};
use super::handles::Thing;
use super::state::{Answer, Asked, State, Turn};
use crate::render::text;
use crate::timeline::values::HitValues;
use riptrace_protocol::layout::Scope;
use riptrace_protocol::stream::OrderedHit;
use riptrace_protocol::value::{Scalar, Status, Value};
use serde_json::json;

/// A kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exception {
    /// `panic(..)` in Go, by the program or by the runtime.
    GoPanic,
    /// A result of type `error` that is not nil.
    GoError,
    /// `panic!` in Rust.
    RustPanic,
    /// `throw` in C++.
    CppThrow,
}

/// What a return says of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorResult {
    /// There is one.
    Error,
    /// There is none.
    Nil,
    /// Nobody knows: the result was not captured, or the function has no `error`.
    Unknown,
}

const KINDS: [Exception; 4] = [Exception::GoPanic, Exception::GoError, Exception::RustPanic, Exception::CppThrow];

impl Exception {
    fn id(self) -> &'static str {
        match self {
            Exception::GoPanic => "go-panic",
            Exception::GoError => "go-error",
            Exception::RustPanic => "rust-panic",
            Exception::CppThrow => "cpp-throw",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Exception::GoPanic => "Go panics",
            Exception::GoError => "Go errors (results that are not nil)",
            Exception::RustPanic => "Rust panics",
            Exception::CppThrow => "C++ throws",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Exception::GoPanic => "Each panic in the fleet's Go programs, recovered or not.",
            Exception::GoError => {
                "Each return of the functions that you name in the condition whose result of type error is not nil."
            }
            Exception::RustPanic => "Each panic in the fleet's Rust programs.",
            Exception::CppThrow => "Each exception that the fleet's C++ programs throw.",
        }
    }

    /// One failure of the kind, where nothing is known of its value.
    fn one(self) -> &'static str {
        match self {
            Exception::GoPanic | Exception::RustPanic => "a panic",
            Exception::GoError => "an error",
            Exception::CppThrow => "an exception",
        }
    }

    fn condition_description(self) -> &'static str {
        match self {
            Exception::GoError => "Functions, e.g. main.(*Cart).Add, store.Save",
            Exception::GoPanic => "An expression over what is captured at the panic, e.g. e != nil",
            _ => "An expression over what is captured there",
        }
    }

    /// Functions that every failure of this kind passes.
    fn functions(self) -> &'static [&'static str] {
        match self {
            Exception::GoPanic => &["runtime.gopanic"],
            Exception::GoError => &[],
            Exception::RustPanic => &["rust_panic"],
            Exception::CppThrow => &["__cxa_throw"],
        }
    }

    /// Whether a function only leads from where a failure began to where it is told: the language's own.
    fn is_machinery(self, function: &str) -> bool {
        let own: &[&str] = match self {
            Exception::GoPanic => &["runtime."],
            Exception::GoError => &[],
            Exception::RustPanic => {
                &["std::", "core::", "alloc::", "__rustc::", "rust_", "<core::", "<alloc::", "<std::"]
            }
            Exception::CppThrow => &["__cxa_", "std::"],
        };
        own.iter().any(|prefix| function.starts_with(prefix))
    }

    /// Whether only the results of a return tell that it is one.
    pub(super) fn is_told_by_result(self) -> bool {
        self == Exception::GoError
    }

    fn of(filter: &str) -> Option<Exception> {
        KINDS.into_iter().find(|kind| kind.id() == filter)
    }
}

/// What `initialize` offers.
pub(super) fn filters() -> Vec<ExceptionBreakpointsFilter> {
    let filter = |kind: Exception| ExceptionBreakpointsFilter {
        filter: kind.id().to_owned(),
        label: kind.label().to_owned(),
        description: Some(kind.description().to_owned()),
        default: Some(false),
        supports_condition: Some(true),
        condition_description: Some(kind.condition_description().to_owned()),
    };
    KINDS.into_iter().map(filter).collect()
}

/// What the results of a return say of an error.
pub(super) fn error_result(values: &HitValues) -> ErrorResult {
    let mut said = ErrorResult::Unknown;
    for (_, value) in values.of(Scope::Result).filter(|(_, value)| value.type_name == "error") {
        match nil(value) {
            Some(false) => return ErrorResult::Error,
            Some(true) => said = ErrorResult::Nil,
            None => {}
        }
    }
    said
}

/// Whether a value is nil; `None` where that is not known.
fn nil(value: &Value) -> Option<bool> {
    match (&value.status, &value.scalar) {
        (_, Some(Scalar::Address(address))) => Some(*address == 0),
        (_, Some(Scalar::Interface { nil })) => Some(*nil),
        (Status::Exact | Status::Truncated { .. } | Status::Partial { .. }, _) if !value.value.is_empty() => {
            Some(value.value == "nil")
        }
        _ => None,
    }
}

impl State {
    /// `modes` are those of the options, in their order.
    pub(super) fn set_exception_breakpoints(
        &mut self,
        turn: &mut Turn<'_>,
        asked: Asked,
        arguments: SetExceptionBreakpointsArguments,
        modes: Vec<Option<String>>,
    ) {
        let plain = arguments.filters.iter().map(|filter| spec(filter, None, None));
        let options = arguments.filter_options.unwrap_or_default().into_iter();
        let options = options.zip(modes.into_iter().chain(std::iter::repeat(None)));
        let options = options.map(|(option, mode)| spec(&option.filter_id, option.condition, mode));
        let specs = plain.chain(options).collect();
        self.replace(turn, asked, Owner::Exceptions, None, specs);
    }

    pub(super) fn exception_info(&mut self, turn: &mut Turn<'_>, asked: Asked, thread_id: i64) {
        let body = self.exception_of_open_hit(thread_id);
        turn.answer_raw(asked, body.map(Some));
    }

    fn exception_of_open_hit(&mut self, thread_id: i64) -> Result<serde_json::Value, Failure> {
        let Some(hit) = self.paused_hit().cloned().filter(|hit| self.threads.of(hit) == Some(thread_id)) else {
            return Err(Failure::quiet("the thread runs: it has an exception while a hit of one is open"));
        };
        let Some(kind) = self.breakpoints.exception_of(&hit.raw.tracepoint) else {
            return Err(Failure::quiet(format!("hit {} is no exception's", hit.seq)));
        };
        let thrown = self.thrown(&hit, kind);
        let Said { type_name, message } = match (&thrown, kind) {
            (None, _) => Said { type_name: None, message: None },
            (Some(value), Exception::CppThrow) => Said { type_name: cpp_type(value), message: None },
            (Some(value), _) => said(value),
        };
        let entries = self.dictionaries.stack(&hit);
        let frames = || entries.iter().filter_map(|entry| entry.frame.as_ref());
        let begun = frames().find(|frame| !kind.is_machinery(&frame.function)).or_else(|| frames().next());
        let place = begun.map_or_else(String::new, |frame| {
            let at = if frame.line > 0 { format!(" at {}:{}", frame.file, frame.line) } else { String::new() };
            format!(" in {}{at}", frame.function)
        });
        let what = match (&message, &type_name) {
            (Some(message), _) => message.clone(),
            (None, Some(type_name)) => format!("a {type_name} whose content was not captured"),
            (None, None) => format!("{} whose value was not captured", kind.one()),
        };
        let stack: Vec<String> = entries
            .iter()
            .map(|entry| match &entry.frame {
                Some(frame) => format!("{}\n\t{}:{}", frame.function, frame.file, frame.line),
                None => format!("{:#x}", entry.pc.0),
            })
            .collect();
        Ok(json!({
            "exceptionId": type_name.as_deref().unwrap_or(kind.label()),
            "description": format!("{what}{place}"),
            "breakMode": "always",
            "details": {
                "message": what,
                "typeName": type_name.unwrap_or_default(),
                "evaluateName": thrown.as_ref().map_or("", |value| value.name.as_str()),
                "stackTrace": stack.join("\n"),
            },
        }))
    }

    /// The value that was thrown, where it was captured.
    fn thrown(&mut self, hit: &OrderedHit, kind: Exception) -> Option<Value> {
        let values = self.values_of(hit);
        let found = match kind {
            Exception::GoError => {
                values.of(Scope::Result).find(|(_, value)| value.type_name == "error" && nil(value) == Some(false))
            }
            _ => values.of(Scope::Argument).next(),
        };
        found.map(|(_, value)| value.clone())
    }

    /// Kinds of breakpoints that RipTrace does not have: an empty set is fine, others are told why not.
    pub(super) fn other_kinds(&mut self, turn: &mut Turn<'_>, asked: Asked, command: Command) {
        let refused = |count: usize, why: &str| -> Vec<DapBreakpoint> {
            (0..count).map(|_| DapBreakpoint { message: Some(why.to_owned()), ..DapBreakpoint::default() }).collect()
        };
        let answer: Answer = Ok(Some(match command {
            Command::SetDataBreakpoints(set) => ResponseBody::SetDataBreakpoints(SetDataBreakpointsResponse {
                breakpoints: refused(set.breakpoints.len(), NO_DATA_BREAKPOINTS),
            }),
            Command::SetInstructionBreakpoints(set) => {
                ResponseBody::SetInstructionBreakpoints(SetInstructionBreakpointsResponse {
                    breakpoints: refused(
                        set.breakpoints.len(),
                        "RipTrace traces lines and functions, not instructions",
                    ),
                })
            }
            Command::DataBreakpointInfo(arguments) => ResponseBody::DataBreakpointInfo(DataBreakpointInfoResponse {
                description: self.why_no_data_breakpoint(&arguments),
                ..DataBreakpointInfoResponse::default()
            }),
            _ => return turn.answer(asked, Err(Failure::quiet("there is no such kind of breakpoint"))),
        }));
        turn.answer(asked, answer);
    }

    fn why_no_data_breakpoint(&mut self, arguments: &DataBreakpointInfoArguments) -> String {
        let name = &arguments.name;
        let known = arguments.variables_reference.and_then(|reference| self.handles.thing(reference));
        match known.as_ref().and_then(Thing::seq) {
            Some(seq) => format!(
                "{name} is what hit {seq} recorded; {NO_DATA_BREAKPOINTS}. Set a breakpoint on the lines that write it, with \
                 a condition on its value"
            ),
            None => format!("{NO_DATA_BREAKPOINTS}: set a breakpoint on the lines that write {name}"),
        }
    }
}

const NO_DATA_BREAKPOINTS: &str = "RipTrace cannot watch memory: that would stop the service's threads";

/// What is known of a failure's value.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    type_name: Option<String>,
    message: Option<String>,
}

/// Of the value of an interface: the type of what it holds, and that in words.
fn said(value: &Value) -> Said {
    let message = || Some(text::value_text(value)).filter(|text| !text.is_empty());
    let Some(held) = value.children.first() else {
        // The type of the interface is not that of the failure.
        let is_interface = matches!(value.scalar, Some(Scalar::Interface { .. }));
        let type_name = Some(value.type_name.clone()).filter(|name| !name.is_empty() && !is_interface);
        return Said { type_name, message: message() };
    };
    // `any(string) "no tea"`, and its one child is `e.(string)`.
    let short = held.name.strip_prefix(&value.name).and_then(|rest| rest.strip_prefix('.'));
    let content = short.and_then(|short| Some(value.value.split_once(&format!("{short} "))?.1.to_owned()));
    let note = held.status.note();
    let content = content.map(|content| if note.is_empty() { content } else { format!("{content} {note}") });
    Said { type_name: Some(held.type_name.clone()), message: content.or_else(message) }
}

/// The type whose name `std::type_info` has: as the mangled name of a type (Itanium C++ ABI, 5.1.5).
fn cpp_type(value: &Value) -> Option<String> {
    let mangled = value.value.trim_matches('"');
    // The name of a type that is local to its file begins with a star in GCC's library.
    let mangled = mangled.strip_prefix('*').unwrap_or(mangled);
    if mangled.is_empty() {
        return None;
    }
    let symbol = cpp_demangle::Symbol::new(format!("_ZTS{mangled}")).ok()?;
    let text = symbol.demangle().ok()?;
    Some(text.strip_prefix("typeinfo name for ").unwrap_or(&text).to_owned())
}

/// What a filter asks for.
fn spec(filter: &str, condition: Option<String>, mode: Option<String>) -> Spec {
    let condition = condition.filter(|condition| !condition.trim().is_empty());
    let spec = |at, condition| Spec {
        at,
        condition,
        hit_condition: None,
        log_message: None,
        mode: mode.clone(),
        exception: Exception::of(filter),
        captures: Vec::new(),
    };
    match Exception::of(filter) {
        None => spec(At::Nowhere(format!("RipTrace has no exception filter {filter:?}")), None),
        Some(Exception::GoError) => {
            let names =
                condition.iter().flat_map(|names| names.split(',')).map(str::trim).filter(|name| !name.is_empty());
            let names: Vec<String> = names.map(|name| format!("{}:return", name.trim_end_matches(":return"))).collect();
            if names.is_empty() {
                let why = "name the functions in its condition, e.g. main.(*Cart).Add, store.Save: their returns are \
                           recorded, and those with an error shown";
                return spec(At::Nowhere(why.to_owned()), None);
            }
            spec(At::Functions(names), None)
        }
        Some(kind) => spec(At::Functions(kind.functions().iter().map(|name| (*name).to_owned()).collect()), condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_nil_only_where_that_is_known() {
        let address = |address| Value { scalar: Some(Scalar::Address(address)), ..Value::exact("err", "error", "x") };
        assert_eq!((nil(&address(0)), nil(&address(1))), (Some(true), Some(false)));
        assert_eq!(nil(&Value::exact("err", "error", "nil")), Some(true));
        assert_eq!(nil(&Value::exact("err", "error", "*errors.errorString {s: \"no\"}")), Some(false));
        let held = |nil| Value {
            scalar: Some(Scalar::Interface { nil }),
            ..Value::missing("err", "error", Status::OptimisedOut)
        };
        assert_eq!((nil(&held(true)), nil(&held(false))), (Some(true), Some(false)));
        let opaque = Value::missing("err", "error", Status::NotCaptured { detail: "interface".into() });
        assert_eq!(nil(&opaque), None);
    }

    #[test]
    fn a_failure_is_told_by_what_the_interface_holds() {
        let text = Value::exact("e.(string)", "string", "\"no tea\"");
        let value = Value { children: vec![text], ..Value::exact("e", "any", "any(string) \"no tea\"") };
        assert_eq!(said(&value), Said { type_name: Some("string".into()), message: Some("\"no tea\"".into()) });
        let other = Value::missing("e", "any", Status::Partial { detail: "its type is main.T".into() });
        let said = said(&other);
        assert!(said.message.is_some_and(|message| message.contains("main.T")));
    }

    #[test]
    fn types_of_cpp_are_written_as_in_the_source() {
        for (mangled, written) in [
            ("\"St13runtime_error\"", Some("std::runtime_error")),
            ("\"i\"", Some("int")),
            ("\"8shortage\"", Some("shortage")),
            ("\"*N3app4GoneE\"", Some("app::Gone")),
            ("\"\"", None),
            ("\"?\"", None),
        ] {
            assert_eq!(cpp_type(&Value::exact("type", "const char *", mangled)).as_deref(), written, "{mangled}");
        }
    }

    #[test]
    fn each_filter_is_offered_and_known_again() {
        for filter in filters() {
            let spec = spec(&filter.filter, Some("main.f, store.Save:return".into()), None);
            assert_eq!(spec.exception.map(Exception::label), Some(filter.label.as_str()));
        }
        assert_eq!(
            spec("go-error", Some("main.f, store.Save:return".into()), None).at,
            At::Functions(vec!["main.f:return".into(), "store.Save:return".into()])
        );
        assert!(matches!(spec("go-error", None, None).at, At::Nowhere(_)));
        assert!(matches!(spec("x", None, None).at, At::Nowhere(_)));
    }
}
