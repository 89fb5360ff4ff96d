//! Numbers that the editor uses for things: variables, frames, sources.
//!
//! A thing is named by what it is (hit, scope, path of children), so it keeps its number while its hit is kept: a tree
//! that was opened stays open when the view moves away and back. A row and its record are numbered by their hit's own
//! number: an editor asks for the record behind each row as it comes, and hundreds of thousands of them must cost nothing.

use super::super::limits::HITS_WITH_NUMBERS_MAX;
use riptrace_protocol::ids::BuildId;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Numbers of all things but rows and records; the protocol wants all references below 2^31.
const HANDLE_MAX: i64 = (1 << 30) - 1;
/// Numbers of rows: this and the hit's number, modulo [`SPAN`].
const ROWS: i64 = 1 << 30;
/// Numbers of records.
const RECORDS: i64 = ROWS + SPAN as i64;
/// Hits that are kept at the same time are fewer by far, so that each has a number of its own.
const SPAN: u64 = (1 << 29) - 1;

/// What a number stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Thing {
    /// The output row of a hit: has exactly one child, its record.
    Row(u64),
    /// All that is known of a hit.
    Record(u64),
    /// Where, when and how certain.
    Facts(u64),
    /// Call stack as variables.
    Stack(u64),
    /// Variables of one group, by its index in [`crate::timeline::values::GROUPS`].
    Scope(u64, usize),
    /// What is said where there are no variables.
    Nothing(u64),
    /// What is said of the variables of outer frames.
    OuterFrame(u64),
    /// Children of a captured variable: its index in the hit's values, then indices of children.
    Value(u64, Vec<u32>),
    /// Children of an expression's value: the expression, then indices of children.
    Evaluated(u64, Arc<str>, Vec<u32>),
    /// A frame of a hit's call stack.
    Frame(u64, usize),
    /// A file as a build has it.
    DeployedSource(String, Option<BuildId>),
    /// Where a variable is declared: a file as the build knows it, and a line.
    Declared(String, u32),
    /// The function of this name, which is a variable's value.
    Function(String),
}

impl Thing {
    /// The hit that it belongs to.
    pub(super) fn seq(&self) -> Option<u64> {
        match self {
            Thing::Row(seq)
            | Thing::Record(seq)
            | Thing::Facts(seq)
            | Thing::Stack(seq)
            | Thing::Scope(seq, _)
            | Thing::Nothing(seq)
            | Thing::OuterFrame(seq)
            | Thing::Value(seq, _)
            | Thing::Evaluated(seq, _, _)
            | Thing::Frame(seq, _) => Some(*seq),
            Thing::DeployedSource(..) | Thing::Declared(..) | Thing::Function(_) => None,
        }
    }
}

/// The numbers in use.
#[derive(Debug, Default)]
pub(super) struct Handles {
    last: i64,
    things: HashMap<i64, Thing>,
    numbers: HashMap<Thing, i64>,
    by_hit: HashMap<u64, Vec<i64>>,
    /// Hits with numbers, oldest first.
    hits: VecDeque<u64>,
    /// The newest hit that has a row: tells which hit a row's number means.
    newest: u64,
}

impl Handles {
    /// The number of a thing; 0 ("nothing to open") once all numbers have been used.
    pub(super) fn number(&mut self, thing: Thing) -> i64 {
        match thing {
            Thing::Row(seq) => {
                self.newest = self.newest.max(seq);
                return ROWS + (seq % SPAN) as i64;
            }
            Thing::Record(seq) => {
                self.newest = self.newest.max(seq);
                return RECORDS + (seq % SPAN) as i64;
            }
            _ => {}
        }
        if let Some(&number) = self.numbers.get(&thing) {
            return number;
        }
        if self.last >= HANDLE_MAX {
            return 0;
        }
        self.last += 1;
        if let Some(seq) = thing.seq() {
            if !self.by_hit.contains_key(&seq) {
                self.hits.push_back(seq);
            }
            self.by_hit.entry(seq).or_default().push(self.last);
            while self.by_hit.len() > HITS_WITH_NUMBERS_MAX {
                if let Some(oldest) = self.hits.pop_front().filter(|oldest| *oldest != seq) {
                    self.forget(oldest);
                }
            }
        }
        self.things.insert(self.last, thing.clone());
        self.numbers.insert(thing, self.last);
        self.last
    }

    /// The thing of a number.
    pub(super) fn thing(&self, number: i64) -> Option<Thing> {
        match number {
            ROWS..RECORDS => self.hit_at((number - ROWS) as u64).map(Thing::Row),
            RECORDS..=0x7fff_ffff => self.hit_at((number - RECORDS) as u64).map(Thing::Record),
            _ => self.things.get(&number).cloned(),
        }
    }

    /// The newest hit whose number leaves this rest.
    fn hit_at(&self, rest: u64) -> Option<u64> {
        let newest = self.newest;
        newest.checked_sub((newest % SPAN + SPAN - rest % SPAN) % SPAN).filter(|&seq| seq > 0)
    }

    /// Forgets all things of a hit that is not kept any more.
    pub(super) fn forget(&mut self, seq: u64) {
        if self.hits.len() > 2 * HITS_WITH_NUMBERS_MAX {
            self.hits.retain(|seq| self.by_hit.contains_key(seq));
        }
        for number in self.by_hit.remove(&seq).unwrap_or_default() {
            if let Some(thing) = self.things.remove(&number) {
                self.numbers.remove(&thing);
            }
        }
    }

    /// Forgets everything; numbers are not used again.
    pub(super) fn clear(&mut self) {
        *self = Handles { last: self.last, newest: self.newest, ..Handles::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_keeps_its_number_until_its_hit_is_forgotten() {
        let mut handles = Handles::default();
        let one = handles.number(Thing::Value(7, vec![0, 1]));
        assert_eq!(handles.number(Thing::Value(7, vec![0, 1])), one);
        let other = handles.number(Thing::Value(8, vec![0, 1]));
        assert_ne!(one, other);
        handles.forget(7);
        assert_eq!(handles.thing(one), None);
        assert_eq!(handles.thing(other), Some(Thing::Value(8, vec![0, 1])));
        assert!(handles.number(Thing::Facts(7)) > other, "numbers are not used twice");
        handles.forget(7);
        handles.forget(8);
        assert!(handles.things.is_empty() && handles.numbers.is_empty() && handles.by_hit.is_empty());
    }

    #[test]
    fn numbers_stay_below_the_protocols_bound() {
        let mut handles = Handles { last: HANDLE_MAX - 1, ..Handles::default() };
        assert_eq!(handles.number(Thing::Facts(1)), HANDLE_MAX);
        assert_eq!(handles.number(Thing::Facts(2)), 0);
        assert!(RECORDS + (SPAN as i64) <= 1 << 31);
    }

    #[test]
    fn rows_and_records_are_numbered_by_their_hits_and_take_no_room() {
        let mut handles = Handles::default();
        assert_eq!(handles.thing(ROWS + 5), None, "there is no such hit yet");
        for seq in [1, 2, SPAN - 1, SPAN, SPAN + 1, 3 * SPAN + 7] {
            let (row, record) = (handles.number(Thing::Row(seq)), handles.number(Thing::Record(seq)));
            assert!(row > HANDLE_MAX && record > row && record < 1 << 31);
            assert_eq!(handles.thing(row), Some(Thing::Row(seq)));
            assert_eq!(handles.thing(record), Some(Thing::Record(seq)));
        }
        let old = handles.number(Thing::Row(3 * SPAN - 2));
        assert_eq!(handles.thing(old), Some(Thing::Row(3 * SPAN - 2)), "an older hit keeps its number");
        assert!(handles.things.is_empty() && handles.by_hit.is_empty());
    }

    #[test]
    fn only_the_hits_that_were_looked_at_last_have_numbers() {
        let mut handles = Handles::default();
        let first = handles.number(Thing::Facts(1));
        for seq in 2..=HITS_WITH_NUMBERS_MAX as u64 + 1 {
            handles.number(Thing::Facts(seq));
        }
        assert_eq!((handles.thing(first), handles.by_hit.len()), (None, HITS_WITH_NUMBERS_MAX));
    }
}
