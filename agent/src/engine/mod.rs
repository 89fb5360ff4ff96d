//! Engine: the tracepoints inside one process.
#![allow(unsafe_code, reason = "ptrace is the job of this module; each block says why it is sound")]
