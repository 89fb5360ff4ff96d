//! The contents of a build's debug sections: unpacked by several threads at once, kept in the cache and mapped from
//! there, or held in memory where there is no cache.
//!
//! Go compresses its debug sections, and a compressed section can only be read from its front: so the price of the
//! first question is unpacking, and the largest section sets how long that takes. With a cache nothing of it stays in
//! memory but the pages that are looked at.

use super::SymbolsError;
use super::cache::{Entry, PieceWriter};
use super::image::{Image, Packing, Stored};
use crate::target::{Content, FileMap};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Threads that unpack at once, at most: two or three sections make up nearly all of the work.
const THREADS_MAX: usize = 4;
/// Sections smaller than this are unpacked faster than they are found in a cache.
const KEPT_BYTES_MIN: u64 = 64 << 10;

/// Loads sections; those that do not exist are left out.
pub(super) fn load(
    image: &Image,
    kept: &Entry,
    names: &[&'static str],
) -> Result<HashMap<&'static str, Content>, SymbolsError> {
    let mut wanted: Vec<(&'static str, Stored)> = Vec::new();
    for &name in names {
        wanted.extend(image.stored(name)?.map(|stored| (name, stored)));
    }
    // The longest first: it is what the others wait for.
    wanted.sort_by_key(|(_, stored)| std::cmp::Reverse((stored.packing != Packing::None, stored.bytes)));
    let loaded = Mutex::new(HashMap::new());
    let failed = Mutex::new(None);
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((name, stored)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            match load_one(image, kept, name, stored) {
                Ok(content) => drop(lock(&loaded).insert(*name, content)),
                Err(error) => *lock(&failed) = Some(error),
            }
        }
    };
    let large = wanted.iter().filter(|(_, stored)| stored.bytes >= KEPT_BYTES_MIN).count();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 1..large.min(cpus).min(THREADS_MAX) {
            scope.spawn(work);
        }
        work();
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(loaded.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn load_one(image: &Image, kept: &Entry, name: &str, stored: &Stored) -> Result<Content, SymbolsError> {
    if stored.packing == Packing::None || stored.unpacked_bytes < KEPT_BYTES_MIN {
        return Ok(Content::Held(image.unpacked(stored)?));
    }
    if let Some(map) = kept.get(name, Some(stored.unpacked_bytes)) {
        return Ok(Content::Mapped(map));
    }
    if let Some(writer) = kept.begin(name)
        && let Some(map) = unpack_into(image, stored, writer)?
    {
        return Ok(Content::Mapped(map));
    }
    Ok(Content::Held(image.unpacked(stored)?))
}

/// Unpacks into the cache; `None` when the cache does not take it.
fn unpack_into(image: &Image, stored: &Stored, mut writer: PieceWriter) -> Result<Option<FileMap>, SymbolsError> {
    let mut full = None;
    let unpacked = image.unpack(stored, |chunk| {
        writer.write(chunk).map_err(|error| {
            full = Some(error);
            std::io::ErrorKind::StorageFull.into()
        })
    });
    match (unpacked, full) {
        (Err(error), None) => return Err(image.not_unpacked(stored, &error)),
        (Ok(()), None) => match writer.finish() {
            Ok(map) => return Ok(Some(map)),
            Err(error) => full = Some(error),
        },
        (_, full_now) => full = full_now,
    }
    if let Some(error) = full {
        tracing::warn!(%error, section = stored.name, "the symbol cache cannot be written; symbols are kept in memory");
    }
    Ok(None)
}
