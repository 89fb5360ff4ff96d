//! Variables: copied to their slots of the record; what cannot be read leaves the address that failed.

use super::emitter::{Emitter, Label};
use super::reads::{Recovery, Spot};
use super::{BodyContext, CodegenError};
use crate::capture::program::RootRead;
use crate::engine::record::{HEADER_BYTES, RootSlot};
use iced_x86::code_asm::{byte_ptr, dword_ptr, gpr8::*, gpr32::*, gpr64::*, ptr, qword_ptr};

/// A read of a variable that may fail, and what is known of it.
struct Failure {
    label: Label,
    root: usize,
    /// Where it was read, and how many bytes of that may be unreadable; `None`: it is nowhere.
    read: Option<(Spot, u32)>,
}

/// Code off the path: variables that cannot be read.
#[derive(Default)]
pub(super) struct Failures {
    failures: Vec<Failure>,
    /// By variable that may fail: its slot, and where the next one is read.
    roots: Vec<(RootSlot, Label)>,
}

struct OfRoot<'f> {
    failures: &'f mut Failures,
    root: usize,
}

impl Recovery for OfRoot<'_> {
    fn fault(&mut self, e: &mut Emitter<'_>, spot: Spot, bytes: u32) -> Label {
        let label = e.label();
        self.failures.failures.push(Failure { label, root: self.root, read: Some((spot, bytes)) });
        label
    }

    fn nowhere(&mut self, e: &mut Emitter<'_>) -> Label {
        let label = e.label();
        self.failures.failures.push(Failure { label, root: self.root, read: None });
        label
    }
}

/// Copies all variables. Uses rax, rsi, rdi and rcx.
pub(super) fn roots(
    e: &mut Emitter<'_>,
    context: &BodyContext<'_>,
    failures: &mut Failures,
) -> Result<(), CodegenError> {
    for (root, slot) in context.program.roots.iter().zip(&context.record.roots) {
        let (RootRead::Read { pieces, .. }, Some(slot)) = (root, slot) else { continue };
        let next = e.label();
        failures.roots.push((*slot, next));
        let mut recovery = OfRoot { root: failures.roots.len() - 1, failures };
        let mut displacement = slot.at as i32;
        for piece in pieces {
            let to = Spot { base: rbx, displacement };
            if e.copy_piece(piece, to, &mut recovery)?.is_break() {
                break;
            }
            displacement += piece.bytes as i32;
        }
        e.bind(next)?;
    }
    Ok(())
}

impl Failures {
    /// Writes what reads jump to when they fail.
    pub(super) fn write(self, e: &mut Emitter<'_>) -> Result<(), CodegenError> {
        let mut tails: Vec<Option<Label>> = vec![None; self.roots.len()];
        for failure in &self.failures {
            let tail = *tails[failure.root].get_or_insert_with(|| e.label());
            e.bind(failure.label)?;
            match failure.read {
                Some((spot, bytes)) => {
                    e.a.lea(rsi, ptr(spot.at(0)))?;
                    e.a.mov(ecx, bytes)?;
                }
                None => {
                    e.a.xor(esi, esi)?;
                    e.a.mov(ecx, 0)?;
                }
            }
            let tail = e.at(tail);
            e.a.jmp(tail)?;
        }
        for ((slot, next), tail) in self.roots.iter().zip(tails) {
            if let Some(tail) = tail {
                e.bind(tail)?;
                failed(e, slot, *next)?;
            }
        }
        Ok(())
    }
}

/// Finds the first byte that cannot be read, of ecx at rsi, and says so in the slot.
fn failed(e: &mut Emitter<'_>, slot: &RootSlot, next: Label) -> Result<(), CodegenError> {
    let [probe, found, mapped, clear] = [(); 4].map(|()| e.label());
    // Where it began, for the case that all can be read by now.
    e.a.mov(rdi, rsi)?;
    e.bind(probe)?;
    e.a.test(ecx, ecx)?;
    let to = e.at(mapped);
    e.a.je(to)?;
    // One question a page would do; this is off the path.
    e.guard(Spot { base: rsi, displacement: 0 }, 1, found)?;
    e.may_fault(found);
    e.a.mov(al, byte_ptr(rsi))?;
    e.a.inc(rsi)?;
    e.a.dec(ecx)?;
    let to = e.at(probe);
    e.a.jmp(to)?;
    e.bind(mapped)?;
    e.a.mov(rsi, rdi)?;
    e.bind(found)?;
    e.a.mov(ecx, slot.room() / 8)?;
    e.a.xor(eax, eax)?;
    e.bind(clear)?;
    e.a.mov(qword_ptr(rbx + rcx * 8 + (slot.at as i32 - 8)), rax)?;
    e.a.dec(ecx)?;
    let to = e.at(clear);
    e.a.jne(to)?;
    e.a.mov(qword_ptr(rbx + slot.at as i32), rsi)?;
    if let Some(bit) = slot.failed_bit {
        let word = HEADER_BYTES as i32 + bit as i32 / 32 * 4;
        e.a.or(dword_ptr(rbx + word), (1u32 << (bit % 32)) as i32)?;
    }
    let next = e.at(next);
    Ok(e.a.jmp(next)?)
}
