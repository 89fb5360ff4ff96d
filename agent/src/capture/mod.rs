//! Capture: what a passage through a site copies, as a program and its executors.

pub mod interpreter;
pub mod memory;
pub mod program;
pub mod registers;
mod test;

#[cfg(test)]
mod tests;
