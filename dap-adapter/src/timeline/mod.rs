//! The hits of a session, in order, in bounded memory.
//!
//! [`Timeline`] keeps raw hits, packed, and [`Dictionaries`] what it takes to read them; values are decoded where somebody looks
//! ([`values`]). The oldest hits make room for new ones and are counted: a person is told what is not there any more.
//! It knows nothing of editors, and shows nothing.

mod dictionaries;
mod filter;
mod intern;
pub mod recording;
mod store;
pub mod values;

pub use dictionaries::{Dictionaries, StackEntry};
pub use filter::{Filter, FilterText, Prepared};
pub use store::{Glance, Marks, Origin, Runner, Timeline, TimelineLimits};
