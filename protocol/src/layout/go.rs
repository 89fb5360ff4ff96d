//! What only Go's types need: where things are in a map, a channel, an interface, a function value.
//!
//! The offsets are those of one build, as its debug information states them; nothing here knows a version of Go.
//! Addresses are those of the process that the layout was made for.

use super::{Field, TypeIndex};
use serde::{Deserialize, Serialize};

/// A type that an interface may hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DynamicType {
    /// Address of the runtime's description of the type: the key that the interface holds.
    pub address: u64,
    /// The type.
    pub ty: TypeIndex,
    /// Whether the value is the interface's second word itself; else it is what the word points to.
    pub direct: bool,
}

/// A type that an interface may hold, of which only the name is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedType {
    /// Address of the runtime's description of the type.
    pub address: u64,
    /// Name as Go writes it.
    pub name: String,
}

/// A function that a function value may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionCase {
    /// Address of its code: the first word of what the function value points to.
    pub address: u64,
    /// Its name.
    pub name: String,
    /// Bytes of what the function value points to; 8 where it captured nothing.
    pub bytes: u32,
    /// Captured variables, at their offsets in it; a variable that is captured by reference is a pointer whose name
    /// begins with `&`.
    pub captured: Vec<Field>,
}

/// Where things are in a map. The map itself is the address of its header; 0 is nil.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapForm {
    /// Bytes of the header.
    pub bytes: u32,
    /// Offset of the number of entries, u64.
    pub count_at: u32,
    /// Offset of a byte that tells whether a goroutine is writing right now.
    pub writing_at: u32,
    /// The bits that say so.
    pub writing_mask: u8,
    /// Where entries are in a group or bucket.
    pub slots: Slots,
    /// Where groups or buckets are.
    pub tables: MapTables,
}

/// Where the eight entries of a group or bucket are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// Bytes of the group or bucket.
    pub bytes: u32,
    /// Offset of the eight bytes that say which slots are in use.
    pub control_at: u32,
    /// Offset of the first key.
    pub keys_at: u32,
    /// From a key to the next.
    pub key_stride: u32,
    /// Offset of the first element.
    pub elements_at: u32,
    /// From an element to the next.
    pub element_stride: u32,
    /// The slot holds the address of the key.
    pub indirect_key: bool,
    /// The slot holds the address of the element.
    pub indirect_element: bool,
}

/// Where the groups or buckets of a map are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapTables {
    /// Since Go 1.24: one group, or a directory of tables of groups.
    Swiss {
        /// In the header: address of the group, or of the addresses of the tables.
        directory_at: u32,
        /// In the header: how many tables the directory names; 0 for a single group.
        tables_at: u32,
        /// Bytes of a table.
        table_bytes: u32,
        /// In a table: its first place in the directory; -1 for one that was replaced.
        index_at: u32,
        /// In a table: address of its groups.
        groups_at: u32,
        /// In a table: number of its groups, less one.
        mask_at: u32,
    },
    /// Before Go 1.24: buckets, and the old ones while the map grows.
    Buckets {
        /// In the header: binary logarithm of the number of buckets, u8.
        power_at: u32,
        /// In the header: flags, u8; 8 says that the map grows without more buckets.
        flags_at: u32,
        /// In the header: address of the buckets.
        buckets_at: u32,
        /// In the header: address of the old buckets, 0 where there are none.
        old_buckets_at: u32,
        /// In a bucket: address of the bucket that goes on.
        overflow_at: u32,
    },
}

/// Where things are in a channel. The channel itself is the address of its header; 0 is nil.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChanForm {
    /// Bytes of the header.
    pub bytes: u32,
    /// Offset of the number of elements in the buffer, u64.
    pub count_at: u32,
    /// Offset of the number of elements that fit in, u64.
    pub capacity_at: u32,
    /// Offset of the address of the buffer.
    pub buffer_at: u32,
    /// Offset of a u32 that is not 0 when the channel is closed.
    pub closed_at: u32,
    /// Offset of the place in the buffer of the element that is received next, u64.
    pub first_at: u32,
    /// Offset of the address of the first waiting receiver, 0 where none waits.
    pub receivers_at: u32,
    /// Offset of the address of the first waiting sender.
    pub senders_at: u32,
    /// In a waiting one: address of the next.
    pub next_at: u32,
}

/// Number of slots in a group or bucket (`abi.MapGroupSlots`, `abi.MapBucketCount`).
pub const SLOTS: u32 = 8;
