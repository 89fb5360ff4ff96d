//! The one module that knows the crate `dap`: its types for requests, responses and events, under our own envelope.
//!
//! The crate (0.4.1-alpha1) describes version 1.62 of the protocol and has defects that this module mends, so that
//! no other module has to know of them:
//! - **casing**: `Source`, `SourceBreakpoint`, `Breakpoint`, `ExceptionBreakpointsFilter` and `ContinueResponse` lack
//!   their renames, so `logMessage` and `hitCondition` would be dropped without a word. Names are changed per command
//!   and type, never in every object: keys of launch configurations are the user's.
//! - **arguments**: commands without arguments must not have any (`{}` is refused by the crate), all others must have
//!   an object (absence is refused); both are legal in the protocol.
//! - **unknown commands** are an error that has lost the request's number: they are told apart before.
//! - **enumerations** without a word for the unknown (`filter`, `granularity`, `presentationHint`) refuse the request.
//! - **nulls** are written for what is absent; the words "deemphasize" and "function breakpoint" are misspelt.
//!
//! What the crate lacks (`supportsANSIStyling`, the response to `cancel`) is added here as well.

pub(crate) use ::dap::events::{
    BreakpointEventBody, Event, ModuleEventBody, OutputEventBody, StoppedEventBody, ThreadEventBody,
};
pub(crate) use ::dap::requests::{
    BreakpointLocationsArguments, CancelArguments, Command, CompletionsArguments, DataBreakpointInfoArguments,
    EvaluateArguments, GotoTargetsArguments, InitializeArguments, PathFormat, RestartArguments,
    SetBreakpointsArguments, SetExceptionBreakpointsArguments, StackTraceArguments, VariablesArguments,
};
pub(crate) use ::dap::responses::{
    CompletionsResponse, ContinueResponse, DataBreakpointInfoResponse, EvaluateResponse, LoadedSourcesResponse,
    ModulesResponse, ResponseBody, ScopesResponse, SetBreakpointsResponse, SetDataBreakpointsResponse,
    SetExceptionBreakpointsResponse, SetFunctionBreakpointsResponse, SetInstructionBreakpointsResponse,
    StackTraceResponse, ThreadsResponse, VariablesResponse,
};
pub(crate) use ::dap::types::{
    Breakpoint, BreakpointEventReason, Capabilities, CompletionItem, CompletionItemType, EvaluateArgumentsContext,
    ExceptionBreakpointsFilter, FunctionBreakpoint, Module, ModuleEventReason, ModuleId, OutputEventCategory,
    PresentationHint, Scope, ScopePresentationhint, Source, SourceBreakpoint, StackFrame, StackFramePresentationhint,
    StoppedEventReason, Thread, ThreadEventReason, Variable, VariablePresentationHint,
    VariablePresentationHintAttributes, VariablePresentationHintKind, VariablesArgumentsFilter,
};

use serde_json::{Map, Value, json};

/// Commands of which the crate wants no arguments.
const WITHOUT_ARGUMENTS: &[&str] = &["configurationDone", "loadedSources", "threads"];

/// Commands that the crate knows, with arguments.
const WITH_ARGUMENTS: &[&str] = &[
    "attach",
    "breakpointLocations",
    "cancel",
    "completions",
    "continue",
    "dataBreakpointInfo",
    "disassemble",
    "disconnect",
    "evaluate",
    "exceptionInfo",
    "goto",
    "gotoTargets",
    "initialize",
    "launch",
    "modules",
    "next",
    "pause",
    "readMemory",
    "restart",
    "restartFrame",
    "reverseContinue",
    "scopes",
    "setBreakpoints",
    "setDataBreakpoints",
    "setExceptionBreakpoints",
    "setExpression",
    "setFunctionBreakpoints",
    "setInstructionBreakpoints",
    "setVariable",
    "source",
    "stackTrace",
    "stepBack",
    "stepIn",
    "stepInTargets",
    "stepOut",
    "terminate",
    "terminateThreads",
    "variables",
    "writeMemory",
];

/// Commands of the protocol that are newer than the crate.
const NEWER: &[&str] = &["locations"];

/// The commands of the protocol that are read.
#[cfg(test)]
pub(crate) fn known_commands() -> impl Iterator<Item = &'static str> {
    [WITHOUT_ARGUMENTS, WITH_ARGUMENTS, NEWER].into_iter().flatten().copied()
}

/// A request with its arguments understood.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    /// A request of the protocol.
    Known(Box<Command>),
    /// A request of RipTrace's own (`riptrace/..`).
    Custom {
        /// What is behind `riptrace/`.
        name: String,
        /// Its arguments; an object.
        arguments: Value,
    },
    /// A request of the protocol that is newer than the crate.
    Newer {
        /// Its command.
        name: &'static str,
        /// Its arguments; an object.
        arguments: Value,
    },
    /// A request that nobody here knows.
    Unknown,
}

/// Arguments that do not fit the command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadArguments {
    /// Not an object.
    #[error("the arguments of '{command}' must be an object")]
    NotAnObject {
        /// The command.
        command: String,
    },
    /// A field is missing or of another type.
    #[error("the arguments of '{command}' cannot be read: {detail}")]
    Malformed {
        /// The command.
        command: String,
        /// What serde says.
        detail: String,
    },
}

/// Reads a request's command and arguments.
pub(crate) fn parse_request(command: &str, arguments: Option<Value>) -> Result<Request, BadArguments> {
    let mut arguments = match arguments {
        None | Some(Value::Null) => json!({}),
        Some(object @ Value::Object(_)) => object,
        Some(_) => return Err(BadArguments::NotAnObject { command: command.to_owned() }),
    };
    let tagged = if WITHOUT_ARGUMENTS.contains(&command) {
        json!({"command": command})
    } else if WITH_ARGUMENTS.contains(&command) {
        normalise(command, &mut arguments);
        json!({"command": command, "arguments": arguments})
    } else if let Some(name) = NEWER.iter().find(|name| **name == command) {
        return Ok(Request::Newer { name, arguments });
    } else if let Some(name) = command.strip_prefix("riptrace/") {
        return Ok(Request::Custom { name: name.to_owned(), arguments });
    } else {
        return Ok(Request::Unknown);
    };
    serde_json::from_value(tagged)
        .map(|command| Request::Known(Box::new(command)))
        .map_err(|error| BadArguments::Malformed { command: command.to_owned(), detail: error.to_string() })
}

/// The modes of the breakpoints that a request sets, in their order: newer than the crate's types.
pub(crate) fn modes(command: &str, arguments: Option<&Value>) -> Vec<Option<String>> {
    let list = match command {
        "setBreakpoints" | "setFunctionBreakpoints" => "breakpoints",
        "setExceptionBreakpoints" => "filterOptions",
        _ => return Vec::new(),
    };
    let breakpoints = arguments.and_then(|arguments| arguments.get(list)).and_then(Value::as_array);
    let mode = |breakpoint: &Value| breakpoint.get("mode").and_then(Value::as_str).map(str::to_owned);
    breakpoints.into_iter().flatten().map(mode).map(|mode| mode.filter(|mode| !mode.is_empty())).collect()
}

/// Brings arguments into the form that the crate reads.
fn normalise(command: &str, arguments: &mut Value) {
    let Value::Object(arguments) = arguments else { return };
    match command {
        "initialize" => default(arguments, "adapterID", json!("")),
        "setBreakpoints" => {
            source_in(arguments);
            for breakpoint in objects(arguments, "breakpoints") {
                rename(breakpoint, "hitCondition", "hit_condition");
                rename(breakpoint, "logMessage", "log_message");
            }
        }
        "source" => {
            source_in(arguments);
            default(arguments, "sourceReference", json!(0));
        }
        "breakpointLocations" | "gotoTargets" => source_in(arguments),
        "setExceptionBreakpoints" => default(arguments, "filters", json!([])),
        "setFunctionBreakpoints" | "setDataBreakpoints" | "setInstructionBreakpoints" => {
            default(arguments, "breakpoints", json!([]));
        }
        "variables" => keep_if(arguments, "filter", &["indexed", "named"]),
        "next" | "stepBack" | "stepIn" | "stepOut" => {
            keep_if(arguments, "granularity", &["statement", "line", "instruction"]);
        }
        _ => {}
    }
}

/// A `Source` from the editor: only what tells which file is meant is kept; its other fields are in words that the
/// crate does not know.
fn source_in(arguments: &mut Map<String, Value>) {
    if let Some(Value::Object(source)) = arguments.get_mut("source") {
        source.retain(|key, value| matches!(key.as_str(), "name" | "path" | "sourceReference") && !value.is_null());
        rename(source, "sourceReference", "source_reference");
    }
}

fn default(object: &mut Map<String, Value>, key: &str, value: Value) {
    if object.get(key).is_none_or(Value::is_null) {
        object.insert(key.to_owned(), value);
    }
}

fn keep_if(object: &mut Map<String, Value>, key: &str, known: &[&str]) {
    if object.get(key).is_some_and(|value| value.as_str().is_none_or(|text| !known.contains(&text))) {
        object.remove(key);
    }
}

fn rename(object: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = object.remove(from) {
        object.insert(to.to_owned(), value);
    }
}

fn objects<'a>(object: &'a mut Map<String, Value>, key: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    object.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

/// The body of a response, as the protocol spells it.
pub(crate) fn response_body(body: ResponseBody) -> Result<Option<Value>, serde_json::Error> {
    let keep_nulls = matches!(body, ResponseBody::DataBreakpointInfo(_));
    let is_capabilities = matches!(body, ResponseBody::Initialize(_));
    let Some(mut body) = content(serde_json::to_value(body)?) else { return Ok(None) };
    if let Value::Object(object) = &mut body {
        if !keep_nulls {
            object.retain(|_, value| !value.is_null());
        }
        rename(object, "all_threads_continued", "allThreadsContinued");
        if is_capabilities {
            // Newer than the crate: colours in output events are meant as such.
            object.insert("supportsANSIStyling".to_owned(), json!(true));
        }
        for filter in objects(object, "exceptionBreakpointFilters") {
            rename(filter, "supports_condition", "supportsCondition");
            rename(filter, "condition_description", "conditionDescription");
        }
        for breakpoint in objects(object, "breakpoints") {
            breakpoint_out(breakpoint);
        }
        for frame in objects(object, "stackFrames") {
            nested_source_out(frame);
        }
        for scope in objects(object, "scopes") {
            nested_source_out(scope);
        }
        for source in objects(object, "sources") {
            source_out(source);
        }
    }
    Ok(Some(body))
}

/// The name and body of an event, as the protocol spells them.
pub(crate) fn event(event: Event) -> Result<(String, Option<Value>), serde_json::Error> {
    let value = serde_json::to_value(event)?;
    let name = value["event"].as_str().unwrap_or_default().to_owned();
    let mut body = content(value);
    if let Some(Value::Object(object)) = &mut body {
        object.retain(|_, value| !value.is_null());
        nested_source_out(object);
        if let Some(Value::Object(breakpoint)) = object.get_mut("breakpoint") {
            breakpoint_out(breakpoint);
        }
    }
    Ok((name, body))
}

/// `body` of the crate's adjacently tagged value.
fn content(mut tagged: Value) -> Option<Value> {
    tagged.as_object_mut()?.remove("body").filter(|body| !body.is_null())
}

fn nested_source_out(object: &mut Map<String, Value>) {
    if let Some(Value::Object(source)) = object.get_mut("source") {
        source_out(source);
    }
}

fn source_out(source: &mut Map<String, Value>) {
    rename(source, "source_reference", "sourceReference");
    rename(source, "presentation_hint", "presentationHint");
    rename(source, "adapter_data", "adapterData");
    if source.get("presentationHint").is_some_and(|hint| hint == "deEmphasize") {
        source.insert("presentationHint".to_owned(), json!("deemphasize"));
    }
}

fn breakpoint_out(breakpoint: &mut Map<String, Value>) {
    rename(breakpoint, "end_line", "endLine");
    rename(breakpoint, "end_column", "endColumn");
    rename(breakpoint, "instruction_reference", "instructionReference");
    nested_source_out(breakpoint);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::dap::events::ContinuedEventBody;

    fn known(command: &str, arguments: Option<Value>) -> Command {
        match parse_request(command, arguments) {
            Ok(Request::Known(command)) => *command,
            other => panic!("{command}: {other:?}"),
        }
    }

    #[test]
    fn log_messages_and_hit_conditions_arrive() {
        let arguments = json!({
            "source": {"path": "/a.go", "sourceReference": 0, "presentationHint": "deemphasize", "checksums": [{"algorithm": "X", "checksum": ""}]},
            "breakpoints": [{"line": 3, "hitCondition": "5", "logMessage": "x={x}", "condition": "x > 1", "mode": "m", "column": 19}],
        });
        let Command::SetBreakpoints(set) = known("setBreakpoints", Some(arguments)) else { panic!() };
        let breakpoint = &set.breakpoints.unwrap()[0];
        assert_eq!(breakpoint.hit_condition.as_deref(), Some("5"));
        assert_eq!(breakpoint.log_message.as_deref(), Some("x={x}"));
        assert_eq!(breakpoint.condition.as_deref(), Some("x > 1"));
        assert_eq!((set.source.path.as_deref(), set.source.source_reference), (Some("/a.go"), Some(0)));
        let arguments = json!({"breakpoints": [{"name": "main.f", "hitCondition": "%2"}]});
        let Command::SetFunctionBreakpoints(set) = known("setFunctionBreakpoints", Some(arguments)) else { panic!() };
        assert_eq!(set.breakpoints[0].hit_condition.as_deref(), Some("%2"));
    }

    #[test]
    fn arguments_may_be_absent_null_or_empty_where_the_protocol_allows_it() {
        for command in [
            "threads",
            "loadedSources",
            "configurationDone",
            "disconnect",
            "terminate",
            "restart",
            "cancel",
            "modules",
            "initialize",
            "attach",
            "launch",
            "setExceptionBreakpoints",
            "setFunctionBreakpoints",
            "source",
            "terminateThreads",
        ] {
            for arguments in [None, Some(Value::Null), Some(json!({}))] {
                known(command, arguments);
            }
        }
    }

    #[test]
    fn each_listed_command_is_known_to_the_crate() {
        for command in WITH_ARGUMENTS.iter().chain(WITHOUT_ARGUMENTS) {
            match parse_request(command, None) {
                Ok(Request::Known(_)) => {}
                Err(BadArguments::Malformed { detail, .. }) => assert!(detail.contains("missing field"), "{detail}"),
                other => panic!("{command}: {other:?}"),
            }
        }
    }

    #[test]
    fn unknown_and_custom_commands_are_told_apart() {
        assert!(matches!(parse_request("locations", None), Ok(Request::Newer { name: "locations", .. })));
        assert!(matches!(parse_request("location", None), Ok(Request::Unknown)));
        assert!(matches!(parse_request("riptrace/fleet", None), Ok(Request::Custom { name, .. }) if name == "fleet"));
        let error = parse_request("threads", Some(json!([]))).unwrap_err();
        assert_eq!(error.to_string(), "the arguments of 'threads' must be an object");
        let error = parse_request("scopes", Some(json!({"frameId": "x"}))).unwrap_err();
        assert!(error.to_string().starts_with("the arguments of 'scopes' cannot be read: "), "{error}");
    }

    #[test]
    fn words_that_the_crate_does_not_know_do_not_refuse_the_request() {
        let arguments = json!({"variablesReference": 1, "filter": "both"});
        let Command::Variables(variables) = known("variables", Some(arguments)) else { panic!() };
        assert!(variables.filter.is_none());
        let arguments = json!({"threadId": 1, "granularity": "word"});
        assert!(matches!(known("next", Some(arguments)), Command::Next(next) if next.granularity.is_none()));
        let arguments = json!({"expression": "x", "context": "minimap", "line": 1, "source": {"path": "/a"}});
        let Command::Evaluate(evaluate) = known("evaluate", Some(arguments)) else { panic!() };
        assert!(matches!(evaluate.context, Some(EvaluateArgumentsContext::String(_))));
    }

    #[test]
    fn keys_of_a_launch_configuration_are_left_alone() {
        let arguments =
            json!({"nats": "x", "hit_condition": 1, "logMessage": {"presentation_hint": 2}, "__restart": null});
        let Command::Attach(attach) = known("attach", Some(arguments)) else { panic!() };
        let rest = attach.additional_data.unwrap();
        assert_eq!(rest["hit_condition"], 1);
        assert_eq!(rest["logMessage"], json!({"presentation_hint": 2}));
    }

    #[test]
    fn sources_and_breakpoints_are_written_as_the_protocol_spells_them() {
        let source = Source {
            name: Some("a.go".into()),
            source_reference: Some(7),
            presentation_hint: Some(PresentationHint::DeEmphasize),
            ..Source::default()
        };
        let source_json = json!({"name": "a.go", "sourceReference": 7, "presentationHint": "deemphasize"});
        let breakpoint = Breakpoint {
            id: Some(1),
            verified: true,
            source: Some(source.clone()),
            end_line: Some(3),
            ..Breakpoint::default()
        };
        let breakpoint_json = json!({"id": 1, "verified": true, "source": source_json, "endLine": 3});
        let set = ResponseBody::SetBreakpoints(SetBreakpointsResponse { breakpoints: vec![breakpoint.clone()] });
        assert_eq!(response_body(set).unwrap(), Some(json!({"breakpoints": [breakpoint_json]})));
        let changed = BreakpointEventBody { reason: BreakpointEventReason::Changed, breakpoint };
        let (name, body) = event(Event::Breakpoint(changed)).unwrap();
        assert_eq!(
            (name.as_str(), body),
            ("breakpoint", Some(json!({"reason": "changed", "breakpoint": breakpoint_json})))
        );
        let sources = ResponseBody::LoadedSources(LoadedSourcesResponse { sources: vec![source.clone()] });
        assert_eq!(response_body(sources).unwrap(), Some(json!({"sources": [source_json]})));
        let frame =
            StackFrame { id: 1, name: "f".into(), source: Some(source), line: 2, column: 0, ..StackFrame::default() };
        let stack = ResponseBody::StackTrace(StackTraceResponse { stack_frames: vec![frame], total_frames: None });
        let frame_json = json!({"id": 1, "name": "f", "source": source_json, "line": 2, "column": 0});
        assert_eq!(response_body(stack).unwrap(), Some(json!({"stackFrames": [frame_json]})));
    }

    #[test]
    fn what_is_absent_is_not_written_as_null() {
        let output = OutputEventBody { output: "x\n".into(), ..OutputEventBody::default() };
        assert_eq!(event(Event::Output(output)).unwrap().1, Some(json!({"output": "x\n"})));
        let continued = ContinuedEventBody { thread_id: 1, all_threads_continued: None };
        assert_eq!(event(Event::Continued(continued)).unwrap().1, Some(json!({"threadId": 1})));
        assert_eq!(event(Event::Terminated(None)).unwrap(), ("terminated".to_owned(), None));
        assert_eq!(event(Event::Initialized).unwrap(), ("initialized".to_owned(), None));
        let info = DataBreakpointInfoResponse { description: "no".into(), ..DataBreakpointInfoResponse::default() };
        let body = response_body(ResponseBody::DataBreakpointInfo(info)).unwrap();
        assert_eq!(body, Some(json!({"dataId": null, "description": "no"})), "null is a value here");
        let body =
            response_body(ResponseBody::Continue(ContinueResponse { all_threads_continued: Some(false) })).unwrap();
        assert_eq!(body, Some(json!({"allThreadsContinued": false})));
        assert_eq!(response_body(ResponseBody::Pause).unwrap(), None);
    }
}
