//! Capture: what a passage through a site copies, as a program and its executors.

pub mod program;
