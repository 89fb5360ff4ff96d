//! Injection into real processes: a C program that checks every thread's whole state, and a Go program.

mod area;
mod go;
pub(super) mod hooks;
mod killed;
mod permissions;
mod refused;
mod support;
