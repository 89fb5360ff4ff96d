//! Files with symbols that are installed on the host: by GNU build-id, and by the name that the executable gives
//! (GDB manual, "Debugging Information in Separate Files").

use super::super::image::Image;
use super::code::hexadecimal;
use super::has_symbols;
use flate2::Crc;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Where distributions install them.
const INSTALLED: &str = "/usr/lib/debug";
/// Bytes that are summed at once.
const CHUNK_BYTES: usize = 256 << 10;

/// The first that is proved to be of the same build.
pub(super) fn find(exe: &Path, image: &Image, gnu_id: Option<&[u8]>) -> Option<(Image, PathBuf)> {
    find_below(Path::new(INSTALLED), exe, image, gnu_id)
}

fn find_below(installed: &Path, exe: &Path, image: &Image, gnu_id: Option<&[u8]>) -> Option<(Image, PathBuf)> {
    let by_id = gnu_id.filter(|id| id.len() > 1).and_then(|id| {
        let digits = hexadecimal(id);
        let path = installed.join(".build-id").join(&digits[..2]).join(format!("{}.debug", &digits[2..]));
        let found = Image::open(&path).ok()?;
        (has_symbols(&found) && found.gnu_build_id().as_deref() == Some(id)).then_some((found, path))
    });
    by_id.or_else(|| by_name(installed, exe, image))
}

fn by_name(installed: &Path, exe: &Path, image: &Image) -> Option<(Image, PathBuf)> {
    let (name, wanted) = link(image)?;
    // `/proc/PID/exe` is a link to where the process sees it.
    let exe = std::fs::read_link(exe).unwrap_or_else(|_| exe.to_owned());
    let folder = exe.parent()?;
    let below = installed.join(folder.strip_prefix("/").unwrap_or(folder));
    let candidates = [folder.join(&name), folder.join(".debug").join(&name), below.join(&name)];
    candidates.into_iter().filter(|path| *path != exe).find_map(|path| {
        if checksum(&path).ok()? != wanted {
            return None;
        }
        let found = Image::open(&path).ok().filter(has_symbols)?;
        Some((found, path))
    })
}

/// `.gnu_debuglink`: a file name, a zero, padding to four bytes, CRC-32 of the file.
fn link(image: &Image) -> Option<(String, u32)> {
    /// A file name has 255 bytes at most.
    const LINK_BYTES_MAX: u64 = 264;
    let stored = image.stored(".gnu_debuglink").ok()??;
    let content = image.file_range(stored.offset, stored.bytes.min(LINK_BYTES_MAX)).ok()?;
    let end = content.iter().position(|&byte| byte == 0)?;
    let name = str::from_utf8(&content[..end]).ok()?;
    // A name, not a path: the executable is outside data.
    if name.is_empty() || name.contains('/') || name == ".." {
        return None;
    }
    let at = (end + 1).next_multiple_of(4);
    Some((name.to_owned(), u32::from_le_bytes(content.get(at..at + 4)?.try_into().ok()?)))
}

fn checksum(path: &Path) -> std::io::Result<u32> {
    let mut file = File::open(path)?;
    let mut crc = Crc::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(crc.sum()),
            read => crc.update(&buffer[..read]),
        }
    }
}
