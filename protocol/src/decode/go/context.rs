//! Contexts: the chain from the outermost one inwards, with the keys and values that it carries.
//!
//! Source: Go's `context/context.go`: each kind embeds its parent, or holds it in a field.

use super::{field, held, interface, pointee};
use crate::decode::text;
use crate::value::{Status, Value};

/// Contexts of one chain that are written; the rest are said to be there.
const CHAIN_MAX: usize = 16;

/// A context as a chain, its root first; `None` where it is none of the library's.
pub(super) fn written(value: &Value) -> Option<String> {
    let mut links = Vec::new();
    let mut at = Some(value);
    while let Some(context) = at {
        if links.len() == CHAIN_MAX {
            links.push("...".to_owned());
            break;
        }
        let (word, parent) = match context.type_name.as_str() {
            "context.backgroundCtx" | "*context.emptyCtx" => ("context.Background".to_owned(), None),
            "context.todoCtx" => ("context.TODO".to_owned(), None),
            "*context.valueCtx" => {
                let shown = |name| match field(context, name) {
                    Some(value) => inside(value),
                    None => unknown(context, name),
                };
                (format!("WithValue({}: {})", shown("key"), shown("val")), Some("Context"))
            }
            "*context.cancelCtx" => ("WithCancel".to_owned(), Some("Context")),
            "context.withoutCancelCtx" => ("WithoutCancel".to_owned(), Some("c")),
            "*context.timerCtx" => {
                let deadline = field(context, "deadline").map(|deadline| deadline.value.clone());
                let word = deadline.map_or_else(|| "WithDeadline".to_owned(), |at| format!("WithDeadline({at})"));
                links.push(word);
                // The parent is that of the context that it embeds (a pointer before Go 1.21).
                at = parent_of(field(context, "cancelCtx").map(pointee), "Context", &mut links);
                continue;
            }
            _ if links.is_empty() => return None,
            other => (text::short_type(other), None),
        };
        links.push(word);
        let Some(name) = parent else { break };
        at = parent_of(Some(context), name, &mut links);
    }
    links.reverse();
    Some(links.join(" > "))
}

/// The parent of a context; where it was not captured, the chain says so.
fn parent_of<'v>(context: Option<&'v Value>, name: &str, links: &mut Vec<String>) -> Option<&'v Value> {
    let parent = context.and_then(|context| field(context, name)).and_then(held);
    let captured = parent.filter(|parent| pointee(parent).status == Status::Exact);
    if captured.is_none() {
        links.push("...".to_owned());
    }
    captured
}

/// What is to be said in place of a part that is not known: its type, if that is.
fn unknown(context: &Value, name: &str) -> String {
    let part = pointee(context).children.iter().find(|child| child.name == name);
    let held = part.and_then(|part| part.children.first()).map(|held| held.type_name.as_str());
    let named = part.and_then(|part| interface::named_type(&part.status));
    match held.or(named) {
        Some(type_name) => format!("<a {}>", text::short_type(type_name)),
        None => part.map_or_else(|| "<not captured>".to_owned(), text::part),
    }
}

/// What an interface holds, as it stands in a text.
fn inside(value: &Value) -> String {
    held(value).map_or_else(|| text::part(value), text::part)
}
