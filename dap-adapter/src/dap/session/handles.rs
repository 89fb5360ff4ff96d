//! Numbers that the editor uses for things: variables, frames, sources.
//!
//! A thing is named by what it is (hit, scope, path of children), so it keeps its number while its hit is kept: a tree
//! that was opened stays open when the view moves away and back.

use std::collections::HashMap;
use std::sync::Arc;

/// The protocol wants references below 2^31.
const HANDLE_MAX: i64 = i32::MAX as i64;

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
    /// Variables of one scope, by its index in [`crate::timeline::values::SCOPES`].
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
    /// A file as a build knows it, which is not here.
    DeployedSource(String),
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
            Thing::DeployedSource(_) => None,
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
}

impl Handles {
    /// The number of a thing; 0 ("nothing to open") once all numbers have been used.
    pub(super) fn number(&mut self, thing: Thing) -> i64 {
        if let Some(&number) = self.numbers.get(&thing) {
            return number;
        }
        if self.last >= HANDLE_MAX {
            return 0;
        }
        self.last += 1;
        if let Some(seq) = thing.seq() {
            self.by_hit.entry(seq).or_default().push(self.last);
        }
        self.things.insert(self.last, thing.clone());
        self.numbers.insert(thing, self.last);
        self.last
    }

    /// The thing of a number.
    pub(super) fn thing(&self, number: i64) -> Option<&Thing> {
        self.things.get(&number)
    }

    /// Forgets all things of a hit that is not kept any more.
    pub(super) fn forget(&mut self, seq: u64) {
        for number in self.by_hit.remove(&seq).unwrap_or_default() {
            if let Some(thing) = self.things.remove(&number) {
                self.numbers.remove(&thing);
            }
        }
    }

    /// Forgets everything; numbers are not used again.
    pub(super) fn clear(&mut self) {
        *self = Handles { last: self.last, ..Handles::default() };
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
        assert_eq!(handles.thing(other), Some(&Thing::Value(8, vec![0, 1])));
        assert!(handles.number(Thing::Row(7)) > other, "numbers are not used twice");
        handles.forget(7);
        handles.forget(8);
        assert!(handles.things.is_empty() && handles.numbers.is_empty() && handles.by_hit.is_empty());
    }

    #[test]
    fn numbers_stay_below_the_protocols_bound() {
        let mut handles = Handles { last: HANDLE_MAX - 1, ..Handles::default() };
        assert_eq!(handles.number(Thing::Row(1)), HANDLE_MAX);
        assert_eq!(handles.number(Thing::Row(2)), 0);
    }
}
