//! What Go's source says of the variables at a line, and the debug information does not: which declaration a name means
//! there, and where else the variable is assigned.
//!
//! Optimised Go describes the place of a variable's old value after a new one was computed elsewhere, and does not mention a
//! constant that hides an outer variable of its name. Whoever has the source of the build makes these facts of it; the
//! agent holds them against the machine code and withholds what it cannot confirm; of a variable that is assigned only where
//! it is declared it also looks for cells that still hold it.
//!
//! Invariants
//! - Any text is read: what is not Go gives facts that are few or odd, never a panic. Work and result are bounded.
//! - An assignment is rather listed for a variable that it does not change than left out.
//!
//! Not here: types. `p.x = 1` is listed for `p`, whether `p` is a struct or a pointer to one.

mod tokens;

use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use tokens::{Kind, Token, is_word, matching, tokens};

/// Bytes of a source that are looked at, at most: the largest generated files have a few megabytes.
pub const SOURCE_BYTES_MAX: usize = 8 << 20;
/// Declarations and assignments of one function that are listed, at most: a function with more is generated.
pub const FACTS_MAX: usize = 1024;
/// Nesting of blocks, at most.
const NESTING_MAX: usize = 256;

/// What the source says of the variables at a line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFacts {
    /// The variables that the function declares: all of them, so that it can be seen whether this is the source of a build.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub declared: Vec<Declared>,
    /// Assignments to these variables besides their declarations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assigned: Vec<Assigned>,
}

/// A variable, by its name and the line of its declaration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// Its name.
    pub name: String,
    /// Line, from 1.
    pub line: u32,
    /// Whether it is what its name means at the line that the facts are about.
    pub visible: bool,
}

/// An assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assigned {
    /// The variable.
    pub name: String,
    /// Where it is declared.
    pub declared: u32,
    /// What of it is assigned.
    pub part: AssignedPart,
    /// Where.
    pub line: u32,
    /// Whether it may have run before the line that the facts are about.
    pub before: bool,
    /// Whether it has run before that line whichever way led there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub always: bool,
    /// Whether it makes the new value of the old one: `x += y`, `x++`. It is not known of what is not said to be one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub step: bool,
    /// The line of the `if` whose block it is in directly; 0 where it is in none.
    #[serde(default, skip_serializing_if = "is_none")]
    pub guard: u32,
    /// The variable whose value it takes, as it is; not known of what is not said to take one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes: Option<Taken>,
    /// The innermost loop around it, of those of its function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<Turn>,
    /// Whether it is in a function literal: it runs when that is called.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub literal: bool,
}

/// A variable whose value another one takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The variable.
    pub name: String,
    /// Where it is declared.
    pub declared: u32,
}

/// A loop around an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// First line of the loop.
    pub start: u32,
    /// Last line of it.
    pub end: u32,
    /// Whether each of its turns runs the assignment to its end: it is directly in the body, and nothing of the function
    /// jumps but out of loops.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub each: bool,
}

fn is_none(line: &u32) -> bool {
    *line == 0
}

/// What of a variable is assigned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssignedPart {
    /// All of it.
    Whole,
    /// `x.name`, or something further in.
    Field {
        /// The field.
        name: String,
        /// Whether it is something further in.
        deeper: bool,
    },
    /// `x[i]`, or something further in.
    Element,
}

impl SourceFacts {
    /// What a Go source says of a line of it. Empty where the line is in no function.
    pub fn of_go(source: &str, line: u32) -> SourceFacts {
        if source.len() > SOURCE_BYTES_MAX || line == 0 {
            return SourceFacts::default();
        }
        let tokens = tokens(source);
        match function_around(&tokens, line) {
            Some(function) => Walk::new(function, line).run(),
            None => SourceFacts::default(),
        }
    }

    /// What a Go source says of every place in one of its functions at once: any assignment may have run before it, and none
    /// has for certain; a name that is declared more than once is certain to mean none of them. `receiver` is the name of
    /// the type whose method it is. Empty where the source has no such function.
    pub fn of_go_function(source: &str, receiver: Option<&str>, name: &str) -> SourceFacts {
        if source.len() > SOURCE_BYTES_MAX {
            return SourceFacts::default();
        }
        let tokens = tokens(source);
        let Some(function) = function_named(&tokens, receiver, name) else { return SourceFacts::default() };
        let mut facts = Walk::new(function, function.first().map_or(1, |token| token.line)).run();
        for assigned in &mut facts.assigned {
            (assigned.before, assigned.always) = (true, false);
        }
        let mut counts: HashMap<String, usize> = HashMap::new();
        for declared in &facts.declared {
            *counts.entry(declared.name.clone()).or_default() += 1;
        }
        for declared in &mut facts.declared {
            declared.visible = counts.get(&declared.name) == Some(&1);
        }
        facts
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.declared.is_empty()
    }
}

/// The line on which a Go source declares a function, or a method of a receiver's type.
pub fn go_function_line(source: &str, receiver: Option<&str>, name: &str) -> Option<u32> {
    if source.len() > SOURCE_BYTES_MAX {
        return None;
    }
    let tokens = tokens(source);
    function_named(&tokens, receiver, name)?.first().map(|token| token.line)
}

/// The tokens of the function that a line is in, from `func` to the end of its body.
fn function_around<'t, 'a>(tokens: &'t [Token<'a>], line: u32) -> Option<&'t [Token<'a>]> {
    let is_around = |function: &[Token<'a>]| match function {
        [first, .., last] => first.line <= line && line <= last.line,
        _ => false,
    };
    function_that(tokens, is_around)
}

/// The tokens of the function, or of the method of a receiver's type, of this name.
fn function_named<'t, 'a>(tokens: &'t [Token<'a>], receiver: Option<&str>, name: &str) -> Option<&'t [Token<'a>]> {
    let is_named = |function: &[Token<'a>]| {
        let Some(behind) = function.get(1) else { return false };
        if !behind.is("(") {
            return receiver.is_none() && behind.kind == Kind::Name && behind.text == name;
        }
        let end = matching(function, 1);
        // `(c *Cart[K])`: the type is the last name that is in no brackets of its own.
        let (mut of, mut depth) = (None, 0usize);
        for token in function.get(2..end).unwrap_or_default() {
            match token.text {
                "[" => depth += 1,
                "]" => depth = depth.saturating_sub(1),
                text if depth == 0 && token.kind == Kind::Name => of = Some(text),
                _ => {}
            }
        }
        of.is_some() && of == receiver && function.get(end + 1).is_some_and(|token| token.text == name)
    };
    function_that(tokens, is_named)
}

/// The first function outside of others that is meant: its tokens from `func` to the end of its body.
fn function_that<'t, 'a>(tokens: &'t [Token<'a>], is_meant: impl Fn(&[Token<'a>]) -> bool) -> Option<&'t [Token<'a>]> {
    let mut at = 0;
    while at < tokens.len() {
        let token = tokens[at];
        if token.is("{") || token.is("(") {
            at = matching(tokens, at) + 1;
            continue;
        }
        if !token.is("func") {
            at += 1;
            continue;
        }
        let Some(body) = signature(tokens, at, &mut Vec::new()) else {
            at += 1;
            continue;
        };
        let end = matching(tokens, body);
        if let Some(function) = tokens.get(at..=end).filter(|function| is_meant(function)) {
            return Some(function);
        }
        at = end + 1;
    }
    None
}

/// Reads a signature behind the `func` at `at`: the names of receiver, parameters and results, and where the body opens;
/// `None` for the type of a function.
fn signature<'a>(tokens: &[Token<'a>], at: usize, names: &mut Vec<(&'a str, u32)>) -> Option<usize> {
    let mut next = at + 1;
    loop {
        let token = tokens.get(next)?;
        match (token.kind, token.text) {
            (Kind::Symbol, "(") => {
                let end = matching(tokens, next);
                // A name stands behind a bracket or a comma; a type without a name may be taken for one.
                for pair in tokens.get(next..end)?.windows(2) {
                    if (pair[0].is("(") || pair[0].is(",")) && pair[1].kind == Kind::Name {
                        names.push((pair[1].text, pair[1].line));
                    }
                }
                next = end + 1;
            }
            (Kind::Symbol, "[") => next = matching(tokens, next) + 1,
            (Kind::Name, "struct" | "interface") if tokens.get(next + 1)?.is("{") => {
                next = matching(tokens, next + 1) + 1;
            }
            (Kind::Name, _) | (Kind::Symbol, "*" | "." | "<-" | "...") => next += 1,
            (Kind::Symbol, "{") => return Some(next),
            _ => return None,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Scope {
    /// Parameters of a function, around its body.
    Function,
    /// The head of `for`, `if`, `switch` or `select`, around its body; where it begins, and whether it is a loop.
    Head { line: u32, is_loop: bool, is_if: bool, brackets: usize, has_body: bool },
    /// Between braces.
    Block,
    /// A `case`.
    Clause,
}

struct Walk<'t, 'a> {
    tokens: &'t [Token<'a>],
    line: u32,
    /// Each with the declarations in it: name to line.
    scopes: Vec<(Scope, HashMap<&'a str, u32>)>,
    /// First and last lines of loops.
    loops: Vec<(u32, u32)>,
    brackets: usize,
    /// All declarations: name and line.
    declared: BTreeSet<(&'a str, u32)>,
    /// What names mean at the line.
    visible: HashMap<&'a str, u32>,
    facts: SourceFacts,
    /// Assignments in the blocks that are open, by their number, with the number of those blocks.
    open: Vec<(usize, usize)>,
    has_seen_line: bool,
    /// Whether a turn of a loop may end before its body does.
    has_jumps: bool,
}

impl<'t, 'a> Walk<'t, 'a> {
    fn new(tokens: &'t [Token<'a>], line: u32) -> Walk<'t, 'a> {
        Walk {
            tokens,
            line,
            scopes: Vec::new(),
            loops: Vec::new(),
            brackets: 0,
            declared: BTreeSet::new(),
            visible: HashMap::new(),
            facts: SourceFacts::default(),
            open: Vec::new(),
            has_seen_line: false,
            has_jumps: tokens.iter().any(|token| matches!(token.text, "continue" | "goto")),
        }
    }

    fn run(mut self) -> SourceFacts {
        let mut at = 0;
        while at < self.tokens.len() && self.scopes.len() < NESTING_MAX {
            let token = self.tokens[at];
            if token.line >= self.line && !self.has_seen_line && self.is_statement_start(at) {
                self.has_seen_line = true;
                self.note_visible();
                self.note_always();
            }
            at = self.token(at, token);
        }
        let (line, loops) = (self.line, std::mem::take(&mut self.loops));
        for assigned in &mut self.facts.assigned {
            // In a loop around both, an assignment behind the line comes before it the next time round, unless the variable
            // is another one then.
            let again = |&(start, end): &(u32, u32)| {
                start <= line && line <= end && (start..=end).contains(&assigned.line) && assigned.declared <= start
            };
            assigned.before = assigned.line < line || loops.iter().any(again);
            if let Some(turn) = &mut assigned.turn {
                let is_it = |&&(start, end): &&(u32, u32)| start == turn.start && end >= assigned.line;
                turn.end = loops.iter().find(is_it).map_or(u32::MAX, |&(_, end)| end);
            }
        }
        let (declared, visible) = (std::mem::take(&mut self.declared), std::mem::take(&mut self.visible));
        let declared = declared.into_iter().map(|(name, line)| Declared {
            name: name.to_owned(),
            line,
            visible: visible.get(name) == Some(&line),
        });
        self.facts.declared = declared.collect();
        self.facts
    }

    fn is_statement_start(&self, at: usize) -> bool {
        let before = at.checked_sub(1).and_then(|before| self.tokens.get(before));
        self.tokens[at].kind != Kind::End
            && before.is_some_and(|before| before.kind == Kind::End || matches!(before.text, "{" | "}" | ":"))
    }

    /// Leaves the innermost block.
    fn leave(&mut self) {
        self.scopes.pop();
        let blocks = self.scopes.len();
        self.open.retain(|&(_, depth)| depth <= blocks);
    }

    /// What was assigned in the blocks around the line, in front of it.
    fn note_always(&mut self) {
        for &(number, depth) in &self.open {
            // What is in the head of a loop may run behind its body.
            let is_plain = depth.checked_sub(1).and_then(|block| self.scopes.get(block));
            let is_plain = is_plain.is_some_and(|(scope, _)| !matches!(scope, Scope::Head { .. }));
            if let Some(assigned) = self.facts.assigned.get_mut(number) {
                assigned.always |= is_plain;
            }
        }
    }

    /// What names mean at the line: what it declares itself is not there yet.
    fn note_visible(&mut self) {
        self.visible =
            self.scopes.iter().flat_map(|(_, declared)| declared).map(|(name, line)| (*name, *line)).collect();
    }

    /// Reads a token; the number of the next one.
    fn token(&mut self, at: usize, token: Token<'a>) -> usize {
        match (token.kind, token.text) {
            (Kind::Name, "func") => {
                let mut names = Vec::new();
                let Some(body) = signature(self.tokens, at, &mut names) else { return at + 1 };
                self.declared.extend(names.iter().take(FACTS_MAX.saturating_sub(self.declared.len())));
                self.scopes.push((Scope::Function, names.into_iter().collect()));
                self.scopes.push((Scope::Block, HashMap::new()));
                return body + 1;
            }
            (Kind::Name, "for" | "if" | "switch" | "select") => {
                let (line, is_loop, is_if) = (token.line, token.text == "for", token.text == "if");
                let head = Scope::Head { line, is_loop, is_if, brackets: self.brackets, has_body: false };
                self.scopes.push((head, HashMap::new()));
            }
            (Kind::Name, "case" | "default") => {
                if matches!(self.scopes.last(), Some((Scope::Clause, _))) {
                    self.leave();
                }
                self.scopes.push((Scope::Clause, HashMap::new()));
            }
            (Kind::Name, "var" | "const") => self.declaration(at),
            (Kind::Name, "struct" | "interface") if self.tokens.get(at + 1).is_some_and(|next| next.is("{")) => {
                return matching(self.tokens, at + 1) + 1;
            }
            (Kind::Symbol, "(" | "[") => self.brackets += 1,
            (Kind::Symbol, ")" | "]") => self.brackets = self.brackets.saturating_sub(1),
            (Kind::Symbol, "{") => self.open(at),
            (Kind::Symbol, "}") => self.close(at, token.line),
            (Kind::Symbol, ":=") => self.short_declaration(at),
            (Kind::Symbol, "++" | "--") => self.assignment(at),
            (Kind::Symbol, text) if text.ends_with('=') && !matches!(text, "==" | "!=" | "<=" | ">=") => {
                self.assignment(at);
            }
            _ => {}
        }
        at + 1
    }

    fn open(&mut self, at: usize) {
        let is_literal = self.is_literal(at);
        let brackets = self.brackets;
        if let Some((Scope::Head { brackets: of_head, has_body, .. }, _)) = self.scopes.last_mut()
            && *of_head == brackets
            && !is_literal
        {
            *has_body = true;
        }
        self.scopes.push((Scope::Block, HashMap::new()));
    }

    /// Whether a brace opens a literal of a type that is written out (`[]int{`, `map[string]int{`, `[]pkg.T{`): in the head
    /// of a statement no other literal can stand without brackets around it.
    fn is_literal(&self, open: usize) -> bool {
        let mut at = open;
        let mut before = || {
            at = at.checked_sub(1)?;
            self.tokens.get(at).copied()
        };
        let mut token = before();
        while token
            .is_some_and(|token| token.kind == Kind::Name && !is_word(token.text) || token.is(".") || token.is("*"))
        {
            token = before();
        }
        if token.is_none_or(|token| !token.is("]")) || at + 1 == open {
            return false;
        }
        // `x[i].f {` is no type: what has an index has a name, or a bracket, in front of it.
        let mut depth = 0usize;
        loop {
            let Some(token) = self.tokens.get(at) else { return false };
            match token.text {
                "]" => depth += 1,
                "[" => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        break;
                    }
                }
                _ => {}
            }
            let Some(next) = at.checked_sub(1) else { return false };
            at = next;
        }
        match at.checked_sub(1).and_then(|before| self.tokens.get(before)) {
            Some(token) => {
                token.is("map") || !(token.kind == Kind::Name && !is_word(token.text) || token.is(")") || token.is("]"))
            }
            None => true,
        }
    }

    fn close(&mut self, at: usize, line: u32) {
        // A clause ends with its block.
        while matches!(self.scopes.last(), Some((Scope::Clause, _))) {
            self.leave();
        }
        self.leave();
        let goes_on = self.tokens.get(at + 1).is_some_and(|next| next.is("else"));
        loop {
            match self.scopes.last() {
                Some((Scope::Function, _)) => {
                    self.leave();
                    return;
                }
                Some((Scope::Head { line: start, is_loop, has_body: true, .. }, _)) if !goes_on => {
                    if *is_loop {
                        self.loops.push((*start, line));
                    }
                    self.leave();
                    // `else if` is a head in the head before it.
                }
                _ => return,
            }
        }
    }

    fn declare(&mut self, name: &'a str, line: u32) {
        if let Some((_, declared)) = self.scopes.last_mut()
            && name != "_"
            && self.declared.len() < FACTS_MAX
        {
            declared.insert(name, line);
            self.declared.insert((name, line));
        }
    }

    /// `var a, b T`, `var ( .. )`, and the same with `const`.
    fn declaration(&mut self, at: usize) {
        let is_group = self.tokens.get(at + 1).is_some_and(|next| next.is("("));
        let end = if is_group { matching(self.tokens, at + 1) } else { at + 2 };
        let mut begins = true;
        for at in at + 1 + usize::from(is_group)..end.max(at + 2) {
            let Some(&token) = self.tokens.get(at) else { return };
            if begins && token.kind == Kind::Name {
                self.declare(token.text, token.line);
                let mut next = at + 1;
                while self.tokens.get(next).is_some_and(|comma| comma.is(","))
                    && let Some(&name) = self.tokens.get(next + 1)
                    && name.kind == Kind::Name
                {
                    self.declare(name.text, name.line);
                    next += 2;
                }
            }
            begins = token.kind == Kind::End;
        }
    }

    fn short_declaration(&mut self, at: usize) {
        for (first, _) in self.left_of(at) {
            let name = self.tokens[first];
            if name.kind != Kind::Name || name.text == "_" {
                continue;
            }
            let scope = self.scopes.len().checked_sub(1);
            // Parameters are in the same block as what the body declares.
            let is_body = scope
                .and_then(|scope| scope.checked_sub(1))
                .is_some_and(|outer| matches!(self.scopes.get(outer), Some((Scope::Function, _))));
            let known = scope
                .into_iter()
                .chain(scope.filter(|_| is_body).and_then(|scope| scope.checked_sub(1)))
                .find_map(|scope| self.scopes.get(scope)?.1.get(name.text).copied());
            match known {
                Some(declared) => self.assign((name.text, declared), AssignedPart::Whole, name.line, (false, None)),
                None => self.declare(name.text, name.line),
            }
        }
    }

    fn assignment(&mut self, at: usize) {
        let left = self.left_of(at);
        let is_single = left.len() == 1;
        for (first, end) in left {
            let name = self.tokens[first];
            if name.kind != Kind::Name || is_word(name.text) || name.text == "_" {
                continue;
            }
            let known = self.scopes.iter().rev().find_map(|(_, declared)| declared.get(name.text).copied());
            let Some(declared) = known else { continue };
            // `var x = 1` declares.
            if self.tokens[at].is("=") && name.line == declared {
                continue;
            }
            let part = match self.tokens.get(first + 1).filter(|_| first + 1 < end) {
                None => AssignedPart::Whole,
                Some(next) if next.is(".") => AssignedPart::Field {
                    name: self.tokens.get(first + 2).map_or("", |field| field.text).to_owned(),
                    deeper: end > first + 3,
                },
                Some(_) => AssignedPart::Element,
            };
            // `=` alone takes the value of anything.
            let is_step = !self.tokens[at].is("=");
            let takes = (is_single && part == AssignedPart::Whole).then(|| self.taken(at)).flatten();
            self.assign((name.text, declared), part, name.line, (is_step, takes));
        }
    }

    /// The variable that stands alone behind a `=`.
    fn taken(&self, at: usize) -> Option<Taken> {
        let (name, behind) = (self.tokens.get(at + 1)?, self.tokens.get(at + 2)?);
        let is_alone = self.tokens[at].is("=") && name.kind == Kind::Name && !is_word(name.text);
        let ends = behind.kind == Kind::End || behind.is("}");
        let is_taken = is_alone && ends && behind.line == name.line && name.line == self.tokens[at].line;
        let declared = || self.scopes.iter().rev().find_map(|(_, declared)| declared.get(name.text).copied());
        is_taken.then(declared).flatten().map(|declared| Taken { name: name.text.to_owned(), declared })
    }

    /// The innermost loop around what is assigned here, and whether that is in a function literal.
    fn around(&self) -> (Option<Turn>, bool) {
        let functions = self.scopes.iter().filter(|(scope, _)| *scope == Scope::Function).count();
        let own = self.scopes.iter().rposition(|(scope, _)| *scope == Scope::Function).unwrap_or(0);
        let inner = self.scopes.iter().enumerate().skip(own).rev();
        let mut loops = inner.filter_map(|(number, (scope, _))| match scope {
            Scope::Head { line, is_loop: true, has_body: true, .. } => Some((number, *line)),
            _ => None,
        });
        let turn = loops.next().map(|(number, start)| {
            // The head of the loop, and its body.
            let is_direct = number + 2 == self.scopes.len();
            Turn { start, end: start, each: is_direct && !self.has_jumps }
        });
        (turn, functions > 1)
    }

    fn assign(
        &mut self,
        (name, declared): (&str, u32),
        part: AssignedPart,
        line: u32,
        (step, takes): (bool, Option<Taken>),
    ) {
        let guard = match self.scopes.as_slice() {
            [.., (Scope::Head { line, is_if: true, .. }, _), (Scope::Block, _)] => *line,
            _ => 0,
        };
        let name = name.to_owned();
        let (turn, literal) = self.around();
        let assigned =
            Assigned { name, declared, part, line, before: true, always: false, step, guard, takes, turn, literal };
        let is_same = |other: &Assigned| {
            (&other.name, other.declared, &other.part, other.line)
                == (&assigned.name, assigned.declared, &assigned.part, assigned.line)
        };
        if let Some(other) = self.facts.assigned.iter_mut().find(|other| is_same(other)) {
            // Several on one line: what is not true of all of them is said of none.
            other.step &= step;
            other.guard = if other.guard == guard { guard } else { 0 };
            other.takes = None;
            other.turn = other.turn.filter(|turn| Some(*turn) == assigned.turn);
            other.literal |= literal;
        } else if self.facts.assigned.len() < FACTS_MAX {
            self.open.push((self.facts.assigned.len(), self.scopes.len()));
            self.facts.assigned.push(assigned);
        }
    }

    /// The expressions on the left of an operator: first token, and the one behind the last.
    fn left_of(&self, operator: usize) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        let (mut depth, mut end, mut at) = (0usize, operator, operator);
        while let Some(before) = at.checked_sub(1) {
            let Some(token) = self.tokens.get(before) else { break };
            let is_bracket = token.kind == Kind::Symbol;
            match token.text {
                ")" | "]" | "}" if is_bracket => depth += 1,
                "(" | "[" | "{" if is_bracket && depth > 0 => depth -= 1,
                "," if depth == 0 => {
                    found.push((at, end));
                    end = before;
                }
                _ if depth > 0 => {}
                "(" | "[" | "{" | ":" | ":=" | "=" if is_bracket => break,
                _ if token.kind == Kind::End || token.kind == Kind::Name && is_word(token.text) => break,
                _ => {}
            }
            at = before;
        }
        found.push((at, end));
        found.reverse();
        found.retain(|(first, end)| first < end);
        found
    }
}

#[cfg(test)]
mod tests;
