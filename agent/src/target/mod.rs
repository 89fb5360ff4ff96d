//! Target: the processes of this host, as /proc tells.
//!
//! Not here: what is inside their executables ([`crate::symbols`]), and touching them ([`crate::engine`]): everything
//! here only reads. All of it is a snapshot; a process may be gone by the time it is looked at.

mod discover;
mod environment;
#[allow(unsafe_code, reason = "mapping a file; each block says why it is sound")]
mod file_map;
mod mappings;
pub(crate) mod proc_file;
mod status;
mod table;

pub use discover::{DiscoverConfig, Discovery, ProcessSeen};
pub(crate) use file_map::{Content, FileMap};
pub use mappings::{MAPPINGS_MAX, Mapping, mappings};
pub use status::{Privileges, Seccomp, Status, TargetError, check, privileges, start_time, status, tasks};
pub(crate) use table::{Table, bytes_of};
