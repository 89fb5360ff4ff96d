//! Framing of the debug adapter protocol: `Content-Length: N`, an empty line, N bytes of JSON.
//!
//! Specification: "Base Protocol" of the Debug Adapter Protocol. Header names are read without regard to case, other
//! headers are ignored, and an empty line before a header is skipped (some peers end a body with one).
//!
//! It knows nothing of the messages' content. It never fails on bytes that are no message: it says so once, in a
//! [`Frame::Garbage`], and goes on at the next `Content-Length`. It fails only where going on would be wrong: a web
//! browser on the TCP port (any page may open `http://127.0.0.1:PORT`), told by its `Origin` header or request line.

use super::limits::{HEADER_LINE_BYTES_MAX, MESSAGE_BYTES_MAX};
use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

const CONTENT_LENGTH: &[u8] = b"content-length:";

/// What carries the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Standard input and output of a child of the editor.
    Stdio,
    /// A TCP connection, which a browser could have opened.
    Tcp,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Body of one message.
    Body(Bytes),
    /// Bytes that are no message were skipped; reported once until a message is read again.
    Garbage(Garbage),
}

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Garbage {
    /// A line that is no header.
    #[error("{0:?} is not a header of the debug adapter protocol")]
    NotAHeader(String),
    /// Headers without a length.
    #[error("a message came without a Content-Length header")]
    NoLength,
    /// A length that is no number.
    #[error("{0:?} is not a Content-Length")]
    BadLength(String),
    /// A length beyond the limit.
    #[error("a message of {0} bytes was announced, at most {MESSAGE_BYTES_MAX} are read")]
    TooLarge(u64),
}

/// Why the connection is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    /// A web page.
    #[error("a web browser spoke to the debug adapter's port and was refused")]
    Browser,
    /// The transport failed.
    #[error("the connection to the editor failed: {0}")]
    Io(#[from] std::io::Error),
    /// A message that cannot be written.
    #[error("a message could not be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Reads and writes frames.
#[derive(Debug)]
pub(crate) struct DapCodec {
    transport: Transport,
    length: Option<usize>,
    in_headers: bool,
    in_body: bool,
    garbage_reported: bool,
}

impl DapCodec {
    pub(crate) fn new(transport: Transport) -> DapCodec {
        DapCodec { transport, length: None, in_headers: false, in_body: false, garbage_reported: false }
    }

    fn garbage(&mut self, garbage: Garbage) -> Option<Frame> {
        self.length = None;
        self.in_headers = false;
        (!std::mem::replace(&mut self.garbage_reported, true)).then_some(Frame::Garbage(garbage))
    }

    /// One header line without its end. `Ok(Some)` is a frame to hand out.
    fn line(&mut self, line: &[u8]) -> Result<Option<Frame>, CodecError> {
        if line.is_empty() {
            if self.length.is_some() {
                self.in_body = true;
                return Ok(None);
            }
            return Ok(if self.in_headers { self.garbage(Garbage::NoLength) } else { None });
        }
        // A length may stand behind the rest of a broken message, which ends without a line end.
        if let Some(at) = find_ignoring_case(line, CONTENT_LENGTH) {
            let before = if at > 0 { self.garbage(not_a_header(&line[..at])) } else { None };
            let digits = String::from_utf8_lossy(&line[at + CONTENT_LENGTH.len()..]).trim().to_owned();
            return Ok(match digits.parse::<u64>() {
                Ok(bytes) if bytes > MESSAGE_BYTES_MAX as u64 => self.garbage(Garbage::TooLarge(bytes)),
                Ok(bytes) => {
                    self.in_headers = true;
                    self.length = Some(bytes as usize);
                    before
                }
                Err(_) => self.garbage(Garbage::BadLength(digits)),
            });
        }
        let name = line.iter().position(|&b| b == b':').map(|at| &line[..at]);
        if self.transport == Transport::Tcp {
            let is_request_line = line.windows(6).any(|w| w == b" HTTP/");
            if is_request_line || name.is_some_and(|name| name.trim_ascii().eq_ignore_ascii_case(b"origin")) {
                return Err(CodecError::Browser);
            }
        }
        match name {
            Some(name) if is_header_name(name.trim_ascii()) => {
                self.in_headers = true;
                Ok(None)
            }
            _ => Ok(self.garbage(not_a_header(line))),
        }
    }
}

impl Decoder for DapCodec {
    type Item = Frame;
    type Error = CodecError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, CodecError> {
        loop {
            if self.in_body {
                let length = self.length.unwrap_or_default();
                if src.len() < length {
                    src.reserve(length - src.len());
                    return Ok(None);
                }
                let body = src.split_to(length).freeze();
                (self.in_body, self.length, self.in_headers, self.garbage_reported) = (false, None, false, false);
                return Ok(Some(Frame::Body(body)));
            }
            let frame = match src.iter().position(|&b| b == b'\n') {
                Some(end) => {
                    let line = src.split_to(end + 1).freeze();
                    let line = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
                    self.line(line)?
                }
                None if src.len() > HEADER_LINE_BYTES_MAX => {
                    let frame = self.garbage(not_a_header(src));
                    // The header of the next message may have begun: keep what can be its start.
                    let keep =
                        find_ignoring_case(src, CONTENT_LENGTH).map_or(CONTENT_LENGTH.len(), |at| src.len() - at);
                    src.advance(src.len() - keep.min(HEADER_LINE_BYTES_MAX / 2));
                    frame
                }
                None => return Ok(None),
            };
            if frame.is_some() {
                return Ok(frame);
            }
        }
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, CodecError> {
        let frame = self.decode(src)?;
        if frame.is_none() {
            // A message that was cut off by the end of the input: there is nobody left to answer.
            src.clear();
        }
        Ok(frame)
    }
}

impl Encoder<&serde_json::Value> for DapCodec {
    type Error = CodecError;

    fn encode(&mut self, message: &serde_json::Value, dst: &mut BytesMut) -> Result<(), CodecError> {
        let body = serde_json::to_vec(message)?;
        dst.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        dst.extend_from_slice(&body);
        Ok(())
    }
}

fn is_header_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

/// The beginning of what was read, as a person may be shown it.
fn not_a_header(line: &[u8]) -> Garbage {
    let shown = &line[..line.len().min(60)];
    Garbage::NotAHeader(String::from_utf8_lossy(shown).into_owned())
}

fn find_ignoring_case(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).rposition(|window| window.eq_ignore_ascii_case(needle))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(transport: Transport, pieces: &[&[u8]]) -> Result<Vec<Frame>, CodecError> {
        let mut codec = DapCodec::new(transport);
        let mut buffer = BytesMut::new();
        let mut frames = Vec::new();
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Some(frame) = codec.decode(&mut buffer)? {
                frames.push(frame);
            }
        }
        while let Some(frame) = codec.decode_eof(&mut buffer)? {
            frames.push(frame);
        }
        Ok(frames)
    }

    fn body(text: &str) -> Frame {
        Frame::Body(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn header_names_have_no_case_and_other_headers_are_ignored() {
        let bytes = b"content-LENGTH:  2\r\nContent-Type: application/vscode-jsonrpc; charset=utf-8\r\n\r\n{}";
        assert_eq!(read(Transport::Stdio, &[bytes]).unwrap(), [body("{}")]);
    }

    #[test]
    fn a_message_may_come_in_any_pieces_and_be_followed_by_a_line_end() {
        let bytes = b"Content-Length: 2\r\n\r\n{}\r\nContent-Length: 3\r\n\r\n{1}";
        let bytes_apart: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(Transport::Stdio, &bytes_apart).unwrap(), [body("{}"), body("{1}")]);
    }

    #[test]
    fn garbage_is_reported_once_and_the_next_message_is_read() {
        let bytes = b"hello\nworld\nxyzContent-Length: 2\r\n\r\n{}";
        let frames = read(Transport::Stdio, &[bytes]).unwrap();
        assert_eq!(frames, [Frame::Garbage(Garbage::NotAHeader("hello".into())), body("{}")]);
    }

    #[test]
    fn lengths_that_cannot_be_are_garbage() {
        for (length, expect) in [
            ("x", Garbage::BadLength("x".into())),
            ("-1", Garbage::BadLength("-1".into())),
            ("99999999999", Garbage::TooLarge(99_999_999_999)),
        ] {
            let bytes = format!("Content-Length: {length}\r\n\r\n{{}}Content-Length: 3\r\n\r\n{{2}}");
            let frames = read(Transport::Stdio, &[bytes.as_bytes()]).unwrap();
            assert_eq!(frames, [Frame::Garbage(expect), body("{2}")]);
        }
        let frames = read(Transport::Stdio, &[b"X: y\r\n\r\nContent-Length: 2\r\n\r\n{}"]).unwrap();
        assert_eq!(frames, [Frame::Garbage(Garbage::NoLength), body("{}")]);
    }

    #[test]
    fn an_endless_line_is_not_kept() {
        let mut codec = DapCodec::new(Transport::Stdio);
        let mut buffer = BytesMut::new();
        for _ in 0..100 {
            buffer.extend_from_slice(&[b'x'; 10_000]);
            while codec.decode(&mut buffer).unwrap().is_some() {}
            assert!(buffer.len() <= HEADER_LINE_BYTES_MAX);
        }
        buffer.extend_from_slice(b"Content-Length: 2\r\n\r\n{}");
        assert_eq!(codec.decode(&mut buffer).unwrap(), Some(body("{}")));
    }

    #[test]
    fn a_browser_is_refused_on_tcp_only() {
        let origin = b"Content-Length: 2\r\nORIGIN: http://evil.example\r\n\r\n{}";
        assert!(matches!(read(Transport::Tcp, &[origin]), Err(CodecError::Browser)));
        assert_eq!(read(Transport::Stdio, &[origin]).unwrap(), [body("{}")]);
        let post = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
        assert!(matches!(read(Transport::Tcp, &[post]), Err(CodecError::Browser)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived_and_the_message_behind_them_is_read(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            cut in 1usize..50,
        ) {
            let mut all = bytes;
            all.extend_from_slice(b"Content-Length: 2\r\n\r\n{}");
            let pieces: Vec<&[u8]> = all.chunks(cut).collect();
            let frames = read(Transport::Stdio, &pieces).unwrap();
            prop_assert_eq!(frames.last(), Some(&body("{}")));
        }

        #[test]
        fn what_is_written_is_read_back_in_any_pieces(texts in proptest::collection::vec(".{0,40}", 0..6), cut in 1usize..30) {
            let mut codec = DapCodec::new(Transport::Stdio);
            let mut bytes = BytesMut::new();
            for text in &texts {
                codec.encode(&serde_json::json!({"text": text}), &mut bytes).unwrap();
            }
            let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
            let read: Vec<serde_json::Value> = read(Transport::Stdio, &pieces).unwrap().into_iter().map(|frame| match frame {
                Frame::Body(body) => serde_json::from_slice(&body).unwrap(),
                Frame::Garbage(garbage) => panic!("{garbage}"),
            }).collect();
            let written: Vec<serde_json::Value> = texts.iter().map(|text| serde_json::json!({"text": text})).collect();
            prop_assert_eq!(read, written);
        }
    }
}
