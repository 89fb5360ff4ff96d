//! Capture: what a passage through a site copies, as a program and its executors.

pub mod interpreter;
pub mod memory;
pub mod program;
pub mod registers;
pub(crate) mod test;
pub(crate) mod walk;

#[cfg(test)]
mod tests;
