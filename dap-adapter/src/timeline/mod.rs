//! The hits of a session, in order, in bounded memory.
//!
//! [`Timeline`] keeps raw hits and the dictionaries to read them; values are decoded where somebody looks
//! ([`values`]). The oldest hits make room for new ones and are counted: a person is told what is not there any more.
//! It knows nothing of editors, and shows nothing.

mod dictionaries;
mod store;
pub mod values;

pub use dictionaries::{Dictionaries, StackEntry};
pub use store::{Timeline, TimelineLimits};
