//! End to end: real Go programs, a real NATS server, real ptrace, several hosts on one machine.
//!
//! Every target checks its own results while it is traced; a wrong one ends it, and so the test.

#[path = "../support/mod.rs"]
mod support;

mod editor;
mod exceptions;
mod failures;
mod functions;
mod language_server;
mod refusals;
mod shop;
mod torture;
mod values;
