//! Walks: what is followed in a value, laid flat for the executors.
//!
//! A [`Follow`] describes a type; a walk lists what a passage does in a value of it: the pointers, strings, slices and
//! switches at their offsets, through all structs. An executor goes through a *work list*: first the variables, then each
//! piece of memory that was reached, in the order in which it was reached (breadth first). Whatever is in place but not
//! laid flat (arrays, a struct within itself) is a work item of its own, of bytes that are there already.
//!
//! Both executors run walks, step by step, and count steps and items in the same way: that is what makes them equal.
//! Steps that lie beyond any hit's bytes are left out; a walk without steps is none.

use super::program::{Case, Count, Follow, FollowIndex, Key, Program, Reach};
use riptrace_protocol::limits::{HIT_BYTES_MAX, HIT_CHUNKS_MAX};
use std::collections::HashMap;

/// Work items of one hit beside its variables, at most: chunks, and what is followed in bytes that are there already.
pub(crate) const ITEMS_MAX: usize = HIT_CHUNKS_MAX;
/// Steps of one hit, at most, where each value of a work item counts as one, too: it bounds the time of a passage,
/// whatever the types are. A thousand chunks of fifteen fields each fit.
pub(crate) const STEPS_MAX: usize = 16 * HIT_CHUNKS_MAX;
/// Pointers below a variable, at most: each is a work item.
pub(crate) const DEPTH_MAX: u32 = ITEMS_MAX as u32;
/// Steps of one walk before its structs become work items: it keeps what nested types have in common in one place.
const FLAT_STEPS_MAX: usize = 64;
/// Cases of one switch before it becomes a work item where it lies in other values: its table is written once then.
const FLAT_CASES_MAX: usize = 4;
/// Structs within structs that are laid flat.
const FLAT_DEPTH_MAX: usize = 16;

/// Names a walk of [`Walks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct WalkIndex(pub(crate) u32);

/// One thing to do in a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// Offset in the value, in bytes; below [`HIT_BYTES_MAX`].
    pub(crate) at: u32,
    pub(crate) action: Action,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// The word is an address of `bytes` bytes. Uses up `cost` of the depth: one, or none for what belongs to the value.
    Pointer { bytes: u64, to: Option<WalkIndex>, cost: u8 },
    /// Two words: address and length of a string.
    Text { most: u32 },
    /// Three words: address, length and capacity of a slice.
    Slice { element_bytes: u64, most: u32, to: Option<WalkIndex> },
    /// The word is an address; the word at `count_at` of the value tells how many elements are there.
    Run { count_at: u32, count: Count, element_bytes: u64, most: u32, to: Option<WalkIndex> },
    /// `count` values lie here.
    Inside { count: u32, element_bytes: u64, to: WalkIndex },
    /// The key decides which walk comes next; then this one goes on. None of those walks has a switch.
    Switch { key: SwitchKey, cases: Vec<(u64, Option<WalkIndex>)>, otherwise: Option<WalkIndex> },
}

/// Where the key of a switch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SwitchKey {
    /// Here, in 1 to 8 bytes; 0 bytes are the key 0.
    Word { bytes: u8 },
    /// The word is an address; `bytes` there are captured, and the key is the word at `offset` from it.
    Through { offset: u64, bytes: u64 },
}

/// All walks of a program.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Walks {
    walks: Vec<Vec<Step>>,
    /// By [`FollowIndex`].
    of: Vec<Option<WalkIndex>>,
}

impl Walks {
    /// The walks of a program.
    pub(crate) fn of(program: &Program) -> Walks {
        Walks::of_types(&program.follow)
    }

    /// The walks of a table of types.
    pub(crate) fn of_types(follow: &[Follow]) -> Walks {
        let leads = leading(follow);
        let mut of = Vec::with_capacity(leads.len());
        let mut next = 0;
        for &leads in &leads {
            of.push(leads.then_some(WalkIndex(next)));
            next += u32::from(leads);
        }
        let mut flat = Flattening { follow, walks: vec![Vec::new(); next as usize], of: &of };
        for (index, walk) in of.iter().enumerate() {
            if let Some(walk) = *walk {
                let mut steps = Vec::new();
                flat.steps(index, 0, &mut Vec::new(), &mut steps);
                flat.walks[walk.0 as usize] = steps;
            }
        }
        let walks = flat.walks;
        Walks { walks, of }.without_empty_ones()
    }

    /// The steps of a walk: at least one.
    pub(crate) fn steps(&self, walk: WalkIndex) -> &[Step] {
        self.walks.get(walk.0 as usize).map_or(&[], Vec::as_slice)
    }

    /// What to do in a value of a type; `None` where there is nothing.
    pub(crate) fn at(&self, follow: FollowIndex) -> Option<WalkIndex> {
        self.of.get(follow.0 as usize).copied().flatten()
    }

    /// All walks, in the order of their indices.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[Step]> {
        self.walks.iter().map(Vec::as_slice)
    }

    /// Bytes of the tables that an executor makes of them, about: the code generator writes 32 for a step, twice that for
    /// a switch, 16 for a case, and an end for each walk.
    pub(crate) fn table_bytes(&self) -> usize {
        let of = |step: &Step| match &step.action {
            Action::Switch { cases, .. } => 64 + 16 * cases.len(),
            _ => 32,
        };
        self.walks.iter().map(|walk| 32 + walk.iter().map(of).sum::<usize>()).sum()
    }

    /// Steps that were left out may leave walks empty: they are none, and what only leads to them leads nowhere.
    fn without_empty_ones(mut self) -> Walks {
        loop {
            let is_empty: Vec<bool> = self.walks.iter().map(Vec::is_empty).collect();
            let mut changed = false;
            let mut clear = |to: &mut Option<WalkIndex>| {
                if to.is_some_and(|walk| is_empty[walk.0 as usize]) {
                    *to = None;
                    changed = true;
                }
            };
            self.of.iter_mut().for_each(&mut clear);
            for walk in &mut self.walks {
                for step in walk.iter_mut() {
                    match &mut step.action {
                        Action::Pointer { to, .. } | Action::Slice { to, .. } | Action::Run { to, .. } => clear(to),
                        Action::Switch { cases, otherwise, .. } => {
                            cases.iter_mut().for_each(|(_, to)| clear(to));
                            clear(otherwise);
                        }
                        Action::Text { .. } | Action::Inside { .. } => {}
                    }
                }
                walk.retain(|step| !matches!(step.action, Action::Inside { to, .. } if is_empty[to.0 as usize]));
            }
            let emptied = self.walks.iter().zip(&is_empty).any(|(walk, &was_empty)| walk.is_empty() && !was_empty);
            if !changed && !emptied {
                return self;
            }
        }
    }
}

/// Which types lead anywhere, by their index: those that reach more than plain bytes in place.
fn leading(follow: &[Follow]) -> Vec<bool> {
    let mut leads = vec![false; follow.len()];
    loop {
        let mut changed = false;
        for (index, follow) in follow.iter().enumerate() {
            let is = |at: &FollowIndex| leads.get(at.0 as usize).copied().unwrap_or(false);
            let now = match follow {
                Follow::Plain => false,
                Follow::Array { count, element, .. } => *count > 0 && is(element),
                Follow::Struct { fields } => fields.iter().any(|(_, field)| is(field)),
                _ => true,
            };
            changed |= now != leads[index];
            leads[index] = now;
        }
        if !changed {
            return leads;
        }
    }
}

struct Flattening<'p> {
    follow: &'p [Follow],
    walks: Vec<Vec<Step>>,
    of: &'p [Option<WalkIndex>],
}

impl Flattening<'_> {
    fn walk(&self, follow: FollowIndex) -> Option<WalkIndex> {
        self.of.get(follow.0 as usize).copied().flatten()
    }

    /// Appends what is to be done in a value of a type at an offset. `within`: the structs that it is in.
    fn steps(&mut self, index: usize, offset: u64, within: &mut Vec<usize>, steps: &mut Vec<Step>) {
        let follow = self.follow;
        let Some(at) = within_hit(offset) else { return };
        let action = match &follow[index] {
            Follow::Plain => return,
            Follow::Pointer { bytes, to } => Action::Pointer { bytes: *bytes, to: self.walk(*to), cost: 1 },
            Follow::Owned { bytes, to } => Action::Pointer { bytes: *bytes, to: self.walk(*to), cost: 0 },
            Follow::GoString { most } => Action::Text { most: *most },
            Follow::GoSlice { element_bytes, element, most } => {
                Action::Slice { element_bytes: *element_bytes, most: *most, to: self.walk(*element) }
            }
            Follow::Array { count, element_bytes, element, most } => match self.walk(*element) {
                Some(to) => Action::Inside {
                    count: (*count).min(u64::from(*most)).min(STEPS_MAX as u64) as u32,
                    element_bytes: *element_bytes,
                    to,
                },
                None => return,
            },
            Follow::Struct { fields } => {
                let Some(own) = self.of[index] else { return };
                let is_deep = within.len() >= FLAT_DEPTH_MAX || steps.len() >= FLAT_STEPS_MAX;
                if is_deep || within.contains(&index) {
                    Action::Inside { count: 1, element_bytes: 0, to: own }
                } else {
                    within.push(index);
                    for (field, follow) in fields {
                        if self.walk(*follow).is_some() {
                            self.steps(follow.0 as usize, offset.saturating_add(*field), within, steps);
                        }
                    }
                    within.pop();
                    return;
                }
            }
            Follow::Run { address_at, count_at, count, element_bytes, element, most } => {
                let (Some(at), Some(count_at)) =
                    (within_hit(offset.saturating_add(*address_at)), within_hit(offset.saturating_add(*count_at)))
                else {
                    return;
                };
                let (count, element_bytes, most, to) = (*count, *element_bytes, *most, self.walk(*element));
                steps.push(Step { at, action: Action::Run { count_at, count, element_bytes, most, to } });
                return;
            }
            Follow::Switch { cases, .. } if cases.len() > FLAT_CASES_MAX && (offset > 0 || !within.is_empty()) => {
                let Some(own) = self.of[index] else { return };
                Action::Inside { count: 1, element_bytes: 0, to: own }
            }
            Follow::Switch { key, value_at, cases, otherwise } => {
                let (key_at, key) = match *key {
                    Key::Word { at, bytes } => (at, SwitchKey::Word { bytes: bytes.min(8) }),
                    Key::Through { at, offset, bytes } => (at, SwitchKey::Through { offset, bytes }),
                };
                let Some(at) = within_hit(offset.saturating_add(key_at)) else { return };
                let value_at = offset.saturating_add(*value_at);
                // Sorted, each once: what an executor finds must not depend on how it searches.
                let mut sorted: Vec<(u64, Case)> = cases.clone();
                sorted.sort_by_key(|&(word, _)| word);
                sorted.dedup_by_key(|&mut (word, _)| word);
                let mut same = HashMap::new();
                let mut case =
                    |case: Case, flat: &mut Self| *same.entry(case).or_insert_with(|| flat.case(case, value_at));
                let cases = sorted.into_iter().map(|(word, it)| (word, case(it, self))).collect();
                let otherwise = otherwise.and_then(|it| case(it, self));
                steps.push(Step { at, action: Action::Switch { key, cases, otherwise } });
                return;
            }
        };
        steps.push(Step { at, action });
    }

    /// The walk of one case: a single step.
    fn case(&mut self, case: Case, value_at: u64) -> Option<WalkIndex> {
        let at = within_hit(value_at)?;
        let to = self.walk(case.follow);
        let action = match (case.reach, self.follow.get(case.follow.0 as usize)) {
            // What is a single step needs no work item of its own.
            (Reach::Here, Some(Follow::Pointer { bytes, to })) => {
                Action::Pointer { bytes: *bytes, to: self.walk(*to), cost: 1 }
            }
            (Reach::Here, Some(Follow::Owned { bytes, to })) => {
                Action::Pointer { bytes: *bytes, to: self.walk(*to), cost: 0 }
            }
            (Reach::Here, _) => Action::Inside { count: 1, element_bytes: 0, to: to? },
            (Reach::Address { bytes }, _) => Action::Pointer { bytes, to, cost: 1 },
        };
        self.walks.push(vec![Step { at, action }]);
        Some(WalkIndex(self.walks.len() as u32 - 1))
    }
}

/// An offset that may lie in a hit's bytes.
fn within_hit(offset: u64) -> Option<u32> {
    u32::try_from(offset).ok().filter(|&offset| (offset as usize) < HIT_BYTES_MAX)
}

/// What following may take at most: work items and bytes of chunks, for a record's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Extent {
    pub(crate) items: u32,
    pub(crate) bytes: u32,
}

impl Extent {
    const ALL: Extent = Extent { items: ITEMS_MAX as u32, bytes: HIT_BYTES_MAX as u32 };

    fn plus(self, other: Extent) -> Extent {
        Extent {
            items: self.items.saturating_add(other.items).min(Extent::ALL.items),
            bytes: self.bytes.saturating_add(other.bytes).min(Extent::ALL.bytes),
        }
    }

    fn times(self, count: u64) -> Extent {
        let times = |value: u32, most: u32| u64::from(value).saturating_mul(count).min(u64::from(most)) as u32;
        Extent { items: times(self.items, Extent::ALL.items), bytes: times(self.bytes, Extent::ALL.bytes) }
    }

    fn most(self, other: Extent) -> Extent {
        Extent { items: self.items.max(other.items), bytes: self.bytes.max(other.bytes) }
    }
}

/// Depths of pointers that an [`Extent`] is counted for; beyond, it is all.
const EXTENT_DEPTH_MAX: u32 = 8;
/// Types within types that an [`Extent`] is counted for; beyond, it is all.
const EXTENT_NESTING_MAX: usize = 128;

/// What following the values of all `roots` may take, each with its depth.
pub(crate) fn extent(walks: &Walks, roots: impl Iterator<Item = (WalkIndex, u32)>) -> Extent {
    let mut counting = Counting { walks, known: HashMap::new(), nesting: 0 };
    roots.fold(Extent::default(), |extent, (walk, depth)| extent.plus(counting.walk(Some(walk), depth.min(DEPTH_MAX))))
}

struct Counting<'w> {
    walks: &'w Walks,
    /// `None` while it is being counted: a walk that leads to itself has no bound of its own.
    known: HashMap<(WalkIndex, u32), Option<Extent>>,
    nesting: usize,
}

impl Counting<'_> {
    fn walk(&mut self, walk: Option<WalkIndex>, depth: u32) -> Extent {
        let Some(walk) = walk else { return Extent::default() };
        if depth > EXTENT_DEPTH_MAX || self.nesting > EXTENT_NESTING_MAX {
            return Extent::ALL;
        }
        if let Some(known) = self.known.get(&(walk, depth)) {
            return known.unwrap_or(Extent::ALL);
        }
        self.known.insert((walk, depth), None);
        let walks = self.walks;
        self.nesting += 1;
        let sum = walks.steps(walk).iter().fold(Extent::default(), |sum, step| sum.plus(self.step(step, depth)));
        self.nesting -= 1;
        self.known.insert((walk, depth), Some(sum));
        sum
    }

    fn step(&mut self, step: &Step, depth: u32) -> Extent {
        let chunk = |bytes: u64| Extent { items: 1, bytes: bytes.min(HIT_BYTES_MAX as u64) as u32 };
        match &step.action {
            Action::Pointer { bytes, to, cost } => match depth.checked_sub(u32::from(*cost)) {
                Some(depth) => chunk(*bytes).plus(self.walk(*to, depth)),
                None => Extent::default(),
            },
            Action::Text { most } => chunk(u64::from(*most)),
            Action::Slice { element_bytes, most, to } | Action::Run { element_bytes, most, to, .. } => {
                let count = u64::from(*most);
                chunk(count.saturating_mul(*element_bytes)).plus(self.walk(*to, depth).times(count))
            }
            Action::Inside { count, to, .. } => chunk(0).plus(self.walk(Some(*to), depth).times(u64::from(*count))),
            Action::Switch { key, cases, otherwise } => {
                let own = match key {
                    SwitchKey::Word { .. } => Extent::default(),
                    SwitchKey::Through { bytes, .. } => chunk(*bytes),
                };
                let ways = cases.iter().map(|&(_, to)| to).chain([*otherwise]);
                own.plus(ways.fold(Extent::default(), |most, to| most.most(self.walk(to, depth))))
            }
        }
    }
}
