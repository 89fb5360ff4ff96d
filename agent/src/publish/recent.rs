//! A bounded map that forgets what was not used for longest, roughly.
//!
//! Two generations: an entry that is used moves to the young one; when that is full, the old one is forgotten and the
//! young one becomes old. Each operation is one or two look-ups, and at most `capacity` entries are kept; of these,
//! the half that was used last is always among them.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;

/// A bounded map.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    generation_entries_max: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    /// Keeps at most `capacity` entries (at least two).
    pub(crate) fn new(capacity: usize) -> Recent<K, V> {
        Recent { generation_entries_max: (capacity / 2).max(1), young: HashMap::new(), old: HashMap::new() }
    }

    /// Whether the key is there; does not count as a use.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.young.contains_key(key) || self.old.contains_key(key)
    }

    /// Looks up and marks as used.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        if !self.young.contains_key(key) {
            let (key, value) = self.old.remove_entry(key)?;
            self.insert(key, value);
        }
        self.young.get_mut(key)
    }

    /// Adds or replaces.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.young.len() >= self.generation_entries_max && !self.young.contains_key(&key) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// Forgets the entries for which `keep` does not hold.
    pub(crate) fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.young.retain(|key, _| keep(key));
        self.old.retain(|key, _| keep(key));
    }

    /// Every entry, those used last first.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.young.values().chain(self.old.values())
    }

    /// Every entry, to be changed.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.young.values_mut().chain(self.old.values_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_what_was_used_last_and_never_more_than_its_capacity() {
        let mut recent = Recent::new(8);
        for key in 0..100 {
            recent.insert(key, key);
            assert_eq!(recent.get_mut(&0).copied(), Some(0), "key 0 is used all the time (at {key})");
            assert!(recent.values().count() <= 8);
        }
        assert!(recent.contains(&99) && !recent.contains(&50));
        recent.insert(99, 1);
        assert_eq!(recent.get_mut(&99).copied(), Some(1));
        assert_eq!(recent.values().filter(|value| **value == 99).count(), 0);
        recent.retain(|key| *key == 0);
        assert_eq!(recent.values().copied().collect::<Vec<_>>(), [0]);
    }
}
