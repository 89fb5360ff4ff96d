//! What the fuzz targets of this crate (`dap-adapter/fuzz`) and its random tests reach of its private parts. No part of the
//! library's interface.

pub use crate::dap::fuzzing::conversation;
pub use crate::lsp::fuzzing::language_server;

use crate::timeline::recording::{Reader, RecordingError, Writer};

/// Reads `input` as a recording, part by part; what was read is written again.
///
/// # Panics
/// When more is read than there is, or what was written cannot be read.
pub fn recording(input: &[u8]) {
    let Ok((mut reader, header)) = Reader::new(input) else { return };
    let _ = (header.fleet(), header.asked());
    let mut again = Vec::new();
    let Ok(mut writer) = Writer::new(&mut again, header) else { return };
    let mut parts = 0;
    let whole = loop {
        match reader.next_items() {
            Ok(Some(items)) => {
                parts += 1;
                assert!(parts <= input.len(), "a part takes bytes");
                if writer.items(items).is_err() {
                    return;
                }
            }
            Ok(None) => break true,
            Err(error) => break matches!(error, RecordingError::CutOff { .. }),
        }
    };
    if !whole || writer.finish().is_err() {
        return;
    }
    let (mut reader, _) = Reader::new(again.as_slice()).expect("what was written begins well");
    while reader.next_items().expect("what was written can be read").is_some() {}
}

#[cfg(test)]
mod tests;
