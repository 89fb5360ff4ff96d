//! What tests change about an agent in a process of its own, and what they see of it.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

static ROTATION: AtomicUsize = AtomicUsize::new(0);
static INSIDE: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());

/// The thread that is asked first is another one.
pub(super) fn prefer(rotation: usize) {
    ROTATION.store(rotation, Ordering::SeqCst);
}

pub(in crate::engine::inject) fn rotate(candidates: &mut [u32]) {
    let rotation = ROTATION.load(Ordering::SeqCst);
    if rotation != 0 && !candidates.is_empty() {
        let middle = rotation % candidates.len();
        candidates.rotate_left(middle);
    }
}

/// The word is 1 while a thread has the registers of a call, else 0.
pub(super) fn mark_inside(word: &'static AtomicU64) {
    INSIDE.store(ptr::from_ref(word).cast_mut(), Ordering::SeqCst);
}

pub(in crate::engine::inject) fn inside(is_inside: bool) {
    let word = INSIDE.load(Ordering::SeqCst);
    // SAFETY: null, or a reference that lives for as long as the process.
    if let Some(word) = unsafe { word.as_ref() } {
        word.store(u64::from(is_inside), Ordering::SeqCst);
    }
}
