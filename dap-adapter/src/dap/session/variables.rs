//! Variables: what is behind a number of the editor, a page at a time.

use super::super::envelope::Failure;
use super::super::limits::VARIABLES_MAX;
use super::super::types::{
    self, ResponseBody, Variable, VariablePresentationHint, VariablePresentationHintAttributes,
    VariablePresentationHintKind, VariablesArguments, VariablesArgumentsFilter, VariablesResponse,
};
use super::handles::Thing;
use super::state::{Asked, State, Turn};
use crate::lines::GoName;
use crate::render::text::Format;
use crate::render::{text, time};
use crate::timeline::values::{GROUPS, HitValues};
use riptrace_protocol::stream::OrderedHit;
use riptrace_protocol::value::{Scalar, Value};
use serde_json::Value as Json;
use std::collections::VecDeque;
use std::sync::Arc;

/// Decoded hits that are remembered, at most: those that a person has open.
const CACHE_MAX: usize = 64;
/// Entries of the scope "Hit".
pub(super) const FACTS: usize = 14;

/// Values of the hits that were looked at last.
#[derive(Debug, Default)]
pub(super) struct ValueCache {
    newest_first: VecDeque<(u64, Arc<HitValues>)>,
}

impl ValueCache {
    pub(super) fn clear(&mut self) {
        self.newest_first.clear();
    }
}

/// One child, before the editor's page and format are applied.
struct Child {
    name: String,
    text: String,
    type_name: Option<String>,
    opens: Option<Thing>,
    named: usize,
    indexed: usize,
    evaluate_name: Option<String>,
    /// File and line where it is declared.
    declared: Option<(String, u32)>,
    /// The function that it is, by its name.
    function: Option<String>,
}

impl Child {
    fn fact(name: &str, text: impl Into<String>) -> Child {
        Child {
            name: name.to_owned(),
            text: text.into(),
            type_name: None,
            opens: None,
            named: 0,
            indexed: 0,
            evaluate_name: None,
            declared: None,
            function: None,
        }
    }

    fn group(name: &str, text: impl Into<String>, opens: Thing, named: usize) -> Child {
        Child { opens: Some(opens), named, ..Child::fact(name, text) }
    }
}

impl State {
    /// The values of a hit.
    pub(super) fn values_of(&mut self, hit: &OrderedHit) -> Arc<HitValues> {
        let cache = &mut self.values.newest_first;
        let known = cache.iter().position(|(seq, _)| *seq == hit.seq).and_then(|index| cache.remove(index));
        let (seq, values) = known.unwrap_or_else(|| (hit.seq, Arc::new(HitValues::decode(hit, &self.dictionaries))));
        cache.push_front((seq, values.clone()));
        cache.truncate(CACHE_MAX);
        values
    }

    pub(super) fn list_variables(&mut self, turn: &mut Turn<'_>, asked: Asked, arguments: &VariablesArguments) {
        let answer = self.children(arguments);
        turn.answer_raw(asked, answer.map(Some));
    }

    fn children(&mut self, arguments: &VariablesArguments) -> Result<Json, Failure> {
        let reference = arguments.variables_reference;
        let Some(thing) = self.handles.thing(reference) else {
            return Err(Failure::quiet(format!("there is nothing behind the reference {reference} any more")));
        };
        let hex = arguments.format.as_ref().is_some_and(|format| format.hex == Some(true));
        let format = if hex { Format::Hex } else { Format::Natural };
        let children = self.children_of(&thing, format)?;
        let wanted = children.into_iter().filter(|child| match &arguments.filter {
            None => true,
            Some(VariablesArgumentsFilter::Indexed) => child.name.starts_with('['),
            Some(VariablesArgumentsFilter::Named) => !child.name.starts_with('['),
        });
        let start = arguments.start.and_then(|start| usize::try_from(start).ok()).unwrap_or(0);
        let count = match arguments.count.and_then(|count| usize::try_from(count).ok()) {
            None | Some(0) => VARIABLES_MAX,
            Some(count) => count.min(VARIABLES_MAX),
        };
        let page: Vec<Child> = wanted.skip(start).take(count).collect();
        // Newer than the crate's type.
        let mut places = Vec::new();
        for (index, child) in page.iter().enumerate() {
            if let Some((file, line)) = child.declared.clone() {
                let number = self.handles.number(Thing::Declared(file, line));
                places.push((index, "declarationLocationReference", number));
            }
            if let Some(name) = child.function.clone() {
                places.push((index, "valueLocationReference", self.handles.number(Thing::Function(name))));
            }
        }
        let variables = page.into_iter().map(|child| self.variable(child)).collect();
        let body = types::response_body(ResponseBody::Variables(VariablesResponse { variables }));
        let mut body = body
            .ok()
            .flatten()
            .ok_or_else(|| Failure::quiet("the variables are no JSON; this is an error of RipTrace"))?;
        for (index, field, reference) in places {
            body["variables"][index][field] = Json::from(reference);
        }
        Ok(body)
    }

    fn variable(&mut self, child: Child) -> Variable {
        let page = |count: usize| {
            let told = self.client.pages_variables && child.opens.is_some() && count > 0;
            told.then(|| i64::try_from(count).ok()).flatten()
        };
        Variable {
            named_variables: page(child.named),
            indexed_variables: page(child.indexed),
            variables_reference: child.opens.clone().map_or(0, |thing| self.handles.number(thing)),
            name: child.name,
            value: child.text,
            type_field: child.type_name.filter(|name| self.client.shows_types && !name.is_empty()),
            presentation_hint: Some(VariablePresentationHint {
                kind: Some(VariablePresentationHintKind::Data),
                attributes: Some(vec![VariablePresentationHintAttributes::ReadOnly]),
                ..VariablePresentationHint::default()
            }),
            evaluate_name: child.evaluate_name,
            memory_reference: None,
        }
    }

    fn children_of(&mut self, thing: &Thing, format: Format) -> Result<Vec<Child>, Failure> {
        let Some(seq) = thing.seq() else {
            return Err(Failure::quiet("a source has no variables"));
        };
        let hit = self.hit(seq).ok_or_else(|| self.no_such_hit(seq))?;
        let values = self.values_of(&hit);
        Ok(match thing {
            Thing::Row(_) => {
                self.rows.asked(seq);
                let count = values.all().len().max(1) + 2;
                vec![Child::group(&format!("hit {seq}"), text::origin(&hit), Thing::Record(seq), count)]
            }
            Thing::Record(_) => {
                let mut children = match values.all() {
                    [] => vec![nothing(&values)],
                    _ => (0..values.all().len()).filter_map(|index| variable(seq, index, &values, format)).collect(),
                };
                children.push(Child::group("hit", text::origin(&hit), Thing::Facts(seq), FACTS));
                let stack = self.dictionaries.stack(&hit).len();
                children.push(Child::group("stack", format!("{stack} frames"), Thing::Stack(seq), stack));
                children
            }
            Thing::Facts(_) => self.facts(&hit),
            Thing::Stack(_) => self.stack_entries(&hit),
            Thing::Scope(_, number) => {
                let Some(group) = GROUPS.get(*number) else { return Ok(Vec::new()) };
                values.grouped(*group).filter_map(|(index, _)| variable(seq, index, &values, format)).collect()
            }
            Thing::Nothing(_) => vec![nothing(&values)],
            Thing::OuterFrame(_) => {
                vec![Child::fact("variables", "<not captured: values are captured in the innermost frame only>")]
            }
            Thing::Value(_, path) => {
                let top = path.first().and_then(|index| values.all().get(*index as usize));
                let found = top.and_then(|top| walk(top, &path[1..]));
                let Some(found) = found else { return Ok(Vec::new()) };
                below(found, format, |index| Thing::Value(seq, extended(path, index)))
            }
            Thing::Evaluated(_, expression, path) => {
                let parsed = riptrace_protocol::expression::parse(expression);
                let value = parsed.ok().and_then(|expr| values.evaluate(&expr).ok());
                let found = value.as_ref().and_then(|value| walk(value, path));
                let Some(found) = found else { return Ok(Vec::new()) };
                below(found, format, |index| Thing::Evaluated(seq, expression.clone(), extended(path, index)))
            }
            Thing::Frame(..) | Thing::DeployedSource(..) | Thing::Declared(..) | Thing::Function(_) => Vec::new(),
        })
    }

    /// Where, when, and how certain: as many as [`FACTS`] says.
    fn facts(&self, hit: &OrderedHit) -> Vec<Child> {
        let raw = &hit.raw;
        let build = self.dictionaries.layout(&raw.layout).map_or("unknown", |layout| layout.build.0.as_str());
        let correlation = self.correlation_key(hit).unwrap_or_else(|| "none known".to_owned());
        let none_or =
            |list: &[u64]| if list.is_empty() { "none".to_owned() } else { format!("hits {}", text::list(list)) };
        vec![
            Child::fact("number", hit.seq.to_string()),
            Child::fact("time", time::rfc3339(hit.time_ns)),
            Child::fact("uncertainty", time::uncertainty(hit.uncertainty_ns, " ")),
            Child::fact("host", hit.host.as_str()),
            Child::fact("process", format!("pid {}", raw.process.pid)),
            Child::fact("service", hit.service.clone()),
            Child::fact("build", build),
            Child::fact("thread", raw.thread.to_string()),
            Child::fact("goroutine", self.goroutine(hit)),
            Child::fact("tracepoint", raw.tracepoint.as_str()),
            Child::fact(
                "duration of the call",
                raw.duration_ns.map_or("not known, or no return".to_owned(), time::duration),
            ),
            Child::fact("correlation", correlation),
            Child::fact("order not certain with", none_or(&hit.undetermined_with)),
            Child::fact("late", if hit.late { "yes: later hits were shown before it" } else { "no" }),
        ]
    }

    /// `18, created by main.serve at server.go:12 in goroutine 1, labels {tenant: a}`.
    fn goroutine(&self, hit: &OrderedHit) -> String {
        match (self.dictionaries.goroutine(hit), hit.raw.goroutine) {
            (Some(facts), _) => facts.to_string().trim_start_matches("goroutine ").to_owned(),
            (None, Some(id)) => id.to_string(),
            (None, None) => "none, or not readable".to_owned(),
        }
    }

    fn stack_entries(&self, hit: &OrderedHit) -> Vec<Child> {
        let entries = self.dictionaries.stack(hit).into_iter().enumerate().map(|(index, entry)| {
            let text = match entry.frame {
                Some(frame) => format!("{} {}:{}", frame.function, frame.file, frame.line),
                None => format!("{:#x} (nothing is known of this address)", entry.pc.0),
            };
            Child::fact(&format!("#{index}"), text)
        });
        let more = hit.raw.stack_end.note(hit.raw.stack.len()).map(|note| Child::fact("...", note));
        entries.chain(more).collect()
    }
}

fn nothing(values: &HitValues) -> Child {
    let why = values.problem.clone().unwrap_or_else(|| "no variable is in scope at this place".to_owned());
    Child::fact("variables", format!("<{why}>"))
}

fn extended(path: &[u32], index: usize) -> Vec<u32> {
    let mut path = path.to_vec();
    path.push(u32::try_from(index).unwrap_or(u32::MAX));
    path
}

fn walk<'a>(value: &'a Value, path: &[u32]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, &index| value.children.get(index as usize))
}

/// A variable of a hit.
fn variable(seq: u64, index: usize, values: &HitValues, format: Format) -> Option<Child> {
    let value = values.all().get(index)?;
    // A name in parentheses is shadowed: no expression means it.
    let evaluate_name = (!value.name.starts_with('(')).then(|| value.name.clone());
    let declared = values.declared(index).map(|(file, line)| (file.to_owned(), line));
    Some(Child { evaluate_name, declared, ..child(value, format, Thing::Value(seq, extended(&[], index))) })
}

fn below(value: &Value, format: Format, thing: impl Fn(usize) -> Thing) -> Vec<Child> {
    value.children.iter().enumerate().map(|(index, part)| child(part, format, thing(index))).collect()
}

fn child(value: &Value, format: Format, opens: Thing) -> Child {
    let (indexed, named) = counts(value);
    Child {
        name: value.name.clone(),
        text: text::formatted(value, format),
        type_name: Some(value.type_name.clone()),
        opens: (!value.children.is_empty()).then_some(opens),
        named,
        indexed,
        evaluate_name: None,
        declared: None,
        function: function(value),
    }
}

/// The name of the function that a value is, where a source may declare it.
fn function(value: &Value) -> Option<String> {
    let is_function = matches!(value.scalar, Some(Scalar::Function { nil: false })) && value.status.is_shown();
    (is_function && GoName::parse(&value.value).is_some()).then(|| value.value.clone())
}

/// Elements and named parts.
pub(super) fn counts(value: &Value) -> (usize, usize) {
    let indexed = value.children.iter().filter(|part| part.name.starts_with('[')).count();
    (indexed, value.children.len() - indexed)
}
