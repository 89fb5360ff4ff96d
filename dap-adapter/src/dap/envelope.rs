//! Envelope of the messages: `seq`, `type`, and what belongs to each type. The content of requests, responses and
//! events is [`super::types`]' business.
//!
//! The `dap` crate's own envelope is not used: it loses `seq` where it does not know the command, and writes reverse
//! requests and errors in forms that no editor reads.

use serde_json::{Value, json};

/// A message from the editor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Incoming {
    /// A request: answered exactly once.
    Request {
        /// Its number.
        seq: i64,
        /// What is asked.
        command: String,
        /// Arguments, as they came.
        arguments: Option<Value>,
    },
    /// An answer to a request of ours; RipTrace sends none, so it is ignored.
    Response,
}

/// A body that is no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// Number of the request, where it could be made out: then it is answered with an error.
    pub(crate) seq: Option<i64>,
    /// Its command, where it could be made out.
    pub(crate) command: Option<String>,
    /// What is wrong.
    pub(crate) why: String,
}

/// Reads the body of a message.
pub(crate) fn parse(body: &[u8]) -> Result<Incoming, Malformed> {
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        let text = String::from_utf8_lossy(body);
        Malformed {
            seq: scan(&text, "seq").and_then(|rest| digits(rest).parse().ok()),
            command: scan(&text, "command").and_then(quoted),
            why: format!("the message is not JSON: {error}"),
        }
    })?;
    let seq = value.get("seq").and_then(Value::as_i64);
    let command = value.get("command").and_then(Value::as_str).map(str::to_owned);
    let malformed = |why: &str| Err(Malformed { seq, command: command.clone(), why: why.to_owned() });
    match value.get("type").and_then(Value::as_str) {
        Some("request") => match (seq, &command) {
            (Some(seq), Some(command)) => {
                Ok(Incoming::Request { seq, command: command.clone(), arguments: value.get("arguments").cloned() })
            }
            (None, _) => malformed("the request has no whole number as \"seq\""),
            (_, None) => malformed("the request has no text as \"command\""),
        },
        Some("response") => Ok(Incoming::Response),
        Some(_) => malformed("the \"type\" of a message from an editor is \"request\" or \"response\""),
        None => malformed("the message has no \"type\""),
    }
}

/// The text behind `"key":`.
fn scan<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let quoted = format!("\"{key}\"");
    let rest = &text[text.find(&quoted)? + quoted.len()..];
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}

fn digits(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    &text[..end]
}

fn quoted(text: &str) -> Option<String> {
    let rest = text.strip_prefix('"')?;
    let end = rest.find(['"', '\\'])?;
    Some(rest[..end].to_owned())
}

/// A message to the editor, before it is numbered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outgoing {
    /// The answer to a request.
    Response {
        /// `seq` of the request.
        request_seq: i64,
        /// Its command.
        command: String,
        /// Body, or why the request failed.
        outcome: Result<Option<Value>, Failure>,
    },
    /// An event.
    Event {
        /// Its name.
        event: String,
        /// Its body.
        body: Option<Value>,
    },
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What is wrong and what to do, for a person.
    pub(crate) message: String,
    /// Whether the editor should show it in a notification; else only where it was asked.
    pub(crate) show_user: bool,
    /// Whether the request was cancelled by the editor.
    pub(crate) cancelled: bool,
}

impl Failure {
    /// Shown where it was asked.
    pub(crate) fn quiet(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), show_user: false, cancelled: false }
    }

    /// Shown in a notification.
    pub(crate) fn shown(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), show_user: true, cancelled: false }
    }

    /// The editor took the request back.
    pub(crate) fn cancelled() -> Failure {
        Failure { message: "cancelled".to_owned(), show_user: false, cancelled: true }
    }
}

/// Id of all error messages: the texts tell them apart.
const ERROR_ID: i64 = 1;

impl Outgoing {
    /// The message with its number.
    pub(crate) fn into_value(self, seq: i64) -> Value {
        match self {
            Outgoing::Response { request_seq, command, outcome } => {
                let mut message = json!({
                    "seq": seq, "type": "response", "request_seq": request_seq, "command": command,
                    "success": outcome.is_ok(),
                });
                match outcome {
                    Ok(Some(body)) => message["body"] = body,
                    Ok(None) => {}
                    Err(failure) => {
                        // The text is a variable of the format: it may hold braces, which a format would replace.
                        message["body"] = json!({"error": {
                            "id": ERROR_ID, "format": "{reason}", "variables": {"reason": failure.message},
                            "showUser": failure.show_user,
                        }});
                        message["message"] =
                            if failure.cancelled { "cancelled".into() } else { Value::String(failure.message) };
                    }
                }
                message
            }
            Outgoing::Event { event, body } => {
                let mut message = json!({"seq": seq, "type": "event", "event": event});
                if let Some(body) = body {
                    message["body"] = body;
                }
                message
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_its_arguments_as_they_came() {
        let incoming = parse(br#"{"seq":3,"type":"request","command":"x/y","arguments":{"a":[1]}}"#).unwrap();
        let expect = Incoming::Request { seq: 3, command: "x/y".into(), arguments: Some(json!({"a": [1]})) };
        assert_eq!(incoming, expect);
    }

    #[test]
    fn what_can_be_made_out_of_a_broken_request_is_kept_for_the_answer() {
        for (body, seq, command) in [
            (r#"{"seq": 12, "command":"threads", "arguments": {"#, Some(12), Some("threads")),
            (r#"{"seq":12,"type":"request","arguments":{}}"#, Some(12), None),
            (r#"{"type":"request","command":"threads"}"#, None, Some("threads")),
            (r#"{"seq":4,"type":"hello","command":"threads"}"#, Some(4), Some("threads")),
            ("[]", None, None),
            ("\u{fffd}", None, None),
            (r#"{"seq":"x","command":"a\"b"#, None, Some("a")),
        ] {
            let malformed = parse(body.as_bytes()).unwrap_err();
            assert_eq!((malformed.seq, malformed.command.as_deref()), (seq, command), "{body}");
        }
    }

    #[test]
    fn a_failure_holds_its_command_and_an_error_body() {
        let outcome = Err(Failure::shown("no {fleet}"));
        let response = Outgoing::Response { request_seq: 2, command: "attach".into(), outcome };
        let message = response.into_value(5);
        assert_eq!(message["command"], "attach");
        assert_eq!(message["success"], false);
        assert_eq!(message["message"], "no {fleet}");
        assert_eq!(message["body"]["error"]["variables"]["reason"], "no {fleet}");
    }
}
