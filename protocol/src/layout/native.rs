//! Types that Rust, C and C++ have: what is where in a value, so that it can be read without knowing the library that it
//! is of. The agent finds the places by the names of members in the debug information.

use super::{DynamicType, Field, TypeIndex};
use serde::{Deserialize, Serialize};

/// What a type of Rust, C or C++ is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NativeKind {
    /// A character: a Unicode scalar value in 4 bytes.
    Char,
    /// Characters in place: a text up to the first zero byte.
    CharArray,
    /// The address of a text that ends with a zero byte.
    CharPointer,
    /// A text elsewhere.
    Text {
        /// Offset of the word with its address.
        address_at: u32,
        /// Offset of the word with its length in bytes.
        length_at: u32,
    },
    /// Elements elsewhere, back to back.
    Sequence {
        /// Offset of the word with their address.
        address_at: u32,
        /// How many there are.
        length: SequenceLength,
        /// Element.
        element: TypeIndex,
    },
    /// Entries of a linked list, each a node of its own: `next` first, the entry behind it.
    List {
        /// Offset of the word with the address of the first node.
        first_at: u32,
        /// Offset of the word with the number of entries.
        count_at: u32,
        /// Offset of the entry in a node; the address of the next node is its first word.
        entry_at: u32,
        /// Entry.
        entry: TypeIndex,
    },
    /// Entries of a binary search tree, each a node of its own, in their order.
    Tree {
        /// Offset of the word with the address of the root.
        root_at: u32,
        /// Offset of the word with the number of entries.
        count_at: u32,
        /// Offset in a node of the address of its left child.
        left_at: u32,
        /// Of its right child.
        right_at: u32,
        /// Of the entry.
        entry_at: u32,
        /// Entry.
        entry: TypeIndex,
    },
    /// It is shown as a part of it: what a wrapper holds.
    Part {
        /// Offset of the part.
        at: u32,
        /// Type of the part.
        ty: TypeIndex,
    },
    /// An address of one value that is the value's own, or stands for it: a reference, a smart pointer.
    Reference {
        /// Offset of the word with the address.
        at: u32,
        /// What is there; `None` where that is not known.
        to: Option<TypeIndex>,
    },
    /// Several readings of the same bytes: which one is meant, nothing tells.
    Union {
        /// The readings.
        fields: Vec<Field>,
    },
    /// Some bits of an integer.
    Bits {
        /// Type of the integer that the bits make.
        ty: TypeIndex,
        /// Bits below them, in the value's bytes.
        shift: u8,
        /// How many, 1 to 64.
        bits: u8,
    },
    /// One of several types, told by a word in the value.
    Variants {
        /// Offset and size (1, 2, 4, 8 or 16 bytes) of the word; `None` where there is only one.
        tag: Option<(u32, u8)>,
        /// The types.
        variants: Vec<Variant>,
    },
    /// Elements elsewhere, in a buffer that begins anew where it ends: the first may be in the middle of it.
    Ring {
        /// Offset of the word with the address of the buffer.
        address_at: u32,
        /// Offset of the word with the number of elements that it has room for.
        capacity_at: u32,
        /// Offset of the word with the place of the first element.
        first_at: u32,
        /// Offset of the word with the number of elements.
        length_at: u32,
        /// Element.
        element: TypeIndex,
    },
    /// Entries of a hash table, each in a place that its hash tells, in one block: the entries lie in front of an address,
    /// from it backwards, and behind it a byte for each place, whose upper bit is not set where there is one.
    HashTable {
        /// Offset of the word with the address.
        control_at: u32,
        /// Offset of the word with the number of places, less one.
        mask_at: u32,
        /// Offset of the word with the number of entries.
        count_at: u32,
        /// Entry.
        entry: TypeIndex,
    },
    /// Entries of a B-tree, in their order: nodes of up to [`B_TREE_ENTRIES_MAX`] entries, all leaves at one level.
    BTree(BTreeForm),
    /// The address of a value whose type a table tells, of which the value knows the address.
    Object {
        /// Offset of the word with the address of the value.
        at: u32,
        /// Where the address of the table is.
        table: ObjectTable,
        /// Types that it may have, by the addresses of their tables.
        cases: Vec<DynamicType>,
    },
    /// A text or elements elsewhere, behind the [`COUNTS_BYTES`] that count who shares them.
    Shared {
        /// Offset of the word with the address of the counts.
        address_at: u32,
        /// Offset of the word with the number of elements, of a text in bytes.
        length_at: u32,
        /// Element; `None` for a text.
        element: Option<TypeIndex>,
    },
}

/// Where the table is named that tells the type of a [`NativeKind::Object`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectTable {
    /// Beside the address of the value (Rust's trait objects): a type that is not known is none.
    Beside {
        /// Offset of the word with the address of the table.
        at: u32,
    },
    /// The value's own first word (objects of C++ with virtual functions).
    First {
        /// The type that the source gives it: what is shown where the table tells none.
        declared: TypeIndex,
        /// It is shown as what it leads to, not as an address.
        is_reference: bool,
    },
}

/// Entries of one node of a [`NativeKind::BTree`], at most (`CAPACITY` of Rust's `alloc::collections::btree::node`).
pub const B_TREE_ENTRIES_MAX: u32 = 11;

/// Bytes of the counts in front of what a [`NativeKind::Shared`] leads to: two words (`RcInner` of Rust's `alloc::rc`,
/// `ArcInner` of `alloc::sync`).
pub const COUNTS_BYTES: u64 = 16;

/// Where things are in a B-tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BTreeForm {
    /// Offset of the word with the address of the root; 0 where there is none.
    pub root_at: u32,
    /// Offset of the word with the number of levels above the leaves; it means nothing without a root.
    pub height_at: u32,
    /// Offset of the word with the number of entries.
    pub count_at: u32,
    /// Bytes of a leaf, which every other node begins with.
    pub leaf_bytes: u32,
    /// In a node: offset of the number of its entries, u16.
    pub used_at: u32,
    /// In a node: offset of its keys, back to back.
    pub keys_at: u32,
    /// In a node: offset of its values, back to back.
    pub values_at: u32,
    /// In a node that is no leaf: offset of the addresses of the nodes between its entries, one more than those.
    pub edges_at: u32,
    /// Key.
    pub key: TypeIndex,
    /// Value; `None` for a set.
    pub value: Option<TypeIndex>,
}

/// How the number of elements of a [`NativeKind::Sequence`] is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SequenceLength {
    /// The word at this offset.
    Count(u32),
    /// The word at this offset is the address behind the last.
    End(u32),
}

/// One of the types of a [`NativeKind::Variants`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// Its name in the source.
    pub name: String,
    /// Values of the word that mean it, first and last; none for the one that all other values mean.
    pub tags: Vec<(u64, u64)>,
    /// Offset of what it holds.
    pub at: u32,
    /// What it holds; `None` for nothing.
    pub ty: Option<TypeIndex>,
}

impl NativeKind {
    /// All types that it names.
    pub(super) fn types(&self) -> Vec<TypeIndex> {
        match self {
            NativeKind::Char | NativeKind::CharArray | NativeKind::CharPointer | NativeKind::Text { .. } => Vec::new(),
            NativeKind::Sequence { element: ty, .. }
            | NativeKind::Ring { element: ty, .. }
            | NativeKind::HashTable { entry: ty, .. }
            | NativeKind::List { entry: ty, .. }
            | NativeKind::Tree { entry: ty, .. }
            | NativeKind::Part { ty, .. }
            | NativeKind::Bits { ty, .. } => vec![*ty],
            NativeKind::BTree(form) => [Some(form.key), form.value].into_iter().flatten().collect(),
            NativeKind::Object { table, cases, .. } => {
                let declared = match table {
                    ObjectTable::Beside { .. } => None,
                    ObjectTable::First { declared, .. } => Some(*declared),
                };
                cases.iter().map(|case| case.ty).chain(declared).collect()
            }
            NativeKind::Reference { to, .. } => to.iter().copied().collect(),
            NativeKind::Shared { element, .. } => element.iter().copied().collect(),
            NativeKind::Union { fields } => fields.iter().map(|field| field.ty).collect(),
            NativeKind::Variants { variants, .. } => variants.iter().filter_map(|variant| variant.ty).collect(),
        }
    }
}
