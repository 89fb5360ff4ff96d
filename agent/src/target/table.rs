//! Tables of 64-bit words, in memory or in a file of the cache: what is searched in place need not be read first.
//!
//! Words are little endian. A table of the cache is as trustworthy as its checksum; a row that is not there is `None`,
//! and what a row says is checked by whoever reads it.

use super::Content;
use std::ops::Range;
use std::sync::Arc;

/// Rows of so many words each, in an order that whoever made them has chosen.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table<const WORDS: usize> {
    content: Arc<Content>,
    /// Where in the content; a multiple of a row.
    at: Range<usize>,
}

impl<const WORDS: usize> Table<WORDS> {
    /// Bytes of a row.
    pub(crate) const ROW_BYTES: usize = WORDS * 8;

    /// All of some bytes; `None` when they are no whole rows.
    pub(crate) fn of(content: Content) -> Option<Table<WORDS>> {
        let rows = content.len() / Self::ROW_BYTES;
        Table::within(&Arc::new(content), 0, rows).filter(|table| table.at.end == table.content.len())
    }

    /// So many rows from a byte on; `None` when they are not all there.
    pub(crate) fn within(content: &Arc<Content>, from: usize, rows: usize) -> Option<Table<WORDS>> {
        let end = from.checked_add(rows.checked_mul(Self::ROW_BYTES)?)?;
        (end <= content.len()).then(|| Table { content: Arc::clone(content), at: from..end })
    }

    /// How many rows.
    pub(crate) fn len(&self) -> usize {
        self.at.len() / Self::ROW_BYTES
    }

    /// A row by its number.
    pub(crate) fn row(&self, number: usize) -> Option<[u64; WORDS]> {
        let from = self.at.start + number.checked_mul(Self::ROW_BYTES)?;
        let row = self.content.get(from..from.checked_add(Self::ROW_BYTES)?).filter(|_| from < self.at.end)?;
        let mut words = row.chunks_exact(8).filter_map(|word| word.try_into().ok()).map(u64::from_le_bytes);
        Some(std::array::from_fn(|_| words.next().unwrap_or_default()))
    }

    /// Rows by their numbers, as far as there are any.
    pub(crate) fn rows(&self, numbers: Range<usize>) -> impl DoubleEndedIterator<Item = [u64; WORDS]> + '_ {
        (numbers.start..numbers.end.min(self.len())).filter_map(|number| self.row(number))
    }

    /// The number of the first row that is `false`, as [`slice::partition_point`] has it.
    pub(crate) fn partition_point(&self, mut is_before: impl FnMut([u64; WORDS]) -> bool) -> usize {
        let mut range = 0..self.len();
        while !range.is_empty() {
            let middle = range.start + range.len() / 2;
            match self.row(middle) {
                Some(row) if is_before(row) => range.start = middle + 1,
                _ => range.end = middle,
            }
        }
        range.start
    }
}

/// Words as they are stored.
pub(crate) fn bytes_of(words: impl IntoIterator<Item = u64>) -> Vec<u8> {
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rows_are_whole_and_within() {
        let content = || Content::Held(bytes_of(0..7));
        assert!(Table::<2>::of(content()).is_none(), "half a row is left");
        let table = Table::<7>::of(content()).unwrap();
        assert_eq!((table.len(), table.row(0), table.row(1)), (1, Some([0, 1, 2, 3, 4, 5, 6]), None));
        let content = Arc::new(content());
        let two = Table::<2>::within(&content, 8, 2).unwrap();
        assert_eq!((two.row(0), two.row(1), two.row(2)), (Some([1, 2]), Some([3, 4]), None), "the rest is not its own");
        assert_eq!(two.rows(1..9).collect::<Vec<_>>(), [[3, 4]]);
        assert_eq!((two.row(usize::MAX), two.row(usize::MAX / 16)), (None, None));
        assert!(Table::<2>::within(&content, 8, 4).is_none());
        assert!(Table::<2>::within(&content, usize::MAX, 1).is_none());
        assert!(Table::<2>::within(&content, 0, usize::MAX).is_none());
    }

    proptest! {
        #[test]
        fn the_first_row_behind_is_found(mut starts in prop::collection::vec(0u64..50, 0..40), wanted in 0u64..50) {
            starts.sort_unstable();
            let table = Table::<1>::of(Content::Held(bytes_of(starts.iter().copied()))).unwrap();
            let expected = starts.partition_point(|start| *start <= wanted);
            prop_assert_eq!(table.partition_point(|[start]| start <= wanted), expected);
        }
    }
}
