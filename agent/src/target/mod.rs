//! Target: the processes of this host, as /proc tells.
#![allow(unsafe_code, reason = "process control is the job of this module; each block says why it is sound")]
