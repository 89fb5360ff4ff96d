//! Things that many hits share, kept once: each has a small number while a hit uses it.
//!
//! Invariant: a number stands for one thing from its first use to its last; then both are free again, so that the
//! table is never larger than what the kept hits use.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// A table of shared things.
#[derive(Debug)]
pub(super) struct Shared<T: ?Sized> {
    numbers: HashMap<Arc<T>, u32>,
    things: Vec<Option<(Arc<T>, u32)>>,
    free: Vec<u32>,
}

impl<T: ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Shared { numbers: HashMap::new(), things: Vec::new(), free: Vec::new() }
    }
}

impl<T: Eq + Hash + ?Sized> Shared<T> {
    /// The number of a thing, used once more.
    pub(super) fn take<'a>(&mut self, thing: &'a T) -> u32
    where
        Arc<T>: From<&'a T>,
    {
        match self.numbers.get(thing) {
            Some(&number) => {
                if let Some(Some((_, uses))) = self.things.get_mut(number as usize) {
                    *uses += 1;
                }
                number
            }
            None => self.add(Arc::from(thing)),
        }
    }

    /// As [`Shared::take`], for things that are made of parts.
    pub(super) fn take_made(&mut self, thing: T) -> u32
    where
        T: Sized,
    {
        match self.numbers.get(&thing) {
            Some(&number) => {
                if let Some(Some((_, uses))) = self.things.get_mut(number as usize) {
                    *uses += 1;
                }
                number
            }
            None => self.add(Arc::new(thing)),
        }
    }

    fn add(&mut self, thing: Arc<T>) -> u32 {
        let entry = Some((thing.clone(), 1));
        let number = match self.free.pop() {
            Some(number) => {
                self.things[number as usize] = entry;
                number
            }
            None => {
                self.things.push(entry);
                // Fewer things than hits, and fewer hits than 2^32.
                (self.things.len() - 1) as u32
            }
        };
        self.numbers.insert(thing, number);
        number
    }

    /// The thing is used once less.
    pub(super) fn release(&mut self, number: u32) {
        let Some(slot) = self.things.get_mut(number as usize) else { return };
        let Some((thing, uses)) = slot else { return };
        *uses -= 1;
        if *uses == 0 {
            self.numbers.remove(thing);
            *slot = None;
            self.free.push(number);
        }
    }

    /// The thing of a number.
    pub(super) fn get(&self, number: u32) -> Option<&Arc<T>> {
        self.things.get(number as usize)?.as_ref().map(|(thing, _)| thing)
    }

    /// For each number, whether `wanted` holds for its thing.
    pub(super) fn marks(&self, wanted: impl Fn(&T) -> bool) -> Vec<bool> {
        self.things.iter().map(|thing| thing.as_ref().is_some_and(|(thing, _)| wanted(thing))).collect()
    }

    /// How many things are in use.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_has_one_number_until_its_last_use() {
        let mut shared: Shared<str> = Shared::default();
        let (a, b) = (shared.take("a"), shared.take("b"));
        assert_eq!((shared.take("a"), shared.len()), (a, 2));
        assert_eq!(shared.marks(|thing| thing == "b"), [false, true]);
        shared.release(a);
        assert_eq!(shared.get(a).map(AsRef::as_ref), Some("a"));
        shared.release(a);
        assert_eq!((shared.get(a), shared.len()), (None, 1));
        assert_eq!(shared.take("c"), a, "a number that is free is used again");
        assert_eq!(shared.get(b).map(AsRef::as_ref), Some("b"));
        shared.release(99);
    }
}
