//! Reads files of /proc and /sys, whose size is not known before they are read: the library then asks for it, and reads in
//! small pieces, ten calls a file. Looking at every thread of a process is mostly such reads.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Bytes that are read at once: all of most such files.
const READ_BYTES: usize = 8 << 10;

/// All of a file.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut content = Vec::new();
    let mut filled = 0;
    loop {
        // Large ones (the mappings of a process) are read in pieces that grow with them.
        content.resize(filled + READ_BYTES.max(filled), 0);
        match file.read(&mut content[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    content.truncate(filled);
    Ok(content)
}

/// The same, as text; bytes that are none are replaced.
pub(crate) fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    read(path).map(|content| match String::from_utf8(content) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_file_is_read_whatever_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for bytes in [0, 1, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 5 * READ_BYTES + 7] {
            let content: Vec<u8> = (0..bytes).map(|n| n as u8).collect();
            std::fs::write(&path, &content).unwrap();
            assert_eq!(read(&path).unwrap(), content, "{bytes} bytes");
        }
        assert!(read_text("/proc/self/status").unwrap().contains("\nPid:\t"));
        assert_eq!(read(folder.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&path, b"a\xffb").unwrap();
        assert_eq!(read_text(&path).unwrap(), "a\u{fffd}b");
    }
}
