//! Which call of a function a passage belongs to: what is read besides the variables, so that a return is matched with
//! the entry of the same call.
//!
//! A call is known by its frame: the canonical frame address, the same at its entry and at its return. Go moves stacks,
//! and a frame keeps its distance from the stack's upper end then, so for Go the distance is what is compared.

use super::Roots;
use crate::capture::program::{Address, FollowIndex, Piece, Place, Register, RootRead};
use crate::symbols::Site;
use crate::symbols::place::Spot;
use riptrace_protocol::tracepoint::{Mode, Tracepoint};

/// `R14` holds the current `g` in Go code: <https://go.dev/s/regabi>, amd64.
const GO_G: Register = Register(14);
/// Offset of `stack.hi` in `runtime.g`: its first field is `stack`, of `lo` and `hi`, in every version of Go.
const STACK_HIGH: i64 = 8;
const WORD_BYTES: u32 = 8;

/// Where a hit tells which call it belongs to: in roots behind those of the layout's variables, which are to be cut off
/// before the hit is shown to anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivationPlace {
    /// Number of the first root; those from it on are no variables.
    pub root: usize,
    /// Offset in the roots of the frame's base register, then, for Go, of the upper end of the stack.
    pub offset: usize,
    /// What is added to the base register to make the canonical frame address.
    pub add: i64,
    /// Whether the upper end of the stack follows.
    pub is_go: bool,
}

/// Adds the roots that tell the call. A condition may hold for an entry and not for its return, so that a later return
/// of the same place would be matched with the wrong entry: then calls are not told apart.
pub(super) fn read(tracepoint: &Tracepoint, site: &Site, frame: &Spot, roots: &mut Roots) -> Option<ActivationPlace> {
    let has_condition = tracepoint.condition.as_deref().is_some_and(|text| !text.trim().is_empty());
    if site.is_inlined() || has_condition || tracepoint.hit_condition.is_some() || tracepoint.mode == Mode::Count {
        return None;
    }
    let base = frame.base.filter(|_| frame.derefs.is_empty())?;
    let words = if site.is_go() { 2 } else { 1 };
    if roots.budget - roots.bytes < words * WORD_BYTES {
        return None;
    }
    let activation = ActivationPlace {
        root: roots.reads.len(),
        offset: roots.bytes as usize,
        add: frame.offset,
        is_go: site.is_go(),
    };
    word(roots, Place::Register(Register(base)));
    if site.is_go() {
        word(roots, Place::Memory(Address { base: Some(GO_G), offset: STACK_HIGH, derefs: Vec::new() }));
    }
    Some(activation)
}

fn word(roots: &mut Roots, place: Place) {
    // No such entry: there is nothing to follow in it.
    let follow = FollowIndex(u32::MAX);
    let pieces = vec![Piece { bytes: WORD_BYTES, place }];
    roots.reads.push(RootRead::Read { offset: roots.bytes, pieces, follow, depth: 0 });
    roots.bytes += WORD_BYTES;
}
