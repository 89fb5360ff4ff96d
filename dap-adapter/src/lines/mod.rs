//! Which line is that over there? The local checkout is at one commit with unsaved edits, each build is at another.
//!
//! For a build: the file's path as the build may know it ([`paths`]), the file's text at the build's commit (from the
//! local clone, [`git`]), and the difference between that text and the one in the editor, through which the line is
//! mapped ([`map`]). [`LineMapper`] puts these together and remembers what it has read.
//!
//! What it deliberately is not: a guess. A line that the build does not have is refused with the reason; where the
//! text of a build is not known, the line is taken as it is and says so in a [`Note`].
//!
//! Invariants
//! - A line maps to a line with the same text, and back to the line it came from.
//! - [`map`] and [`paths`] do no IO.

mod functions;
mod git;
mod map;
mod mapper;
mod paths;
mod places;

pub(crate) use functions::GoName;
pub use map::LineMap;
pub use mapper::{InBuild, LineMapper, Local, NotThere, Note, Place, Plan, Refused, Target};
pub use places::Asked;
