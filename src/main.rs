//! The `riptrace` binary.
fn main() {}
