//! Where a thread's goroutine is: the current `g`, and the id in it.
//!
//! Go's assembly and `runtime/cgo` keep `g` in thread-local storage. Without a thread-local segment it is eight bytes
//! below the thread pointer; else it is at the symbol `runtime.tlsg` of the segment, which ends at the thread pointer
//! (System V ABI, variant II), padded so that the block keeps its alignment. Delve does the same
//! (`pkg/proc/bininfo.go`, `setGStructOffsetElf`).

use super::ResolveError;
use super::debug_info::{Die, View};
use super::image::Image;
use super::types;
use riptrace_protocol::fleet::BuildFacts;

/// Where the goroutine id is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GoroutinePlace {
    /// Offset of the word that holds `g`, from the thread pointer.
    pub(crate) g_offset: i64,
    /// Offset of `goid` in `g`.
    pub(crate) goid_offset: u32,
}

/// Finds it, with the type `runtime.g` where the build describes it; `None` where the build does not tell.
pub(super) fn find(
    view: &View<'_>,
    g: Option<Die>,
    image: &Image,
    facts: &BuildFacts,
) -> Result<Option<GoroutinePlace>, ResolveError> {
    let goid_offset = match goid_offset(view, g)? {
        Some(offset) => offset,
        // The layout of Go 1.27 as measured; other versions are not guessed.
        None if facts.go_version.as_deref().is_some_and(|version| version.starts_with("go1.27")) => 152,
        None => return Ok(None),
    };
    Ok(g_offset(image).map(|g_offset| GoroutinePlace { g_offset, goid_offset }))
}

fn g_offset(image: &Image) -> Option<i64> {
    let Some(segment) = image.thread_local() else { return Some(-8) };
    let Some(tlsg) = image.symbol("runtime.tlsg") else { return Some(-8) };
    // The linker pads the block so that the segment's address keeps its place within the alignment.
    let size = segment.memory_bytes;
    let padding = 0u64.wrapping_sub(segment.address).wrapping_sub(size) & (segment.align - 1);
    i64::try_from(tlsg).ok()?.checked_sub(i64::try_from(size.checked_add(padding)?).ok()?)
}

/// Offset of the member `goid` of the type `runtime.g`.
fn goid_offset(view: &View<'_>, g: Option<Die>) -> Result<Option<u32>, ResolveError> {
    let Some(g) = g else { return Ok(None) };
    let types::Shape::Struct(members) = types::read(view, g)?.shape else { return Ok(None) };
    let goid = members.iter().find(|member| member.name == "goid");
    Ok(goid.and_then(|member| u32::try_from(member.offset).ok()))
}
