//! Expressions over the captured values, and the few commands of the debug console.

use super::super::envelope::Failure;
use super::super::types::{
    CompletionItem, CompletionItemType, CompletionsArguments, CompletionsResponse, EvaluateArguments,
    EvaluateArgumentsContext, EvaluateResponse, ResponseBody,
};
use super::handles::Thing;
use super::motion::Reason;
use super::state::{Answer, Asked, State, Turn};
use super::variables::counts;
use crate::render::text::{self, Format};
use riptrace_protocol::expression::{self, EvalError};
use riptrace_protocol::stream::OrderedHit;
use std::fmt::Write as _;
use std::sync::Arc;

/// Hits that `hits` lists.
const HITS_LISTED: usize = 20;

/// Commands of the debug console, with what they do.
const COMMANDS: [(&str, &str); 5] = [
    ("help", "what can be typed here"),
    ("hits", "the newest hits"),
    ("fleet", "hosts, processes and what is armed in them"),
    ("goto", "goto NUMBER or goto TIME: opens that hit"),
    ("capture", "capture EXPRESSION: captures it with the next hits of the open hit's breakpoint"),
];

impl State {
    pub(super) fn evaluate(&mut self, turn: &mut Turn<'_>, asked: Asked, arguments: &EvaluateArguments) {
        let is_repl = matches!(arguments.context, Some(EvaluateArgumentsContext::Repl));
        let typed = arguments.expression.trim();
        if is_repl && let Some(name) = typed.strip_prefix("goto ") {
            return match self.hit_named(name) {
                Ok(hit) => {
                    turn.answer(asked, Ok(Some(told(format!("hit {}", hit.seq)))));
                    self.open_hit(turn, hit, Reason::Goto);
                }
                Err(failure) => turn.answer(asked, Err(failure)),
            };
        }
        if is_repl && let Some(expression) = typed.strip_prefix("capture ") {
            let answer = self.capture_typed(turn, arguments.frame_id, expression.trim());
            return turn.answer(asked, answer);
        }
        let answer = self.evaluated(arguments);
        turn.answer(asked, answer);
    }

    /// `capture EXPRESSION`.
    fn capture_typed(&mut self, turn: &mut Turn<'_>, frame_id: Option<i64>, expression: &str) -> Answer {
        let hit = self.hit_of_frame(frame_id)?;
        let Some(breakpoint) = self.breakpoints.of(&hit.raw.tracepoint) else {
            return Err(Failure::quiet(format!("the breakpoint of hit {} is not set any more", hit.seq)));
        };
        self.capture_expression(turn, breakpoint, expression)?;
        let text = format!(
            "{expression} is captured with the next hits of this breakpoint; those that are here do not have it"
        );
        Ok(Some(told(text)))
    }

    /// Captures an expression with the coming hits of a breakpoint.
    pub(super) fn capture_expression(
        &mut self,
        turn: &mut Turn<'_>,
        breakpoint: i64,
        text: &str,
    ) -> Result<(), Failure> {
        expression::parse(text).map_err(|error| Failure::quiet(error.to_string()))?;
        self.capture(turn, breakpoint, text.to_owned()).map_err(Failure::quiet)
    }

    fn evaluated(&mut self, arguments: &EvaluateArguments) -> Answer {
        let typed = arguments.expression.trim();
        if matches!(arguments.context, Some(EvaluateArgumentsContext::Repl)) {
            let told = match typed {
                "help" => Some(help()),
                "hits" => Some(self.newest_hits()),
                "fleet" => Some(self.fleet_table()),
                _ => None,
            };
            if let Some(result) = told {
                return Ok(Some(self::told(result)));
            }
        }
        let (typed, asked_format) = split_format(typed);
        let hit = self.hit_of_frame(arguments.frame_id)?;
        let expr = expression::parse(typed).map_err(|error| Failure::quiet(error.to_string()))?;
        let values = self.values_of(&hit);
        if let Some(problem) = &values.problem {
            return Err(Failure::quiet(problem.clone()));
        }
        let value = match values.evaluate(&expr) {
            Ok(value) => value,
            Err(error @ (EvalError::NotCaptured { .. } | EvalError::UnknownName { .. })) => {
                let is_set = self.breakpoints.of(&hit.raw.tracepoint).is_some();
                let offer = format!("; type `capture {typed}` in the debug console to have it with the next hits");
                return Err(Failure::quiet(format!("{error}{}", if is_set { offer.as_str() } else { "" })));
            }
            Err(error) => return Err(Failure::quiet(error.to_string())),
        };
        let hex = arguments.format.as_ref().is_some_and(|format| format.hex == Some(true));
        let format = asked_format.unwrap_or(if hex { Format::Hex } else { Format::Natural });
        if matches!(arguments.context, Some(EvaluateArgumentsContext::Clipboard)) {
            return Ok(Some(told(text::whole(&value))));
        }
        let (indexed, named) = counts(&value);
        let page = |count: usize| (self.client.pages_variables && count > 0).then_some(count as i64);
        let (indexed_variables, named_variables) = (page(indexed), page(named));
        let variables_reference = match value.children.is_empty() {
            true => 0,
            false => self.handles.number(Thing::Evaluated(hit.seq, Arc::from(expr.to_string()), Vec::new())),
        };
        Ok(Some(ResponseBody::Evaluate(EvaluateResponse {
            result: text::formatted(&value, format),
            type_field: (self.client.shows_types && !value.type_name.is_empty()).then_some(value.type_name),
            variables_reference,
            named_variables,
            indexed_variables,
            ..EvaluateResponse::default()
        })))
    }

    /// The hit that an expression is about: the frame's; without one, the open hit, else the newest.
    fn hit_of_frame(&self, frame_id: Option<i64>) -> Result<Arc<OrderedHit>, Failure> {
        let Some(frame_id) = frame_id.filter(|&id| id != 0) else {
            let hit = self.paused_hit().cloned().or_else(|| self.timeline.newest());
            return hit.ok_or_else(|| Failure::quiet("there is no hit yet, so there are no values"));
        };
        match self.handles.thing(frame_id) {
            Some(Thing::Frame(seq, 0)) => self.hit(seq).ok_or_else(|| self.no_such_hit(seq)),
            Some(Thing::Frame(..)) => {
                Err(Failure::quiet("not captured: values are captured in the innermost frame only"))
            }
            _ => Err(Failure::quiet(format!("there is no frame {frame_id}: its hit is not kept any more"))),
        }
    }

    fn newest_hits(&self) -> String {
        let newest = self.timeline.newest_seq().unwrap_or(0);
        let open = self.paused_hit().map(|hit| hit.seq);
        let from = newest.saturating_sub(HITS_LISTED as u64 - 1);
        let mut table = String::new();
        for hit in self.timeline.from(from).filter_map(|hit| hit.whole()) {
            let mark = if open == Some(hit.seq) { "> " } else { "  " };
            // Writing to a string cannot fail.
            let _ = writeln!(table, "{mark}{} {}", hit.seq, text::hit(&hit, &self.dictionaries, text::Style::Plain));
        }
        let (hits, dropped) = self.statistics.counts();
        let kept = self.timeline.len();
        let _ = write!(table, "{hits} hits arrived, {kept} are kept; {dropped} were dropped and counted.");
        table
    }

    fn fleet_table(&self) -> String {
        let Some(fleet) = &self.attachment.fleet else { return "not attached to a fleet yet".to_owned() };
        let mut table = String::new();
        for host in &fleet.hosts {
            let profile = &host.profile;
            let clock = host.clock_uncertainty_ns.map_or("clock not known yet".to_owned(), |ns| {
                format!("clock {}", crate::render::time::uncertainty(ns, " "))
            });
            let heard = if host.alive { "" } else { ", not heard" };
            let _ = writeln!(table, "{} ({clock}{heard})", profile.host);
            for process in &profile.processes {
                let refused = process.refused.as_ref().map_or_else(String::new, |why| format!(": {why}"));
                let _ = writeln!(table, "  {}[{}] {}{refused}", process.service, process.key.pid, process.build.id);
            }
        }
        let (hosts, processes) = self.meant();
        let _ = write!(table, "{processes} processes on {hosts} hosts are meant by this session.");
        table
    }

    pub(super) fn completions(&mut self, turn: &mut Turn<'_>, asked: Asked, arguments: &CompletionsArguments) {
        let column = usize::try_from(arguments.column.saturating_sub(self.client.first_column())).unwrap_or(0);
        // The column counts UTF-16 units.
        let units: Vec<u16> = arguments.text.encode_utf16().take(column).collect();
        let before = String::from_utf16_lossy(&units);
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let word = before.rsplit(|c| !is_part(c)).next().unwrap_or_default();
        let in_front = before[..before.len() - word.len()].trim_end();
        let mut targets = Vec::new();
        if let Some(of) = in_front.strip_suffix('.') {
            targets.extend(self.fields(of, word, arguments.frame_id));
        } else {
            if let Ok(hit) = self.hit_of_frame(arguments.frame_id) {
                let values = self.values_of(&hit);
                let names = values.all().iter().filter(|value| value.name.starts_with(word) && !word.is_empty());
                targets.extend(names.map(|value| item(&value.name, &value.type_name, CompletionItemType::Variable)));
            }
            if in_front.is_empty() {
                let commands = COMMANDS.iter().filter(|(name, _)| name.starts_with(word));
                targets.extend(commands.map(|(name, does)| item(name, does, CompletionItemType::Keyword)));
            }
        }
        turn.answer(asked, Ok(Some(ResponseBody::Completions(CompletionsResponse { targets }))));
    }
}

impl State {
    /// The fields of what is in front of a dot.
    fn fields(&mut self, text: &str, word: &str, frame_id: Option<i64>) -> Vec<CompletionItem> {
        let Ok(hit) = self.hit_of_frame(frame_id) else { return Vec::new() };
        let values = self.values_of(&hit);
        // The longest end of the text that is an expression with a value: `len(item` means `item`.
        let starts = text.char_indices().map(|(at, _)| at).filter(|&at| {
            at == 0
                || text[..at]
                    .chars()
                    .next_back()
                    .is_some_and(|c| !c.is_alphanumeric() && !matches!(c, '_' | '.' | ']' | ')'))
        });
        let value =
            starts.filter_map(|at| expression::parse(&text[at..]).ok()).find_map(|expr| values.evaluate(&expr).ok());
        let Some(mut value) = value else { return Vec::new() };
        // A pointer's fields are those of what it points to.
        if let [pointee] = value.children.as_slice()
            && pointee.name.starts_with('*')
        {
            value = pointee.clone();
        }
        let is_field = |name: &str| name.starts_with(word) && !name.starts_with(['[', '*', '(']);
        let fields = value.children.iter().filter(|part| is_field(&part.name));
        fields.map(|part| item(&part.name, &part.type_name, CompletionItemType::Field)).collect()
    }
}

/// `qty,x`: an expression, and the format of its value.
fn split_format(typed: &str) -> (&str, Option<Format>) {
    match typed.rsplit_once(',') {
        Some((expression, letter)) => match Format::of(letter.trim()) {
            Some(format) => (expression.trim_end(), Some(format)),
            None => (typed, None),
        },
        None => (typed, None),
    }
}

fn told(result: String) -> ResponseBody {
    ResponseBody::Evaluate(EvaluateResponse { result, ..EvaluateResponse::default() })
}

fn item(label: &str, detail: &str, kind: CompletionItemType) -> CompletionItem {
    CompletionItem {
        label: label.to_owned(),
        detail: (!detail.is_empty()).then(|| detail.to_owned()),
        type_field: Some(kind),
        ..CompletionItem::default()
    }
}

fn help() -> String {
    let mut text = String::from("An expression over the values of the open hit (or the newest one), or:");
    for (name, does) in COMMANDS {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {name:<8} {does}");
    }
    text.push_str(
        "\nA letter behind an expression is its format: qty,x (d, x, o, b, c; m for the bytes of a text).\
         \nContinue and reverse continue go over the hits of the fleet, step over and back over a goroutine's.",
    );
    text
}
