//! Recordings: a session's hits in one file, with the layouts and frames needed to read them.
//!
//! ```text
//!  file  = magic "RIPTRACE.REC" , version (1 byte) , version of the stream's items (1 byte) , part ..
//!  part  = length (u32 LE) , FNV-1a of the payload (u32 LE) , payload (postcard of `Part`)
//!  parts = Header , Items .. , End
//! ```
//! A reader takes a file as it is: a part that is damaged, or the lack of an end (the writer died), is an error that says
//! how many hits were read before it, and those stay usable. Neither side holds more than one part in memory.
//!
//! Postcard is positional: fields are never reordered or removed within a version; a change raises [`VERSION`].

use riptrace_protocol::fleet::FleetView;
use riptrace_protocol::stream::{STREAM_VERSION, StreamItem};
use riptrace_protocol::tracepoint::Tracepoint;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};

/// Version of the format.
pub const VERSION: u8 = 1;
const MAGIC: &[u8] = b"RIPTRACE.REC";
/// Largest part that is read, in bytes: a part holds some hundreds of hits of at most 64 KiB each.
const PART_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Items in one part, at most.
pub const PART_ITEMS_MAX: usize = 512;

/// What a recording says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of RipTrace that wrote it.
    pub riptrace: String,
    /// The fleet when it was saved, as JSON: its types describe themselves there, and not in postcard.
    fleet: String,
    /// What was asked for, and where in the checkout; JSON as well.
    asked: String,
    /// Folder of the checkout it was made in.
    pub root: String,
    /// Dropped hits that were counted in the session.
    pub dropped: u64,
}

/// A tracepoint of a recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AskedFor {
    /// What was asked of the fleet.
    pub tracepoint: Tracepoint,
    /// Local file and line of its breakpoint; `None` for a function's.
    pub local: Option<(String, u32)>,
}

/// One part of a recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Part {
    /// The first part.
    Header(Header),
    /// Layouts, frames, hits and drops, in order: what a hit needs comes before it.
    Items(Vec<StreamItem>),
    /// The last part.
    End {
        /// Hits in the file.
        hits: u64,
    },
}

/// A recording that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file system.
    #[error("the recording cannot be read or written: {0}")]
    Io(#[from] std::io::Error),
    /// Another kind of file.
    #[error("this is no recording of RipTrace: it does not begin with {:?}", String::from_utf8_lossy(MAGIC))]
    Magic,
    /// Another version of RipTrace wrote it.
    #[error(
        "the recording has version {found} (items {items}), this riptrace reads version {VERSION} (items \
         {STREAM_VERSION}): use the riptrace that wrote it"
    )]
    Version {
        /// Version found.
        found: u8,
        /// Version of the stream's items found.
        items: u8,
    },
    /// A part that is larger than any that is written.
    #[error(
        "a part of {bytes} bytes is announced after {hits} hits, at most {PART_BYTES_MAX} are read: the file is damaged"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// Hits that were read before it.
        hits: u64,
    },
    /// Bytes that were changed.
    #[error("the recording is damaged after {hits} hits ({detail})")]
    Damaged {
        /// Hits that were read before the damage.
        hits: u64,
        /// What is wrong.
        detail: String,
    },
    /// The file ends too early.
    #[error("the recording ends after {hits} hits without its last part: writing it was interrupted")]
    CutOff {
        /// Hits that were read.
        hits: u64,
    },
}

impl Header {
    /// What a recording says of itself.
    pub fn new(fleet: &FleetView, asked: &[AskedFor], root: String, dropped: u64) -> Header {
        // Plain data: it can always be written.
        let json = |value: Result<String, serde_json::Error>| value.unwrap_or_else(|_| "null".to_owned());
        Header {
            riptrace: env!("CARGO_PKG_VERSION").to_owned(),
            fleet: json(serde_json::to_string(fleet)),
            asked: json(serde_json::to_string(asked)),
            root,
            dropped,
        }
    }

    /// The fleet when it was saved.
    pub fn fleet(&self) -> Result<FleetView, RecordingError> {
        parsed(&self.fleet, "fleet")
    }

    /// What was asked for.
    pub fn asked(&self) -> Result<Vec<AskedFor>, RecordingError> {
        parsed(&self.asked, "tracepoints")
    }
}

fn parsed<T: serde::de::DeserializeOwned>(json: &str, what: &str) -> Result<T, RecordingError> {
    serde_json::from_str(json)
        .map_err(|error| RecordingError::Damaged { hits: 0, detail: format!("its {what} cannot be read: {error}") })
}

/// Writes a recording, part by part.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    hits: u64,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a recording.
    pub fn new(mut to: W, header: Header) -> Result<Writer<W>, RecordingError> {
        to.write_all(MAGIC)?;
        to.write_all(&[VERSION, STREAM_VERSION])?;
        let mut writer = Writer { to, hits: 0, bytes: (MAGIC.len() + 2) as u64 };
        writer.part(&Part::Header(header))?;
        Ok(writer)
    }

    /// Adds items.
    pub fn items(&mut self, items: Vec<StreamItem>) -> Result<(), RecordingError> {
        self.hits += items.iter().filter(|item| matches!(item, StreamItem::Hit(_))).count() as u64;
        self.part(&Part::Items(items))
    }

    /// Ends the recording; returns its hits and bytes.
    pub fn finish(mut self) -> Result<(u64, u64), RecordingError> {
        self.part(&Part::End { hits: self.hits })?;
        self.to.flush()?;
        Ok((self.hits, self.bytes))
    }

    fn part(&mut self, part: &Part) -> Result<(), RecordingError> {
        let payload = postcard::to_stdvec(part)
            .map_err(|error| RecordingError::Damaged { hits: self.hits, detail: error.to_string() })?;
        if payload.len() > PART_BYTES_MAX {
            return Err(RecordingError::TooLarge { bytes: payload.len(), hits: self.hits });
        }
        // It was compared with the limit.
        self.to.write_all(&(payload.len() as u32).to_le_bytes())?;
        self.to.write_all(&checksum(&payload).to_le_bytes())?;
        self.to.write_all(&payload)?;
        self.bytes += 8 + payload.len() as u64;
        Ok(())
    }
}

/// Reads a recording, part by part.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    hits: u64,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Begins to read; returns what the recording says of itself.
    pub fn new(mut from: R) -> Result<(Reader<R>, Header), RecordingError> {
        let mut magic = [0; MAGIC.len() + 2];
        from.read_exact(&mut magic).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => RecordingError::Magic,
            _ => RecordingError::Io(error),
        })?;
        let (found, items) = (magic[MAGIC.len()], magic[MAGIC.len() + 1]);
        if !magic.starts_with(MAGIC) {
            return Err(RecordingError::Magic);
        }
        if (found, items) != (VERSION, STREAM_VERSION) {
            return Err(RecordingError::Version { found, items });
        }
        let mut reader = Reader { from, hits: 0, ended: false };
        match reader.part()? {
            Part::Header(header) => Ok((reader, header)),
            _ => Err(RecordingError::Damaged { hits: 0, detail: "it does not begin with its header".to_owned() }),
        }
    }

    /// The next items; `None` after the last.
    pub fn next_items(&mut self) -> Result<Option<Vec<StreamItem>>, RecordingError> {
        if self.ended {
            return Ok(None);
        }
        match self.part()? {
            Part::Items(items) => {
                self.hits += items.iter().filter(|item| matches!(item, StreamItem::Hit(_))).count() as u64;
                Ok(Some(items))
            }
            Part::End { hits } if hits == self.hits => {
                self.ended = true;
                Ok(None)
            }
            Part::End { hits } => {
                let detail = format!("it should hold {hits}");
                Err(RecordingError::Damaged { hits: self.hits, detail })
            }
            Part::Header(_) => Err(RecordingError::Damaged { hits: self.hits, detail: "a second header".to_owned() }),
        }
    }

    fn part(&mut self) -> Result<Part, RecordingError> {
        let hits = self.hits;
        let cut = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => RecordingError::CutOff { hits },
            _ => RecordingError::Io(error),
        };
        let mut word = [0; 4];
        self.from.read_exact(&mut word).map_err(cut)?;
        let bytes = u32::from_le_bytes(word) as usize;
        if bytes > PART_BYTES_MAX {
            return Err(RecordingError::TooLarge { bytes, hits });
        }
        self.from.read_exact(&mut word).map_err(cut)?;
        let expected = u32::from_le_bytes(word);
        // Grows with what is there, not with what is announced.
        let mut payload = Vec::new();
        let read = self.from.by_ref().take(bytes as u64).read_to_end(&mut payload).map_err(RecordingError::Io)?;
        if read < bytes {
            return Err(RecordingError::CutOff { hits });
        }
        if checksum(&payload) != expected {
            return Err(RecordingError::Damaged { hits, detail: "a checksum does not fit".to_owned() });
        }
        postcard::from_bytes(&payload)
            .map_err(|error| RecordingError::Damaged { hits, detail: format!("a part cannot be read: {error}") })
    }
}

/// FNV-1a, 32 bits: finds what a disk or a copy has damaged; it is no protection against a person.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use riptrace_protocol::hit::DropReason;
    use riptrace_protocol::ids::{HostName, Incarnation};
    use riptrace_protocol::stream::StreamDrop;

    fn drops(count: u64) -> Vec<StreamItem> {
        let host = HostName::new("a").unwrap();
        vec![StreamItem::Drop(StreamDrop { host, process: None, tracepoint: None, reason: DropReason::Lost, count })]
    }

    fn recording() -> Vec<u8> {
        let fleet = FleetView { coordinator: Incarnation(1), hosts: Vec::new(), tracepoints: Vec::new() };
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, Header::new(&fleet, &[], "/shop".into(), 7)).unwrap();
        writer.items(drops(1)).unwrap();
        writer.items(drops(2)).unwrap();
        let (hits, written) = writer.finish().unwrap();
        assert_eq!((hits, written), (0, bytes.len() as u64));
        bytes
    }

    /// Reads all; the parts that could be read and how it ended.
    fn read(bytes: &[u8]) -> Result<(Vec<Vec<StreamItem>>, Option<RecordingError>), RecordingError> {
        let (mut reader, header) = Reader::new(bytes)?;
        let _ = (header.fleet(), header.asked());
        let mut parts = Vec::new();
        loop {
            match reader.next_items() {
                Ok(Some(items)) => parts.push(items),
                Ok(None) => return Ok((parts, None)),
                Err(error) => return Ok((parts, Some(error))),
            }
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = recording();
        let (_, header) = Reader::new(bytes.as_slice()).unwrap();
        assert_eq!((header.root.as_str(), header.dropped, header.asked().unwrap()), ("/shop", 7, Vec::new()));
        assert_eq!(header.fleet().unwrap().coordinator, Incarnation(1));
        let (parts, error) = read(&bytes).unwrap();
        assert!(error.is_none());
        assert_eq!(parts, [drops(1), drops(2)]);
    }

    #[test]
    fn a_file_that_was_cut_or_changed_says_so_and_keeps_what_came_before() {
        let bytes = recording();
        for end in 0..bytes.len() {
            match read(&bytes[..end]) {
                Ok((parts, error)) => {
                    assert!(matches!(error, Some(RecordingError::CutOff { hits: 0 })), "{end}: {error:?}");
                    assert!(parts.len() <= 2);
                }
                Err(RecordingError::Magic | RecordingError::CutOff { .. }) => {}
                Err(other) => panic!("{end}: {other}"),
            }
        }
        let mut newer = bytes.clone();
        newer[MAGIC.len()] = VERSION + 1;
        assert!(matches!(read(&newer), Err(RecordingError::Version { found, .. }) if found == VERSION + 1));
        assert!(matches!(read(b"not a recording at all"), Err(RecordingError::Magic)));
        let mut huge = bytes;
        huge[MAGIC.len() + 2..MAGIC.len() + 6].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(read(&huge), Err(RecordingError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn damaged_files_are_errors_and_never_more(at in any::<prop::sample::Index>(), flip in 1u8..) {
            let mut bytes = recording();
            let index = at.index(bytes.len());
            bytes[index] ^= flip;
            let is_whole = matches!(read(&bytes), Ok((_, None)));
            prop_assert!(!is_whole, "one changed byte is found");
        }

        #[test]
        fn any_bytes_are_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut file = MAGIC.to_vec();
            file.extend([VERSION, STREAM_VERSION]);
            file.append(&mut bytes);
            let _ = read(&file);
        }
    }
}
