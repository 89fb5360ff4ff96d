//! Exception breakpoints: places that every failure of a kind passes, as tracepoints; and the kinds of breakpoints that
//! RipTrace does not have.
//!
//! A panic or a throw is a function of the language's runtime. An `error` that is not nil is told at the returns of the
//! functions that the person names: each return is recorded, and only those with an error are shown; the others are
//! counted in the breakpoint's message, as are those whose error could not be read.

use super::super::envelope::Failure;
use super::super::types::{
    Breakpoint as DapBreakpoint, Command, DataBreakpointInfoArguments, DataBreakpointInfoResponse,
    ExceptionBreakpointsFilter, ExceptionFilterOptions, ResponseBody, SetDataBreakpointsResponse,
    SetExceptionBreakpointsArguments, SetInstructionBreakpointsResponse,
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
        (Status::Exact | Status::Truncated { .. } | Status::Partial { .. }, _) if !value.value.is_empty() => {
            Some(value.value == "nil")
        }
        _ => None,
    }
}

impl State {
    pub(super) fn set_exception_breakpoints(
        &mut self,
        turn: &mut Turn<'_>,
        asked: Asked,
        arguments: SetExceptionBreakpointsArguments,
    ) {
        let plain = |filter_id| ExceptionFilterOptions { filter_id, condition: None };
        let options = arguments.filters.into_iter().map(plain).chain(arguments.filter_options.unwrap_or_default());
        let specs = options.map(|option| spec(&option.filter_id, option.condition)).collect();
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
        let message = thrown.as_ref().map_or_else(|| "what was thrown was not captured".to_owned(), text::value_text);
        let stack: Vec<String> = self
            .dictionaries
            .stack(&hit)
            .into_iter()
            .map(|entry| match entry.frame {
                Some(frame) => format!("{}\n\t{}:{}", frame.function, frame.file, frame.line),
                None => format!("{:#x}", entry.pc.0),
            })
            .collect();
        Ok(json!({
            "exceptionId": kind.label(),
            "description": message,
            "breakMode": "always",
            "details": {
                "message": message,
                "typeName": thrown.as_ref().map_or("", |value| value.type_name.as_str()),
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

/// What a filter asks for.
fn spec(filter: &str, condition: Option<String>) -> Spec {
    let condition = condition.filter(|condition| !condition.trim().is_empty());
    let spec = |at, condition| Spec {
        at,
        condition,
        hit_condition: None,
        log_message: None,
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
        let opaque = Value::missing("err", "error", Status::NotCaptured { detail: "interface".into() });
        assert_eq!(nil(&opaque), None);
    }

    #[test]
    fn each_filter_is_offered_and_known_again() {
        for filter in filters() {
            let spec = spec(&filter.filter, Some("main.f, store.Save:return".into()));
            assert_eq!(spec.exception.map(Exception::label), Some(filter.label.as_str()));
        }
        assert_eq!(
            spec("go-error", Some("main.f, store.Save:return".into())).at,
            At::Functions(vec!["main.f:return".into(), "store.Save:return".into()])
        );
        assert!(matches!(spec("go-error", None).at, At::Nowhere(_)));
        assert!(matches!(spec("x", None).at, At::Nowhere(_)));
    }
}
