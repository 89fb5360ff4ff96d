//! The area: what agent and process share, as places in one memory file.
//!
//! The file is mapped into the process as *islands*, each within reach of a 32-bit displacement of the code it serves,
//! and as rings, once:
//!
//! ```text
//! file:    | control | rings: one per CPU            | island 0's code | island 1's code | ..
//! island:  | control (read, write) | alive | tables | code (read, execute; never write) |
//! ring:    | bytes | the same bytes again |    (mapped twice: a record never has a seam)
//! ```
//!
//! Invariants:
//! - The process writes to control and rings only. Tables and code it can only read and execute; the agent writes them
//!   through a mapping of its own.
//! - A child by fork(2) inherits code and tables, so whatever it runs into works, and neither control nor rings
//!   (MADV_DONTFORK): it cannot write into its parent's. A pad's first access to control is guarded: it faults there, and
//!   the pad does nothing but the displaced instructions. A pad of a program that is not Go's does not count on the guard,
//!   as that takes a signal handler: it first looks at a page of its own, which is no part of the file, is all zeroes in a
//!   child (MADV_WIPEONFORK), and has a word in it that is not.
//! - Code that is reachable stays as it is: a pad that serves no probe any more still runs the displaced instructions. It is
//!   written over only when nothing leads to it, no thread is in it or on its way there, and no child has it
//!   (`inprocess/reclaim.rs`).
//! - Everything here is versioned by [`VERSION`]: an agent that finds another version in a process takes its patches out
//!   and touches nothing else.
//!
//! Not here: what is in code ([`super::x86_64`]), what is in a record (the generator's `record`), who maps and reads it.

use riptrace_protocol::ids::Avma;

/// "RIPTRACE" in little endian.
pub(in crate::engine) const MAGIC: u64 = u64::from_le_bytes(*b"RIPTRACE");
/// Version of everything in this file.
pub(in crate::engine) const VERSION: u32 = 2;
/// Name given to memfd_create(2): `/memfd:riptrace` in /proc/PID/maps.
pub(in crate::engine) const MEMORY_NAME: &str = "riptrace";

/// CPUs, at most: the ids that a kernel gives are below it on every machine sold.
pub(in crate::engine) const CPUS_MAX: usize = 512;
/// Probes in one process over its life, at most; their words are reused after they were removed.
pub(in crate::engine) const PROBES_MAX: usize = 1024;

/// Header, at the beginning of control.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(in crate::engine) struct Header {
    /// [`MAGIC`], written last.
    pub(in crate::engine) magic: u64,
    /// [`VERSION`].
    pub(in crate::engine) version: u32,
    /// CPUs that have a ring.
    pub(in crate::engine) cpus: u32,
    /// Process id of the agent that owns the area, in the agent's own namespace; with its start time it is unique.
    pub(in crate::engine) owner_pid: u64,
    /// Start time of the owner, in clock ticks since boot (/proc/PID/stat, field 22).
    pub(in crate::engine) owner_start: u64,
    /// The memory file's descriptor in the process: kept open (and closed on exec), so that the next agent can have it
    /// by pidfd_getfd(2).
    pub(in crate::engine) descriptor: u64,
    /// Where the rings are mapped in the process: ring `n` at `rings + n * 2 * RING_BYTES`.
    pub(in crate::engine) rings: u64,
    /// Islands in use, and the address of each one's control in the process.
    pub(in crate::engine) islands: u64,
    /// Addresses of the islands.
    pub(in crate::engine) island_at: [u64; ISLANDS_MAX],
}

/// Islands of one process, at most: one serves all code within 2 GB; shared libraries lie together.
pub(in crate::engine) const ISLANDS_MAX: usize = 8;

/// Offset of a CPU's ring control from control: `RING_CONTROL + cpu * RING_CONTROL_BYTES`.
pub(in crate::engine) const RING_CONTROL: usize = 0x1000;
/// Bytes of one ring control. Words that different sides write are on different cache lines.
pub(in crate::engine) const RING_CONTROL_BYTES: usize = 256;
/// In a ring control: position after the last reserved byte; the process advances it by compare-and-exchange.
pub(in crate::engine) const RING_HEAD: usize = 0;
/// In a ring control: position up to which the agent has read and zeroed; the agent advances it.
pub(in crate::engine) const RING_TAIL: usize = 64;
/// In a ring control: address of the ring in the process (absolute).
pub(in crate::engine) const RING_BASE: usize = 128;
/// Bytes of one ring: a power of two. At the default budget of a process it holds a second of hits.
pub(in crate::engine) const RING_BYTES: usize = 1 << 20;

/// Offset of a probe's words from control: `PROBE_WORDS + probe * PROBE_WORDS_BYTES`.
pub(in crate::engine) const PROBE_WORDS: usize = RING_CONTROL + CPUS_MAX * RING_CONTROL_BYTES;
/// Bytes of one probe's words.
pub(in crate::engine) const PROBE_WORDS_BYTES: usize = 256;
/// In a probe's words, u32: 0 off (its pads do nothing), else on. Written by the agent.
pub(in crate::engine) const PROBE_ENABLED: usize = 0;
/// In a probe's words, u32: of the passages that would become hits, those whose number (per CPU) has none of these bits
/// do: 0 all, 2^k - 1 each 2^k-th. Written by the agent.
pub(in crate::engine) const PROBE_SAMPLING: usize = 4;
/// In a probe's words, i64: hits that the budget still allows; at 0 or below there are none. Taken by the process, one a
/// hit; given by the agent. Not looked at by a pad whose probe has no budget.
pub(in crate::engine) const PROBE_TOKENS: usize = 64;
/// In a probe's words, u64: passages whose condition held, for hit conditions. Counted by the process.
pub(in crate::engine) const PROBE_HELD: usize = 128;

/// Offset of the counters of a CPU and a probe: `COUNTERS + (cpu * PROBES_MAX + probe) * COUNTERS_BYTES`. Each is a u64
/// that the process increments with a locked instruction (a thread may change its CPU in between) and never resets.
pub(in crate::engine) const COUNTERS: usize = PROBE_WORDS + PROBES_MAX * PROBE_WORDS_BYTES;
/// Bytes of the counters of one CPU and one probe.
pub(in crate::engine) const COUNTERS_BYTES: usize = 64;
/// Passages whose condition could not be told.
pub(in crate::engine) const COUNTER_CONDITION: usize = 0;
/// Passages that the hit condition did not select.
pub(in crate::engine) const COUNTER_UNSELECTED: usize = 8;
/// Passages of a counting probe.
pub(in crate::engine) const COUNTER_COUNTED: usize = 16;
/// Passages over the budget.
pub(in crate::engine) const COUNTER_RATE: usize = 24;
/// Passages that sampling was applied to; [`COUNTER_SAMPLED_OUT`] of them were left out.
pub(in crate::engine) const COUNTER_SAMPLED: usize = 32;
/// Passages that sampling left out.
pub(in crate::engine) const COUNTER_SAMPLED_OUT: usize = 40;
/// Passages for which the ring had no room.
pub(in crate::engine) const COUNTER_RING: usize = 48;
/// Passages for which the thread's stack had no room.
pub(in crate::engine) const COUNTER_STACK: usize = 56;

/// Bytes of control, header included: whole pages. Most of it is never touched, and so never backed by memory.
pub(in crate::engine) const CONTROL_BYTES: usize = ALIVE + ALIVE_BYTES;

/// Offset from control of a page that is the process's own: where the file has one too, nothing is in it. Its first word
/// (u32) is 1; in a child by fork(2) it is 0.
pub(in crate::engine) const ALIVE: usize = (COUNTERS + CPUS_MAX * PROBES_MAX * COUNTERS_BYTES).next_multiple_of(0x1000);
/// Bytes of it: a page.
pub(in crate::engine) const ALIVE_BYTES: usize = 0x1000;

/// Bytes of tables at the beginning of an island's code.
pub(in crate::engine) const TABLES_BYTES: usize = 4 << 20;
/// Bytes of tables and code of one island: so much that jumps whose displacement is given but for some bits reach it from
/// all of a large program. Most of it is never touched, and so never backed by memory.
pub(in crate::engine) const CODE_BYTES: usize = 64 << 20;
/// Bytes at the end of an island's code that belong to injection (the slots of remote calls): no pad is there.
pub(in crate::engine) const CODE_BACK_BYTES: usize = 1 << 20;

/// Offset in the file of ring `cpu`.
pub(in crate::engine) const fn ring_in_file(cpu: usize) -> u64 {
    (CONTROL_BYTES + cpu * RING_BYTES) as u64
}

/// Offset in the file of the tables and code of an island, for an area of `cpus` rings.
pub(in crate::engine) const fn code_in_file(cpus: usize, island: usize) -> u64 {
    (CONTROL_BYTES + cpus * RING_BYTES + island * CODE_BYTES) as u64
}

/// Where an island is in the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Island {
    /// Its number.
    pub(in crate::engine) number: usize,
    /// Address of its view of control; tables and code follow it at once.
    pub(in crate::engine) control: Avma,
}

impl Island {
    /// Address of the tables; the code of an island is counted from here.
    pub(in crate::engine) fn tables(&self) -> Avma {
        Avma(self.control.0 + CONTROL_BYTES as u64)
    }

    /// Address of the word that says whether control is there ([`ALIVE`]).
    pub(in crate::engine) fn alive(&self) -> Avma {
        Avma(self.control.0 + ALIVE as u64)
    }

    /// Address of the words of a probe.
    pub(in crate::engine) fn probe_words(&self, probe: u32) -> Avma {
        Avma(self.control.0 + (PROBE_WORDS + probe as usize * PROBE_WORDS_BYTES) as u64)
    }

    /// Address of the counters of a probe on CPU 0; those of the next CPU are `PROBES_MAX * COUNTERS_BYTES` further.
    pub(in crate::engine) fn counters(&self, probe: u32) -> Avma {
        Avma(self.control.0 + (COUNTERS + probe as usize * COUNTERS_BYTES) as u64)
    }

    /// Address of the ring control of CPU 0; that of the next CPU is [`RING_CONTROL_BYTES`] further.
    pub(in crate::engine) fn ring_controls(&self) -> Avma {
        Avma(self.control.0 + RING_CONTROL as u64)
    }
}

const _: () = assert!(RING_BYTES.is_power_of_two());
const _: () = assert!(size_of::<Header>() <= RING_CONTROL);
const _: () = assert!(TABLES_BYTES < CODE_BYTES);
// Code reaches all of control of its island by a 32-bit displacement.
const _: () = assert!(CONTROL_BYTES + CODE_BYTES < 1 << 27);
