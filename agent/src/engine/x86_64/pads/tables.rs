//! Tables: what the signal handlers and the next agent know about an island's code. This file is the layout and its
//! reader; [`super::island`] writes.
//!
//! ```text
//! 0x000000  header        magic, version, islands, the handlers, the old signal actions, counts
//! 0x001000  trap map      address of a byte that traps -> where to go          open addressing, 16 bytes each
//! 0x081000  granules      which pad has these 128 bytes of code                u32 each: pad number + 1
//! 0x0e1000  pads          one record each                                      64 bytes
//! 0x161000  heap          fixups and spans of each pad
//! 0x400000  code          (not here)
//! ```
//!
//! Invariants
//! - Everything a handler looks at was complete before it could be found, and never changes afterwards, but for the value
//!   of a trap: that is one word. So a handler needs no lock, and an agent that is killed while it writes leaves
//!   nothing half done that anybody can see.
//! - A thread may come back to an address that was patched long ago: a pad, and a trap that leads to it, are removed only
//!   once nobody can be in the one or on the way to the other ([`super::island::IslandMemory::give_back`]).
//! - All numbers are little endian. Places are offsets from the tables' address in the process, unless called addresses.
//! - The reader takes any bytes: what it reads may be what a killed agent left, or what the process made of it.

use crate::engine::area::{CODE_BYTES, Island, MAGIC, TABLES_BYTES, VERSION};
use riptrace_protocol::ids::Avma;
use std::ops::Range;

// Header.
pub(super) const MAGIC_AT: usize = 0x00;
pub(super) const VERSION_AT: usize = 0x08;
pub(super) const NUMBER_AT: usize = 0x0c;
pub(super) const ADDRESS_AT: usize = 0x10;
pub(super) const FLAGS_AT: usize = 0x18;
/// Pads whose records are complete: u32.
pub(super) const PAD_COUNT_AT: usize = 0x20;
/// Slots of the trap map in use: u32.
pub(super) const TRAP_COUNT_AT: usize = 0x24;
/// Offset after the heap's last used byte: u32.
pub(super) const HEAP_END_AT: usize = 0x28;
/// Offset after the last code that was not asked to be at a certain place: u32. A hint: the granules are what counts.
pub(super) const CURSOR_AT: usize = 0x2c;
/// Island 0: addresses of the tables of all islands; 0 behind the last.
pub(super) const ISLANDS_AT: usize = 0x30;
/// Island 0: offset (u32) and bytes (u32) of the handlers' code, address of the restorer.
pub(super) const HANDLERS_AT: usize = 0x80;
pub(super) const HANDLERS_BYTES_AT: usize = 0x84;
pub(super) const RESTORER_AT: usize = 0x88;
/// Island 0: one record for each [`Signal`].
pub(super) const ACTIONS_AT: usize = 0x100;
pub(super) const ACTION_RECORD_BYTES: usize = 64;
/// In an action's record: the old action as the kernel has it, then addresses of the two entries, then whether the old
/// action is known.
pub(super) const ACTION_FLAGS: usize = 8;
pub(super) const ACTION_ENTRY: usize = 32;
pub(super) const ACTION_DEFAULTED: usize = 40;
pub(super) const ACTION_KNOWN: usize = 48;

/// In [`FLAGS_AT`]: the process is a Go program, whose scheduler preempts by SIGURG.
pub(super) const FLAG_GO: u64 = 1;

pub(super) const TRAPS_AT: usize = 0x1000;
/// Slots of the trap map: a power of two. Half of it is used at most, so that a search ends.
pub(super) const TRAP_SLOTS: usize = 1 << 15;
pub(super) const TRAP_BYTES: usize = 16;
/// Key of a slot whose trap was removed: no address of code. A search goes on behind it.
pub(super) const TRAP_NONE: u64 = 1;
/// Traps of an island, at most.
pub(super) const TRAPS_MAX: usize = TRAP_SLOTS / 2;

pub(super) const GRANULES_AT: usize = TRAPS_AT + TRAP_SLOTS * TRAP_BYTES;
/// Code is given out in granules, so that one look says to which pad an address belongs.
pub(super) const GRANULE_SHIFT: u32 = 7;
pub(super) const GRANULE_BYTES: usize = 1 << GRANULE_SHIFT;
pub(super) const GRANULES: usize = (CODE_BYTES - TABLES_BYTES) / GRANULE_BYTES;
/// A granule that has code which is no pad's: the handlers, a stub.
pub(super) const GRANULE_OTHER: u32 = u32::MAX;

pub(super) const PADS_AT: usize = GRANULES_AT + GRANULES * 4;
/// Pads of an island, at most. With its twin a pad takes about 1.5 KB of 12 MB.
pub(super) const PADS_MAX: usize = 8192;
pub(super) const PAD_BYTES: usize = 64;
// In a pad's record.
pub(super) const PAD_SITE: usize = 0;
pub(super) const PAD_START: usize = 8;
pub(super) const PAD_LENGTH: usize = 12;
/// Offset of the twin; 0: none.
pub(super) const PAD_TWIN: usize = 16;
/// Offset of the fixups; the spans follow them.
pub(super) const PAD_HEAP: usize = 20;
pub(super) const PAD_FIXUPS: usize = 24;
pub(super) const PAD_SPANS: usize = 26;
/// Bytes of the displaced instructions: u8.
pub(super) const PAD_ORIGINAL_BYTES: usize = 28;
/// Bytes that the patch replaces: u8, 1 or 5.
pub(super) const PAD_PATCH_BYTES: usize = 29;
/// The displaced instructions.
pub(super) const PAD_ORIGINAL: usize = 32;
/// Displaced instructions, in bytes, at most: the last one begins within the first five bytes.
pub(in crate::engine) const ORIGINAL_MAX: usize = 4 + super::super::INSTRUCTION_BYTES_MAX;

pub(super) const HEAP_AT: usize = PADS_AT + PADS_MAX * PAD_BYTES;
/// A fixup: offset in the pad of an instruction that may fault (u16), and of where to go on (u16).
pub(super) const FIXUP_BYTES: usize = 4;
pub(super) const SPAN_BYTES: usize = 8;
// In a span.
pub(super) const SPAN_BODY: i32 = 0;
pub(super) const SPAN_DISPLACED: i32 = 1;
pub(super) const SPAN_EXIT: i32 = 2;
pub(super) const SPAN_START: usize = 0;
pub(super) const SPAN_DEPTH: usize = 2;
pub(super) const SPAN_KIND: usize = 4;
pub(super) const SPAN_ORIGINAL: usize = 5;
pub(super) const SPAN_REGISTER: usize = 6;
pub(super) const SPAN_SLOT: usize = 7;

/// A pad's bytes, at most: offsets in it are 16 bits.
pub(in crate::engine) const PAD_LENGTH_MAX: usize = 1 << 15;

const _: () = assert!(ACTIONS_AT + Signal::ALL.len() * ACTION_RECORD_BYTES <= TRAPS_AT);
const _: () = assert!(HEAP_AT < TABLES_BYTES && GRANULES.is_multiple_of(2));
const _: () = assert!(PAD_ORIGINAL + ORIGINAL_MAX <= PAD_BYTES);

/// A signal that the engine handles, in the order of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Signal {
    /// SIGTRAP: a site, a stale program counter in a punned jump, the end of a twin.
    Trap,
    /// SIGILL: a stale program counter at the fourth byte of a punned jump; a displaced instruction.
    Illegal,
    /// SIGSEGV: a guarded load; a displaced instruction.
    Segment,
    /// SIGBUS: as SIGSEGV.
    Bus,
    /// SIGFPE: a displaced instruction.
    Arithmetic,
    /// SIGURG: Go's preemption.
    Urgent,
    /// SIGPROF: the process's own profile.
    Profile,
}

impl Signal {
    /// All of them.
    pub(in crate::engine) const ALL: [Signal; 7] = [
        Signal::Trap,
        Signal::Illegal,
        Signal::Segment,
        Signal::Bus,
        Signal::Arithmetic,
        Signal::Urgent,
        Signal::Profile,
    ];

    /// Its number (signal(7), x86).
    pub(in crate::engine) const fn number(self) -> i32 {
        match self {
            Signal::Trap => libc::SIGTRAP,
            Signal::Illegal => libc::SIGILL,
            Signal::Segment => libc::SIGSEGV,
            Signal::Bus => libc::SIGBUS,
            Signal::Arithmetic => libc::SIGFPE,
            Signal::Urgent => libc::SIGURG,
            Signal::Profile => libc::SIGPROF,
        }
    }

    /// Offset of its record.
    pub(super) const fn record_at(self) -> usize {
        ACTIONS_AT + self as usize * ACTION_RECORD_BYTES
    }
}

/// What rt_sigaction(2) reads and writes: `struct sigaction` as the kernel has it on x86-64 (its uapi/asm/signal.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::engine) struct KernelAction {
    /// Address of the handler; 0 SIG_DFL, 1 SIG_IGN.
    pub(in crate::engine) handler: u64,
    /// SA_*.
    pub(in crate::engine) flags: u64,
    /// Where a handler returns to, with SA_RESTORER.
    pub(in crate::engine) restorer: u64,
    /// Signals that are blocked while it runs: bit `n - 1` is signal `n`.
    pub(in crate::engine) mask: u64,
}

/// Bytes of a [`KernelAction`].
pub(in crate::engine) const KERNEL_ACTION_BYTES: usize = 32;

impl KernelAction {
    /// As rt_sigaction(2) wants it.
    #[cfg(test)]
    pub(in crate::engine) fn to_bytes(self) -> [u8; KERNEL_ACTION_BYTES] {
        let mut bytes = [0; KERNEL_ACTION_BYTES];
        let words = [self.handler, self.flags, self.restorer, self.mask];
        for (field, word) in bytes.chunks_exact_mut(8).zip(words) {
            field.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// As rt_sigaction(2) gives it.
    pub(in crate::engine) fn from_bytes(bytes: &[u8; KERNEL_ACTION_BYTES]) -> KernelAction {
        let word = |at: usize| u64_at(bytes, at);
        KernelAction { handler: word(0), flags: word(8), restorer: word(16), mask: word(24) }
    }

    /// Whether there is a handler: neither SIG_DFL nor SIG_IGN.
    pub(in crate::engine) fn is_handler(&self) -> bool {
        self.handler > 1
    }
}

/// The handlers in a process: all in island 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Handlers {
    /// Addresses of their code.
    pub(in crate::engine) code: Range<Avma>,
    /// For each of [`Signal::ALL`]: where the kernel enters.
    pub(in crate::engine) entries: [Entry; Signal::ALL.len()],
    /// Where a handler returns to, where the old action has no place of its own.
    pub(in crate::engine) restorer: Avma,
}

/// Where the kernel enters the handler of one signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Entry {
    /// The old action is the one in the tables.
    pub(in crate::engine) entry: Avma,
    /// The old action had SA_RESETHAND and has been used: it is SIG_DFL now. The handler installs this one by itself.
    pub(in crate::engine) defaulted: Avma,
}

/// What code in a pad does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum SpanKind {
    /// What the engine added: the state of the site is kept on the stack.
    Body,
    /// A displaced instruction.
    Displaced,
    /// The way out of the pad.
    Exit,
}

/// A stretch of a pad, up to the next one, in which all instructions mean the same place of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Span {
    /// Offset in the pad of its first byte.
    pub(in crate::engine) start: u16,
    /// Bytes that the pad has taken from the stack.
    pub(in crate::engine) depth: u16,
    /// What it does.
    pub(in crate::engine) kind: SpanKind,
    /// The place in the program that this is, counted from the site.
    pub(in crate::engine) original: u8,
    /// A register whose value is on the stack.
    pub(in crate::engine) saved: Option<Saved>,
}

/// A register whose value is on the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) struct Saved {
    /// Its index among the general registers of a `ucontext_t` (glibc's REG_*).
    pub(in crate::engine) register: u8,
    /// Where it is, counted from the stack pointer.
    pub(in crate::engine) slot: u8,
}

/// A pad, as its record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) struct Pad {
    /// Its number in the island.
    pub(in crate::engine) number: u32,
    /// The site it serves.
    pub(in crate::engine) site: Avma,
    /// Its first byte: where the site's patch leads.
    pub(in crate::engine) start: Avma,
    /// Its length, in bytes.
    pub(in crate::engine) length: u32,
    /// The first byte of its twin.
    pub(in crate::engine) twin: Option<Avma>,
    /// The instructions that the pad runs in place of those at the site.
    pub(in crate::engine) original: Vec<u8>,
    /// How many of them the patch replaces: 1 (`int3`) or 5 (`jmp`).
    pub(in crate::engine) patch_bytes: u8,
    heap: u32,
    fixups: u16,
    spans: u16,
}

impl Pad {
    /// What stands at the site while it is armed with this pad.
    pub(in crate::engine) fn patch(&self) -> Vec<u8> {
        patch(self.site, self.start, self.patch_bytes)
    }

    /// Addresses of its code, and of its twin's.
    pub(in crate::engine) fn code(&self) -> impl Iterator<Item = Range<Avma>> + use<> {
        let length = u64::from(self.length);
        [Some(self.start), self.twin].into_iter().flatten().map(move |start| start..Avma(start.0 + length))
    }

    /// Offsets of its fixups and spans.
    pub(super) fn heap_range(&self) -> Range<usize> {
        let start = self.heap as usize;
        let bytes = usize::from(self.fixups) * FIXUP_BYTES + usize::from(self.spans) * SPAN_BYTES;
        start..start + bytes.next_multiple_of(8)
    }
}

/// The bytes that lead from a site to a pad.
pub(super) fn patch(site: Avma, start: Avma, patch_bytes: u8) -> Vec<u8> {
    if patch_bytes == 1 {
        return vec![super::super::BREAKPOINT];
    }
    let displacement = start.0.wrapping_sub(site.0.wrapping_add(JUMP_BYTES as u64)) as u32;
    let mut bytes = vec![JUMP];
    bytes.extend_from_slice(&displacement.to_le_bytes());
    bytes
}

/// `jmp rel32` (Intel SDM volume 2).
pub(super) const JUMP: u8 = 0xe9;
/// Its length.
pub(in crate::engine) const JUMP_BYTES: usize = 5;

/// Where in a pad an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg(test)]
pub(in crate::engine) struct Place {
    /// In the twin.
    pub(in crate::engine) twin: bool,
    /// Bytes from its beginning.
    pub(in crate::engine) offset: u32,
}

/// Why bytes are no tables of this engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::engine) enum TablesError {
    /// Fewer bytes than tables have.
    #[error("the tables of an island are {needed} bytes and only {found} can be read; map the whole island")]
    Short {
        /// Bytes of whole tables.
        needed: usize,
        /// Bytes that are there.
        found: usize,
    },
    /// They begin with something else.
    #[error("an island's tables do not begin with the engine's mark: they were never finished; leave them alone")]
    Magic,
    /// They were written by another version of the engine.
    #[error("an island's tables have version {found}, and this agent knows {VERSION}; only remove their patches")]
    Version {
        /// Theirs.
        found: u32,
    },
    /// The mapping is not aligned to words.
    #[error("an island is mapped at an address that is no multiple of 8; map it with mmap(2)")]
    Alignment,
    /// A jump whose displacement is given in parts leads nowhere that is free.
    #[error("an island of injected code has no free place to which this jump may lead; remove tracepoints near it")]
    NoPlace,
    /// An island's code, its tables or its pads are used up.
    #[error("an island of injected code has no room for another {what}; arm the site in another island")]
    Full {
        /// What there is no room for.
        what: &'static str,
    },
}

/// Tables, read.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine) struct View<'a> {
    bytes: &'a [u8],
}

/// The slot at which the search for a key begins. The handlers compute the same.
pub(super) const HASH_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
/// How far a product is shifted for a slot.
pub(super) const HASH_SHIFT: u32 = 64 - TRAP_SLOTS.trailing_zeros();

pub(super) fn first_slot(address: u64) -> usize {
    (address.wrapping_mul(HASH_FACTOR) >> HASH_SHIFT) as usize
}

/// `bytes[at..at + 8]`, or 0 where there are none.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u64::from_le_bytes(*word))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_le_bytes(*word))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u16::from_le_bytes(*word))
}

impl<'a> View<'a> {
    /// Of an island's tables; code behind them is not looked at.
    pub(in crate::engine) fn new(bytes: &'a [u8]) -> Result<View<'a>, TablesError> {
        let found = bytes.len();
        let bytes = bytes.get(..TABLES_BYTES).ok_or(TablesError::Short { needed: TABLES_BYTES, found })?;
        if u64_at(bytes, MAGIC_AT) != MAGIC {
            return Err(TablesError::Magic);
        }
        match u32_at(bytes, VERSION_AT) {
            VERSION => Ok(View { bytes }),
            found => Err(TablesError::Version { found }),
        }
    }

    /// Of bytes that were looked at before.
    pub(super) fn of_checked(bytes: &'a [u8]) -> View<'a> {
        View { bytes: &bytes[..TABLES_BYTES.min(bytes.len())] }
    }

    /// The island's number.
    pub(in crate::engine) fn number(&self) -> u32 {
        u32_at(self.bytes, NUMBER_AT)
    }

    /// Address of the tables in the process.
    pub(in crate::engine) fn address(&self) -> Avma {
        Avma(u64_at(self.bytes, ADDRESS_AT))
    }

    /// The island.
    pub(in crate::engine) fn island(&self) -> Island {
        let control = self.address().0.wrapping_sub(crate::engine::area::CONTROL_BYTES as u64);
        Island { number: self.number() as usize, control: Avma(control) }
    }

    /// Whether the process is a Go program.
    pub(in crate::engine) fn is_go(&self) -> bool {
        u64_at(self.bytes, FLAGS_AT) & FLAG_GO != 0
    }

    /// Addresses of the tables of all islands, as island 0 has them.
    #[cfg(test)]
    pub(in crate::engine) fn islands(&self) -> Vec<Avma> {
        let address = |number| u64_at(self.bytes, ISLANDS_AT + number * 8);
        (0..crate::engine::area::ISLANDS_MAX).map(address).take_while(|address| *address != 0).map(Avma).collect()
    }

    /// The handlers; `None` before they are written, and in all islands but the first.
    pub(in crate::engine) fn handlers(&self) -> Option<Handlers> {
        let bytes = u32_at(self.bytes, HANDLERS_BYTES_AT);
        let start = self.address().0.wrapping_add(u64::from(u32_at(self.bytes, HANDLERS_AT)));
        let entries = Signal::ALL.map(|signal| Entry {
            entry: Avma(u64_at(self.bytes, signal.record_at() + ACTION_ENTRY)),
            defaulted: Avma(u64_at(self.bytes, signal.record_at() + ACTION_DEFAULTED)),
        });
        let restorer = Avma(u64_at(self.bytes, RESTORER_AT));
        let code = Avma(start)..Avma(start.wrapping_add(u64::from(bytes)));
        (bytes != 0).then_some(Handlers { code, entries, restorer })
    }

    /// The action that a signal had before the engine's handler.
    pub(in crate::engine) fn old_action(&self, signal: Signal) -> Option<KernelAction> {
        let record = self.bytes.get(signal.record_at()..)?;
        (u64_at(record, ACTION_KNOWN) != 0).then(|| record.first_chunk().map(KernelAction::from_bytes)).flatten()
    }

    /// Pads that were finished.
    pub(in crate::engine) fn pad_count(&self) -> u32 {
        u32_at(self.bytes, PAD_COUNT_AT).min(PADS_MAX as u32)
    }

    /// All pads, in the order in which they were made; those whose records make no sense are left out.
    pub(in crate::engine) fn pads(&self) -> impl Iterator<Item = Pad> + use<'a> {
        let view = *self;
        (0..view.pad_count()).filter_map(move |number| view.pad(number))
    }

    /// One pad.
    pub(in crate::engine) fn pad(&self, number: u32) -> Option<Pad> {
        if number >= self.pad_count() {
            return None;
        }
        let at = PADS_AT + number as usize * PAD_BYTES;
        let record = self.bytes.get(at..at + PAD_BYTES)?;
        let (start, length) = (u32_at(record, PAD_START), u32_at(record, PAD_LENGTH));
        let twin = u32_at(record, PAD_TWIN);
        let inside = |start: u32| {
            start as usize >= TABLES_BYTES && (start as usize).saturating_add(length as usize) <= CODE_BYTES
        };
        let original_bytes = usize::from(*record.get(PAD_ORIGINAL_BYTES)?);
        let patch_bytes = *record.get(PAD_PATCH_BYTES)?;
        let sound = inside(start)
            && (twin == 0 || inside(twin))
            && original_bytes <= ORIGINAL_MAX
            && matches!(patch_bytes, 1 | 5)
            && usize::from(patch_bytes) <= original_bytes;
        if !sound {
            return None;
        }
        let place = |offset: u32| Avma(self.address().0.wrapping_add(u64::from(offset)));
        Some(Pad {
            number,
            site: Avma(u64_at(record, PAD_SITE)),
            start: place(start),
            length,
            twin: (twin != 0).then(|| place(twin)),
            original: record.get(PAD_ORIGINAL..PAD_ORIGINAL + original_bytes)?.to_vec(),
            patch_bytes,
            heap: u32_at(record, PAD_HEAP),
            fixups: u16_at(record, PAD_FIXUPS),
            spans: u16_at(record, PAD_SPANS),
        })
    }

    /// The pad that an address belongs to, as the handlers find it.
    #[cfg(test)]
    pub(in crate::engine) fn find_pad(&self, address: Avma) -> Option<(Pad, Place)> {
        let offset = address.0.wrapping_sub(self.address().0);
        let granule = offset.checked_sub(TABLES_BYTES as u64)? >> GRANULE_SHIFT;
        if granule >= GRANULES as u64 {
            return None;
        }
        let number = u32_at(self.bytes, GRANULES_AT + granule as usize * 4).checked_sub(1)?;
        let pad = self.pad(number)?;
        let within = |start: Avma| {
            let offset = address.0.wrapping_sub(start.0);
            (offset < u64::from(pad.length)).then_some(offset as u32)
        };
        let place = match within(pad.start) {
            Some(offset) => Place { twin: false, offset },
            None => Place { twin: true, offset: within(pad.twin?)? },
        };
        Some((pad, place))
    }

    /// The span of a place in a pad.
    #[cfg(test)]
    pub(in crate::engine) fn span(&self, pad: &Pad, offset: u32) -> Option<Span> {
        let first = pad.heap as usize + usize::from(pad.fixups) * FIXUP_BYTES;
        let spans = (0..usize::from(pad.spans)).map_while(|n| {
            let at = first + n * SPAN_BYTES;
            self.bytes.get(at..at + SPAN_BYTES)
        });
        let record = spans.take_while(|span| u32::from(u16_at(span, SPAN_START)) <= offset).last()?;
        let kind = match i32::from(*record.get(SPAN_KIND)?) {
            SPAN_BODY => SpanKind::Body,
            SPAN_DISPLACED => SpanKind::Displaced,
            SPAN_EXIT => SpanKind::Exit,
            _ => return None,
        };
        let register = *record.get(SPAN_REGISTER)?;
        let slot = *record.get(SPAN_SLOT)?;
        Some(Span {
            start: u16_at(record, SPAN_START),
            depth: u16_at(record, SPAN_DEPTH),
            kind,
            original: *record.get(SPAN_ORIGINAL)?,
            saved: (register != NO_REGISTER).then_some(Saved { register, slot }),
        })
    }

    /// All addresses that trap, or did, and where who arrives there goes.
    pub(in crate::engine) fn traps(&self) -> impl Iterator<Item = (Avma, Avma)> + use<'a> {
        let bytes = self.bytes;
        let trap = move |slot: usize| {
            let at = TRAPS_AT + slot * TRAP_BYTES;
            (u64_at(bytes, at), Avma(u64_at(bytes, at + 8)))
        };
        let is_one = |(key, _): &(u64, Avma)| ![0, TRAP_NONE].contains(key);
        (0..TRAP_SLOTS).map(trap).filter(is_one).map(|(key, to)| (Avma(key), to))
    }

    /// Where a thread goes that arrives at an address which traps.
    pub(in crate::engine) fn find_trap(&self, address: Avma) -> Option<Avma> {
        let mut slot = first_slot(address.0);
        for _ in 0..TRAP_SLOTS {
            let at = TRAPS_AT + slot * TRAP_BYTES;
            match u64_at(self.bytes, at) {
                0 => return None,
                key if key == address.0 => return Some(Avma(u64_at(self.bytes, at + 8))),
                _ => slot = (slot + 1) % TRAP_SLOTS,
            }
        }
        None
    }
}

/// In a span: no register is on the stack.
pub(super) const NO_REGISTER: u8 = u8::MAX;
