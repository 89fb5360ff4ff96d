//! The engine on live processes: programs that check their own results while they are traced.
//!
//! Linux with ptrace is needed, and a C compiler; a test that cannot have them fails.
#![allow(clippy::disallowed_methods, reason = "tests of live processes live in real time")]

mod c_program;
pub(in crate::engine) mod go_program;
pub(in crate::engine) mod killed;
mod limits;
pub(in crate::engine) mod support;
