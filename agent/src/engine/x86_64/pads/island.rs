//! An island's memory, as the agent writes it: through a mapping of its own of what the process can only read.
//!
//! Invariants
//! - What a handler can find is complete: each word that makes something reachable is stored last, with release order,
//!   and readers are x86 (loads are not reordered with loads).
//! - What is reachable stays as it is. A killed agent may leave bytes that nothing leads to; the next one writes over
//!   them. Pads that nobody can be in any more, nor come to, are given back with the traps that led to them
//!   ([`IslandMemory::give_back`]): who says so has looked.

use super::room::{self, Taken};
use super::tables::*;
use super::{PadError, PadImage, PadRequest, PatchKind, Places, build, handlers, length};
use crate::engine::area::{CODE_BACK_BYTES, CODE_BYTES, ISLANDS_MAX, Island, MAGIC, TABLES_BYTES, VERSION};
use riptrace_protocol::ids::Avma;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// An island's tables and code, all [`CODE_BYTES`] of them.
#[derive(Debug)]
pub(in crate::engine) struct IslandMemory<'a> {
    bytes: &'a mut [u8],
    island: Island,
}

struct Granules<'a>(&'a [u8]);

impl Taken for Granules<'_> {
    fn is_taken(&self, granule: usize) -> bool {
        u32_at(self.0, GRANULES_AT + granule * 4) != 0
    }
}

impl<'a> IslandMemory<'a> {
    /// Makes an island of fresh, zeroed memory.
    pub(in crate::engine) fn create(
        bytes: &'a mut [u8],
        island: Island,
        is_go: bool,
    ) -> Result<IslandMemory<'a>, TablesError> {
        let mut memory = IslandMemory { bytes: checked(bytes)?, island };
        memory.store_u32(VERSION_AT, VERSION);
        memory.store_u32(NUMBER_AT, island.number as u32);
        memory.store_u64(ADDRESS_AT, island.tables().0);
        memory.store_u64(FLAGS_AT, if is_go { FLAG_GO } else { 0 });
        memory.store_u32(HEAP_END_AT, HEAP_AT as u32);
        memory.store_u32(CURSOR_AT, TABLES_BYTES as u32);
        memory.take(CODE_BYTES - CODE_BACK_BYTES, CODE_BACK_BYTES, GRANULE_OTHER);
        memory.store_u64(MAGIC_AT, MAGIC);
        Ok(memory)
    }

    /// Goes on with an island that is in use, an earlier agent's or one's own.
    pub(in crate::engine) fn adopt(bytes: &'a mut [u8]) -> Result<IslandMemory<'a>, TablesError> {
        let bytes = checked(bytes)?;
        let island = View::new(bytes)?.island();
        Ok(IslandMemory { bytes, island })
    }

    /// The tables, to read.
    pub(in crate::engine) fn view(&self) -> View<'_> {
        View::of_checked(self.bytes)
    }

    /// Which island it is.
    #[cfg(test)]
    pub(in crate::engine) fn island(&self) -> Island {
        self.island
    }

    /// In island 0: the addresses of the tables of all islands, itself first. The handlers look there, so a further
    /// island must be named before a site leads to it. Only ever grows.
    pub(in crate::engine) fn set_islands(&mut self, tables: &[Avma]) -> Result<(), TablesError> {
        if tables.len() > ISLANDS_MAX {
            return Err(TablesError::Full { what: "island" });
        }
        for (number, address) in tables.iter().enumerate() {
            self.store_u64(ISLANDS_AT + number * 8, address.0);
        }
        Ok(())
    }

    /// In island 0: the action that a signal has before the engine's handler is installed for it. The handler chains to
    /// it, so it is written before.
    pub(in crate::engine) fn set_old_action(&mut self, signal: Signal, old: &KernelAction) {
        let at = signal.record_at();
        for (field, word) in [old.flags, old.restorer, old.mask].into_iter().enumerate() {
            self.store_u64(at + 8 * (field + 1), word);
        }
        self.store_u64(at, old.handler);
        self.store_u64(at + ACTION_KNOWN, 1);
    }

    /// In island 0: writes the handlers, unless they are there. They are not in use before [`handlers::action`]'s result is
    /// given to rt_sigaction(2).
    pub(in crate::engine) fn install_handlers(&mut self) -> Result<Handlers, PadError> {
        if let Some(handlers) = self.view().handlers() {
            return Ok(handlers);
        }
        let bytes =
            handlers::emit(self.island.tables(), Avma(self.island.tables().0 + TABLES_BYTES as u64))?.code.len();
        let at = self.reserve_code(bytes)?;
        let image = handlers::emit(self.island.tables(), at)?;
        self.write_code(at, &image.code)?;
        for (signal, entry) in Signal::ALL.into_iter().zip(image.handlers.entries) {
            self.store_u64(signal.record_at() + ACTION_ENTRY, entry.entry.0);
            self.store_u64(signal.record_at() + ACTION_DEFAULTED, entry.defaulted.0);
        }
        self.store_u64(RESTORER_AT, image.handlers.restorer.0);
        self.store_u32(HANDLERS_AT, (at.0 - self.island.tables().0) as u32);
        self.store_u32(HANDLERS_BYTES_AT, image.code.len() as u32);
        Ok(image.handlers)
    }

    /// Takes room for code that is no pad's, for the life of the process. It is written by [`IslandMemory::write_code`].
    pub(in crate::engine) fn reserve_code(&mut self, bytes: usize) -> Result<Avma, TablesError> {
        let cursor = u32_at(self.bytes, CURSOR_AT) as usize;
        let at = room::anywhere(&Granules(self.bytes), cursor, bytes).ok_or(TablesError::Full { what: "code" })?;
        self.store_u32(CURSOR_AT, (at + bytes) as u32);
        self.take(at, bytes, GRANULE_OTHER);
        Ok(self.address(at))
    }

    /// Writes code to a place from [`IslandMemory::reserve_code`].
    pub(in crate::engine) fn write_code(&mut self, at: Avma, code: &[u8]) -> Result<(), TablesError> {
        let offset = at.0.wrapping_sub(self.island.tables().0);
        let inside = (TABLES_BYTES as u64..CODE_BYTES as u64).contains(&offset);
        let place = self.bytes.get_mut(offset as usize..).and_then(|rest| rest.get_mut(..code.len()));
        let place = place.filter(|_| inside).ok_or(TablesError::Full { what: "code" })?;
        place.copy_from_slice(code);
        Ok(())
    }

    /// Where a pad of so many bytes could be. Nothing is taken.
    fn place(&self, request: &PadRequest<'_>, bytes: usize) -> Result<Places, TablesError> {
        let granules = Granules(self.bytes);
        let cursor = u32_at(self.bytes, CURSOR_AT) as usize;
        let full = TablesError::Full { what: "pad" };
        let start = match request.patch {
            PatchKind::Jump | PatchKind::Trap => room::anywhere(&granules, cursor, bytes),
            PatchKind::Punned { mask, value } => {
                let behind = request.site.0.wrapping_add(JUMP_BYTES as u64);
                let displacement = self.island.tables().0.wrapping_sub(behind) as u32;
                Some(room::punned(&granules, displacement, bytes, mask, value).ok_or(TablesError::NoPlace)?)
            }
        };
        let start = start.ok_or(full.clone())?;
        let twin = if request.go {
            let pad = room::granules(start, bytes);
            let without = Without { granules, pad: pad.clone() };
            let behind = TABLES_BYTES + (pad.end << GRANULE_SHIFT);
            let from = if matches!(request.patch, PatchKind::Punned { .. }) { cursor } else { behind };
            Some(room::anywhere(&without, from, bytes).ok_or(full)?)
        } else {
            None
        };
        Ok(Places { start: self.address(start), twin: twin.map(|twin| self.address(twin)) })
    }

    /// Makes a pad: finds a place, assembles it, writes it, and tells the handlers. When it returns, the site may be
    /// patched with [`PadImage::patch`].
    pub(in crate::engine) fn add_pad(&mut self, request: &PadRequest<'_>) -> Result<PadImage, PadError> {
        let bytes = length(request)?;
        let image = build(request, self.place(request, bytes)?)?;
        self.write_pad(request, &image)?;
        Ok(image)
    }

    fn write_pad(&mut self, request: &PadRequest<'_>, image: &PadImage) -> Result<(), PadError> {
        let traps = traps(request, image);
        let count = self.view().pad_count();
        let number = if (count as usize) < pads_max() {
            count
        } else {
            let is_free = |number: &u32| self.view().pad(*number).is_none();
            (0..count).find(is_free).ok_or(TablesError::Full { what: "pad" })?
        };
        if u32_at(self.bytes, TRAP_COUNT_AT) as usize + traps.len() > TRAPS_MAX {
            return Err(TablesError::Full { what: "trap" }.into());
        }
        let known = heap_of(image);
        let heap = self.heap_room(known.len()).ok_or(TablesError::Full { what: "table entry" })?;
        self.write_code(image.places.start, &image.code)?;
        if let Some(twin) = image.places.twin {
            self.write_code(twin, &image.twin_code)?;
        }
        self.bytes[heap..heap + known.len()].copy_from_slice(&known);
        let mut record = self.record_of(request, image, heap);
        let at = PADS_AT + number as usize * PAD_BYTES;
        // A number that was another pad's is none until all else is there: its beginning and its length are one word.
        let start = u64_at(&record, PAD_START);
        record[PAD_START..PAD_START + 8].fill(0);
        self.bytes[at..at + PAD_BYTES].copy_from_slice(&record);
        self.store_u64(at + PAD_START, start);
        let end = (heap + known.len()).max(u32_at(self.bytes, HEAP_END_AT) as usize);
        self.store_u32(HEAP_END_AT, end as u32);
        self.store_u32(PAD_COUNT_AT, count.max(number + 1));
        let tables = self.island.tables().0;
        for place in [Some(image.places.start), image.places.twin].into_iter().flatten() {
            let offset = (place.0 - tables) as usize;
            self.take(offset, image.code.len(), number + 1);
            if matches!(request.patch, PatchKind::Jump | PatchKind::Trap) {
                self.store_u32(CURSOR_AT, (offset + image.code.len()) as u32);
            }
        }
        Ok(self.aim_traps(request, image)?)
    }

    /// Room for what the tables know of a pad: behind all others, else between two.
    fn heap_room(&self, bytes: usize) -> Option<usize> {
        let end = (u32_at(self.bytes, HEAP_END_AT) as usize).clamp(HEAP_AT, TABLES_BYTES);
        if end + bytes <= TABLES_BYTES {
            return Some(end);
        }
        let mut taken: Vec<std::ops::Range<usize>> = self.view().pads().map(|pad| pad.heap_range()).collect();
        taken.sort_unstable_by_key(|range| range.start);
        let mut free = HEAP_AT;
        for range in taken {
            if range.start >= free + bytes {
                return Some(free);
            }
            free = free.max(range.end);
        }
        (free + bytes <= TABLES_BYTES).then_some(free)
    }

    /// Gives pads back: their code, their records and what the tables know of them may be written anew. No thread may be in
    /// one or on its way to one, of this process or of a child that has the same code; nothing may lead to one but traps,
    /// which [`IslandMemory::forget_traps`] has taken out of all islands.
    pub(in crate::engine) fn give_back(&mut self, numbers: &[u32]) {
        for &number in numbers {
            let Some(pad) = self.view().pad(number) else { continue };
            // Nobody finds it any more; then it is none. An agent that is killed in between leaves a pad that no address
            // belongs to, which is given back the next time.
            for place in [Some(pad.start), pad.twin].into_iter().flatten() {
                let offset = (place.0 - self.island.tables().0) as usize;
                for granule in room::granules(offset, pad.length as usize) {
                    if u32_at(self.bytes, GRANULES_AT + granule * 4) == number + 1 {
                        self.store_u32(GRANULES_AT + granule * 4, 0);
                    }
                }
            }
            self.store_u64(PADS_AT + number as usize * PAD_BYTES + PAD_START, 0);
        }
        let end = self.view().pads().map(|pad| pad.heap_range().end).max();
        self.store_u32(HEAP_END_AT, end.unwrap_or(HEAP_AT).clamp(HEAP_AT, TABLES_BYTES) as u32);
    }

    /// Takes out the traps that lead to such places. No thread may be on its way to one. The others are where they were:
    /// a thread may be looking for one of them.
    pub(in crate::engine) fn forget_traps(&mut self, is_to: impl Fn(Avma) -> bool) {
        for slot in 0..TRAP_SLOTS {
            let at = TRAPS_AT + slot * TRAP_BYTES;
            let key = u64_at(self.bytes, at);
            if key != 0 && key != TRAP_NONE && is_to(Avma(u64_at(self.bytes, at + 8))) {
                self.store_u64(at, TRAP_NONE);
            }
        }
        // What nobody searches beyond is free. Twice around, as what ends a search may be at the table's beginning.
        let mut is_end = false;
        for slot in (0..TRAP_SLOTS).chain(0..TRAP_SLOTS).rev() {
            let at = TRAPS_AT + slot * TRAP_BYTES;
            match u64_at(self.bytes, at) {
                0 => is_end = true,
                TRAP_NONE if is_end => {
                    self.store_u64(at, 0);
                    self.store_u32(TRAP_COUNT_AT, u32_at(self.bytes, TRAP_COUNT_AT).saturating_sub(1));
                }
                _ => is_end = false,
            }
        }
    }

    /// Leads what traps at a site to a pad that is there: part of [`IslandMemory::add_pad`]. By itself where a site is to
    /// have an earlier pad again, before it is patched: others may have had it meanwhile.
    pub(in crate::engine) fn aim_traps(
        &mut self,
        request: &PadRequest<'_>,
        image: &PadImage,
    ) -> Result<(), TablesError> {
        for (from, to) in traps(request, image) {
            self.set_trap(from, to)?;
        }
        Ok(())
    }

    fn record_of(&self, request: &PadRequest<'_>, image: &PadImage, heap: usize) -> [u8; PAD_BYTES] {
        let mut record = [0; PAD_BYTES];
        let offset = |place: Avma| (place.0 - self.island.tables().0) as u32;
        let original = &request.original[..request.original.len().min(ORIGINAL_MAX)];
        let mut put = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
        put(PAD_SITE, &request.site.0.to_le_bytes());
        put(PAD_START, &offset(image.places.start).to_le_bytes());
        put(PAD_LENGTH, &(image.code.len() as u32).to_le_bytes());
        put(PAD_TWIN, &image.places.twin.map_or(0, offset).to_le_bytes());
        put(PAD_HEAP, &(heap as u32).to_le_bytes());
        put(PAD_FIXUPS, &(image.fixups.len() as u16).to_le_bytes());
        put(PAD_SPANS, &(image.spans.len() as u16).to_le_bytes());
        put(PAD_ORIGINAL_BYTES, &[original.len() as u8]);
        put(PAD_PATCH_BYTES, &[request.patch.bytes() as u8]);
        put(PAD_ORIGINAL, original);
        record
    }

    /// Sends threads that trap at `from` to `to`: a new entry, or the new value of one. Both addresses are the process's.
    pub(in crate::engine) fn set_trap(&mut self, from: Avma, to: Avma) -> Result<(), TablesError> {
        let mut slot = first_slot(from.0);
        let mut free = None;
        for _ in 0..TRAP_SLOTS {
            let at = TRAPS_AT + slot * TRAP_BYTES;
            match u64_at(self.bytes, at) {
                key if key == from.0 => {
                    self.store_u64(at + 8, to.0);
                    return Ok(());
                }
                0 => break,
                TRAP_NONE => free = free.or(Some(at)),
                _ => {}
            }
            slot = (slot + 1) % TRAP_SLOTS;
        }
        let at = match free {
            Some(at) => at,
            None => {
                let count = u32_at(self.bytes, TRAP_COUNT_AT);
                if count as usize >= TRAPS_MAX || [0, TRAP_NONE].contains(&from.0) {
                    return Err(TablesError::Full { what: "trap" });
                }
                self.store_u32(TRAP_COUNT_AT, count + 1);
                TRAPS_AT + slot * TRAP_BYTES
            }
        };
        self.store_u64(at + 8, to.0);
        self.store_u64(at, from.0);
        Ok(())
    }

    /// As [`IslandMemory::set_trap`] where there is an entry already; says whether there is. For the other islands when a
    /// site's pad is in a new one: the handlers take the first entry they find.
    pub(in crate::engine) fn retarget_trap(&mut self, from: Avma, to: Avma) -> Result<bool, TablesError> {
        let known = self.view().find_trap(from).is_some();
        if known {
            self.set_trap(from, to)?;
        }
        Ok(known)
    }

    fn address(&self, offset: usize) -> Avma {
        Avma(self.island.tables().0 + offset as u64)
    }

    fn take(&mut self, offset: usize, bytes: usize, owner: u32) {
        for granule in room::granules(offset, bytes) {
            self.store_u32(GRANULES_AT + granule * 4, owner);
        }
    }

    fn store_u32(&mut self, at: usize, value: u32) {
        let place = self.bytes[at..at + 4].as_mut_ptr().cast::<u32>();
        // SAFETY: the four bytes are in the slice; `checked` has seen that it is aligned, and all offsets are multiples
        // of 4.
        unsafe { AtomicU32::from_ptr(place) }.store(value.to_le(), Ordering::Release);
    }

    fn store_u64(&mut self, at: usize, value: u64) {
        let place = self.bytes[at..at + 8].as_mut_ptr().cast::<u64>();
        // SAFETY: as in `store_u32`, with 8 bytes and multiples of 8.
        unsafe { AtomicU64::from_ptr(place) }.store(value.to_le(), Ordering::Release);
    }
}

/// Pads of an island, at most.
#[cfg(not(test))]
fn pads_max() -> usize {
    PADS_MAX
}

/// The same, or fewer, where a test says so.
#[cfg(test)]
fn pads_max() -> usize {
    PADS_LIMIT.get()
}

#[cfg(test)]
thread_local! {
    /// Pads of an island that this thread makes, at most.
    pub(in crate::engine) static PADS_LIMIT: std::cell::Cell<usize> = const { std::cell::Cell::new(PADS_MAX) };
}

/// All granules but those of a pad that is about to be written.
struct Without<'a> {
    granules: Granules<'a>,
    pad: std::ops::Range<usize>,
}

impl Taken for Without<'_> {
    fn is_taken(&self, granule: usize) -> bool {
        self.pad.contains(&granule) || self.granules.is_taken(granule)
    }
}

fn checked(bytes: &mut [u8]) -> Result<&mut [u8], TablesError> {
    let found = bytes.len();
    if !bytes.as_ptr().addr().is_multiple_of(align_of::<u64>()) {
        return Err(TablesError::Alignment);
    }
    bytes.get_mut(..CODE_BYTES).ok_or(TablesError::Short { needed: CODE_BYTES, found })
}

/// Fixups and spans, as the tables have them.
fn heap_of(image: &PadImage) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(image.fixups.len() * FIXUP_BYTES + image.spans.len() * SPAN_BYTES + SPAN_BYTES);
    for (at, recovery) in &image.fixups {
        bytes.extend_from_slice(&at.to_le_bytes());
        bytes.extend_from_slice(&recovery.to_le_bytes());
    }
    for span in &image.spans {
        bytes.extend_from_slice(&span.start.to_le_bytes());
        bytes.extend_from_slice(&span.depth.to_le_bytes());
        let kind = match span.kind {
            SpanKind::Body => SPAN_BODY,
            SpanKind::Displaced => SPAN_DISPLACED,
            SpanKind::Exit => SPAN_EXIT,
        } as u8;
        let saved = span.saved.unwrap_or(Saved { register: NO_REGISTER, slot: 0 });
        bytes.extend_from_slice(&[kind, span.original, saved.register, saved.slot]);
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// Which addresses trap for a patch, and where who traps there goes on.
fn traps(request: &PadRequest<'_>, image: &PadImage) -> Vec<(Avma, Avma)> {
    // The site itself traps with int3, and while a jump is being written in place of it.
    let mut traps = vec![(request.site, image.places.start)];
    let patched = request.site.0..request.site.0 + request.patch.bytes() as u64;
    let inside = image.boundaries.iter().skip(1).filter(|(original, _)| patched.contains(&original.0));
    traps.extend(inside);
    traps
}
