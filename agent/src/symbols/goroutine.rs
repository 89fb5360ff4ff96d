//! Where a thread's goroutine is: the current `g`, the id in it, and what else it says of the goroutine.
//!
//! Go's assembly and `runtime/cgo` keep `g` in thread-local storage. Without a thread-local segment it is eight bytes
//! below the thread pointer; else it is at the symbol `runtime.tlsg` of the segment, which ends at the thread pointer
//! (System V ABI, variant II), padded so that the block keeps its alignment. Delve does the same
//! (`pkg/proc/bininfo.go`, `setGStructOffsetElf`).

use super::ResolveError;
use super::debug_info::{Die, View};
use super::image::Image;
use super::landmarks::Landmarks;
use super::types::{self, Member};
use riptrace_protocol::fleet::BuildFacts;

/// Where the goroutine id is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GoroutinePlace {
    /// Offset of the word that holds `g`, from the thread pointer.
    pub(crate) g_offset: i64,
    /// Offset of `goid` in `g`.
    pub(crate) goid_offset: u32,
    /// Who made it; `None` where the build does not tell.
    pub(crate) origin: Option<OriginPlace>,
}

/// Offsets in `g` of what tells where a goroutine comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OriginPlace {
    /// Of `parentGoid`, the id of the goroutine that made it (since Go 1.21).
    pub(crate) parent_goid: u32,
    /// Of `gopc`, the address behind the call of the `go` statement.
    pub(crate) go_pc: u32,
    /// Of `labels`, the address of the labels that `runtime/pprof` set, or 0.
    pub(crate) labels: u32,
}

/// Finds it, with what the build describes; `None` where the build does not tell.
pub(super) fn find(
    view: &View<'_>,
    landmarks: &Landmarks,
    image: &Image,
    facts: &BuildFacts,
) -> Result<Option<GoroutinePlace>, ResolveError> {
    let members = members(view, landmarks.g)?;
    let offset = |name: &str| {
        let member = members.iter().find(|member| member.name == name)?;
        u32::try_from(member.offset).ok()
    };
    let goid_offset = match offset("goid") {
        Some(offset) => offset,
        // The layout of Go 1.27 as measured; other versions are not guessed.
        None if facts.go_version.as_deref().is_some_and(|version| version.starts_with("go1.27")) => 152,
        None => return Ok(None),
    };
    let origin = || {
        let [parent_goid, go_pc, labels] = [offset("parentGoid")?, offset("gopc")?, offset("labels")?];
        Some(OriginPlace { parent_goid, go_pc, labels })
    };
    Ok(g_offset(image, landmarks.tlsg).map(|g_offset| GoroutinePlace { g_offset, goid_offset, origin: origin() }))
}

fn g_offset(image: &Image, tlsg: Option<u64>) -> Option<i64> {
    let Some(segment) = image.thread_local() else { return Some(-8) };
    let Some(tlsg) = tlsg else { return Some(-8) };
    // The linker pads the block so that the segment's address keeps its place within the alignment.
    let size = segment.memory_bytes;
    let padding = 0u64.wrapping_sub(segment.address).wrapping_sub(size) & (segment.align - 1);
    i64::try_from(tlsg).ok()?.checked_sub(i64::try_from(size.checked_add(padding)?).ok()?)
}

/// The members of the type `runtime.g`; none where the build does not describe it.
fn members(view: &View<'_>, g: Option<Die>) -> Result<Vec<Member>, ResolveError> {
    let Some(g) = g else { return Ok(Vec::new()) };
    Ok(match types::read(view, g)?.shape {
        types::Shape::Struct(members) => members,
        _ => Vec::new(),
    })
}
