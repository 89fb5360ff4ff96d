//! Two texts of a file, and which line of one is which line of the other.

use similar::{Algorithm, DiffOp, capture_diff_slices};

/// Lines in which two texts may differ before they are taken as unrelated: what the difference costs grows with the
/// square, and this takes well below a second.
const DIFFERENT_LINES_MAX: usize = 20_000;

/// Maps lines between the local text of a file and its deployed text. Lines count from 1.
///
/// Only lines with the same text (but for blanks at the end) map to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineMap {
    /// Runs of equal lines, in order of both texts.
    runs: Vec<Run>,
    local_lines: u32,
    deployed_lines: u32,
}

/// `len` lines that are the same from `local` and `deployed` on, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    local: usize,
    deployed: usize,
    len: usize,
}

impl LineMap {
    /// Compares two texts.
    pub fn new(local: &str, deployed: &str) -> LineMap {
        let lines = |text| str::lines(text).map(str::trim_end).collect::<Vec<_>>();
        let (local, deployed): (Vec<&str>, Vec<&str>) = (lines(local), lines(deployed));
        let prefix = local.iter().zip(&deployed).take_while(|(l, d)| l == d).count();
        let (local_rest, deployed_rest) = (&local[prefix..], &deployed[prefix..]);
        let suffix = local_rest.iter().rev().zip(deployed_rest.iter().rev()).take_while(|(l, d)| l == d).count();
        let local_middle = &local_rest[..local_rest.len() - suffix];
        let deployed_middle = &deployed_rest[..deployed_rest.len() - suffix];

        let mut runs = vec![Run { local: 0, deployed: 0, len: prefix }];
        if local_middle.len() + deployed_middle.len() <= DIFFERENT_LINES_MAX {
            for op in capture_diff_slices(Algorithm::Histogram, local_middle, deployed_middle) {
                if let DiffOp::Equal { old_index, new_index, len } = op {
                    runs.push(Run { local: prefix + old_index, deployed: prefix + new_index, len });
                }
            }
        }
        runs.push(Run { local: local.len() - suffix, deployed: deployed.len() - suffix, len: suffix });
        runs.retain(|run| run.len > 0);
        LineMap { runs, local_lines: count(&local), deployed_lines: count(&deployed) }
    }

    /// The deployed line of a local one; `None` when the build does not have it.
    pub fn to_deployed(&self, line: u32) -> Option<u32> {
        find(&self.runs, line, |run| run.local, |run| run.deployed)
    }

    /// The local line of a deployed one; `None` when the local text does not have it.
    pub fn to_local(&self, line: u32) -> Option<u32> {
        find(&self.runs, line, |run| run.deployed, |run| run.local)
    }

    /// The local line nearest to this one that the build has: what to try instead.
    pub fn nearest_local(&self, line: u32) -> Option<u32> {
        let index = index(line);
        let candidates = self.runs.iter().map(|run| index.clamp(run.local, run.local + run.len - 1));
        let nearest = candidates.min_by_key(|&candidate| (candidate.abs_diff(index), candidate < index))?;
        u32::try_from(nearest + 1).ok()
    }

    /// How many lines the local text has.
    pub fn local_lines(&self) -> u32 {
        self.local_lines
    }

    /// How many lines the deployed text has.
    pub fn deployed_lines(&self) -> u32 {
        self.deployed_lines
    }

    /// Whether both texts are the same (but for blanks at the ends of lines).
    pub fn is_identity(&self) -> bool {
        let whole = |run: &Run| run.local == 0 && run.deployed == 0 && self.local_lines as usize == run.len;
        self.local_lines == self.deployed_lines && (self.local_lines == 0 || self.runs.first().is_some_and(whole))
    }
}

fn count(lines: &[&str]) -> u32 {
    u32::try_from(lines.len()).unwrap_or(u32::MAX)
}

/// Line 0 does not exist: it becomes an index that no run has.
fn index(line: u32) -> usize {
    (line as usize).wrapping_sub(1)
}

fn find(runs: &[Run], line: u32, from: impl Fn(&Run) -> usize, to: impl Fn(&Run) -> usize) -> Option<u32> {
    let index = index(line);
    let behind = runs.partition_point(|run| from(run) <= index);
    let run = runs.get(behind.checked_sub(1)?)?;
    let offset = index - from(run);
    if offset < run.len { u32::try_from(to(run) + offset + 1).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DEPLOYED: &str = "package cart\n\nfunc Add(n int) {\n\ttotal += n\n\tsave()\n}\n";

    #[test]
    fn lines_behind_an_insertion_move() {
        let local = "package cart\n\n// Add adds.\nfunc Add(n int) {\n\ttotal += n\n\tlog(n)\n\tsave()\n}\n";
        let map = LineMap::new(local, DEPLOYED);
        let mapped: Vec<_> = (0..=9).map(|line| map.to_deployed(line)).collect();
        let expected = [None, Some(1), Some(2), None, Some(3), Some(4), None, Some(5), Some(6), None];
        assert_eq!(mapped, expected);
        assert_eq!(map.to_local(5), Some(7));
        assert_eq!(map.nearest_local(6), Some(7));
        assert_eq!(map.nearest_local(100), Some(8));
        assert!(!map.is_identity());
    }

    #[test]
    fn an_edited_line_is_not_the_line_it_was() {
        let map = LineMap::new(&DEPLOYED.replace("total += n", "total += 2 * n"), DEPLOYED);
        assert_eq!(map.to_deployed(4), None);
        assert_eq!(map.to_local(4), None);
        assert_eq!(map.to_deployed(5), Some(5));
    }

    #[test]
    fn blanks_at_the_ends_of_lines_do_not_matter() {
        let map = LineMap::new(&DEPLOYED.replace('\n', "\r\n"), DEPLOYED);
        assert!(map.is_identity());
        assert_eq!(map.to_deployed(4), Some(4));
    }

    #[test]
    fn texts_that_are_unrelated_or_empty_map_nothing() {
        assert_eq!(LineMap::new("a\nb\n", "c\n").to_deployed(1), None);
        assert_eq!(LineMap::new("a\nb\n", "c\n").nearest_local(1), None);
        assert!(LineMap::new("", "").is_identity());
        assert_eq!(LineMap::new("", "").to_deployed(1), None);
        let many = |prefix: &str| (0..30_000).map(|i| format!("{prefix}{i}\n")).collect::<String>();
        let map = LineMap::new(&format!("same\n{}", many("a")), &format!("same\n{}", many("b")));
        assert_eq!((map.to_deployed(1), map.to_deployed(2)), (Some(1), None));
    }

    fn texts() -> impl Strategy<Value = (Vec<String>, Vec<String>)> {
        let line = || prop_oneof![Just("}".to_owned()), Just(String::new()), "[a-e]"];
        let edits = proptest::collection::vec((any::<prop::sample::Index>(), line(), 0..3u8), 0..8);
        (proptest::collection::vec(line(), 0..30), edits).prop_map(|(deployed, edits)| {
            let mut local = deployed.clone();
            for (at, text, kind) in edits {
                let index = at.index(local.len() + 1);
                match kind {
                    0 => local.insert(index, text),
                    1 if index < local.len() => drop(local.remove(index)),
                    _ if index < local.len() => local[index] = text,
                    _ => {}
                }
            }
            (local, deployed)
        })
    }

    proptest! {
        #[test]
        fn a_line_maps_to_the_same_text_and_back((local, deployed) in texts()) {
            let map = LineMap::new(&local.join("\n"), &deployed.join("\n"));
            let mut last = 0;
            for line in 0..=local.len() as u32 + 2 {
                if let Some(there) = map.to_deployed(line) {
                    prop_assert_eq!(&local[line as usize - 1], &deployed[there as usize - 1]);
                    prop_assert_eq!(map.to_local(there), Some(line));
                    prop_assert!(there > last, "order is kept");
                    last = there;
                }
            }
            for line in 0..=deployed.len() as u32 + 2 {
                if let Some(here) = map.to_local(line) {
                    prop_assert_eq!(map.to_deployed(here), Some(line));
                }
            }
        }

        #[test]
        fn an_insertion_moves_only_what_is_behind_it(
            deployed in proptest::collection::vec("[a-z]{1,3}", 1..30),
            at in any::<prop::sample::Index>(),
        ) {
            let at = at.index(deployed.len() + 1);
            let mut local = deployed.clone();
            local.insert(at, "// a line that is not there".to_owned());
            let map = LineMap::new(&local.join("\n"), &deployed.join("\n"));
            for line in 1..=local.len() as u32 {
                let expected = match (line as usize - 1).cmp(&at) {
                    std::cmp::Ordering::Less => Some(line),
                    std::cmp::Ordering::Equal => None,
                    std::cmp::Ordering::Greater => Some(line - 1),
                };
                prop_assert_eq!(map.to_deployed(line), expected);
            }
        }
    }
}
