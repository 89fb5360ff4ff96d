//! Recordings on the disk: the blocking half of [`super::session`]'s launch and save.
//!
//! A recording is written beside its place and renamed when it is whole, so that a reader never sees half of one under
//! its name; what was begun and not ended is removed.

use crate::timeline::recording::{Header, Reader, Writer};
use riptrace_protocol::stream::StreamItem;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

type Shared<T> = Arc<Mutex<Option<T>>>;

/// The recordings that are open.
#[derive(Default)]
pub(super) struct Recordings {
    pub(super) reader: Shared<Reader<BufReader<File>>>,
    pub(super) writer: Shared<Unfinished>,
}

/// A recording that is being written.
pub(super) struct Unfinished {
    writer: Option<Writer<BufWriter<File>>>,
    part: PathBuf,
    path: PathBuf,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Renamed when it was ended: then there is nothing to remove.
        if self.writer.take().is_some()
            && let Err(error) = std::fs::remove_file(&self.part)
        {
            tracing::warn!("{} could not be removed: {error}", self.part.display());
        }
    }
}

impl Recordings {
    /// A place for another reader; work on an older one goes on without effect.
    pub(super) fn new_reader(&mut self) -> Shared<Reader<BufReader<File>>> {
        self.reader = Shared::default();
        self.reader.clone()
    }

    /// A place for another writer.
    pub(super) fn new_writer(&mut self) -> Shared<Unfinished> {
        self.writer = Shared::default();
        self.writer.clone()
    }

    /// Removes what was written; a part that is being written now goes first.
    pub(super) fn abort(&mut self) {
        let writer = std::mem::take(&mut self.writer);
        tokio::task::spawn_blocking(move || drop(lock(&writer).take()));
    }
}

fn lock<T>(shared: &Mutex<Option<T>>) -> std::sync::MutexGuard<'_, Option<T>> {
    // A holder that panicked left a reader or writer that fails by itself at its next part.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

const GONE: &str = "it is not open any more";

/// Opens a recording; returns what it says of itself.
pub(super) fn open(reader: &Shared<Reader<BufReader<File>>>, path: &Path) -> Result<Header, String> {
    let named = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let file = File::open(path).map_err(|error| named(&error))?;
    let (opened, header) = Reader::new(BufReader::new(file)).map_err(|error| named(&error))?;
    *lock(reader) = Some(opened);
    Ok(header)
}

/// The next items; `None` after the last.
pub(super) fn read(reader: &Shared<Reader<BufReader<File>>>) -> Result<Option<Vec<StreamItem>>, String> {
    let mut reader = lock(reader);
    let reader = reader.as_mut().ok_or_else(|| GONE.to_owned())?;
    reader.next_items().map_err(|error| error.to_string())
}

/// Begins to write a recording.
pub(super) fn begin(writer: &Shared<Unfinished>, path: PathBuf, header: Header) -> Result<Option<u64>, String> {
    let mut name = path.file_name().ok_or("this is no name of a file")?.to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let file = File::create(&part).map_err(|error| error.to_string())?;
    let begun = Writer::new(BufWriter::new(file), header).map_err(|error| error.to_string())?;
    *lock(writer) = Some(Unfinished { writer: Some(begun), part, path });
    Ok(None)
}

/// Writes items.
pub(super) fn write(writer: &Shared<Unfinished>, items: Vec<StreamItem>) -> Result<Option<u64>, String> {
    let mut unfinished = lock(writer);
    let writer = unfinished.as_mut().and_then(|unfinished| unfinished.writer.as_mut()).ok_or(GONE)?;
    writer.items(items).map(|()| None).map_err(|error| error.to_string())
}

/// Ends the recording; returns its bytes.
pub(super) fn end(writer: &Shared<Unfinished>) -> Result<Option<u64>, String> {
    let mut unfinished = lock(writer).take().ok_or(GONE)?;
    let writer = unfinished.writer.take().ok_or(GONE)?;
    let ended = writer.finish().map_err(|error| error.to_string());
    let renamed = ended.and_then(|(_, bytes)| {
        std::fs::rename(&unfinished.part, &unfinished.path).map_err(|error| error.to_string())?;
        Ok(bytes)
    });
    if renamed.is_err()
        && let Err(error) = std::fs::remove_file(&unfinished.part)
    {
        tracing::warn!("{} could not be removed: {error}", unfinished.part.display());
    }
    renamed.map(Some)
}
