//! What tests change about an agent in a process of its own, and what they see of it.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

static ROTATION: AtomicUsize = AtomicUsize::new(0);
static INSIDE: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());

static ONLY: AtomicU32 = AtomicU32::new(0);
static DIES_INSIDE: AtomicBool = AtomicBool::new(false);

/// No thread but this one is asked.
pub(super) fn only(tid: u32) {
    ONLY.store(tid, Ordering::SeqCst);
}

/// The agent kills itself as soon as a thread has the registers of a call.
pub(super) fn die_inside() {
    DIES_INSIDE.store(true, Ordering::SeqCst);
}

static SIGNAL: AtomicU64 = AtomicU64::new(0);

/// The thread that is to make a call is sent a signal just before.
pub(super) fn signal_inside(process: u32, signal: i32) {
    SIGNAL.store(u64::from(process) << 32 | signal as u64, Ordering::SeqCst);
}

pub(in crate::engine::inject) fn before_entering(tid: i32) {
    match SIGNAL.load(Ordering::SeqCst) {
        0 => {}
        both => crate::engine::sys::send((both >> 32) as i32, tid, both as u32 as i32),
    }
}

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
    match ONLY.load(Ordering::SeqCst) {
        0 => {}
        only => candidates.fill(only),
    }
}

/// The word is 1 while a thread has the registers of a call, else 0.
pub(super) fn mark_inside(word: &'static AtomicU64) {
    INSIDE.store(ptr::from_ref(word).cast_mut(), Ordering::SeqCst);
}

pub(in crate::engine::inject) fn inside(is_inside: bool) {
    if is_inside && DIES_INSIDE.load(Ordering::SeqCst) {
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    let word = INSIDE.load(Ordering::SeqCst);
    // SAFETY: null, or a reference that lives for as long as the process.
    if let Some(word) = unsafe { word.as_ref() } {
        word.store(u64::from(is_inside), Ordering::SeqCst);
    }
}
