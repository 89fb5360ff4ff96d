//! The debug adapter: an ordinary debugger's user interface over a fleet in which nothing is ever stopped.

mod codec;
mod envelope;
mod limits;
mod types;
