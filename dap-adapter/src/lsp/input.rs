//! Stands between the editor's bytes and tower-lsp, which ends at the first message that it cannot read and does not
//! end at `exit`.
//!
//! Every message is checked here. One that is none is replaced by a request of [`MALFORMED`] with the id `null`, which
//! the server answers with a parse error, as JSON-RPC asks; bytes that are no frame are skipped up to the next one. At
//! `exit` the input ends.

use bytes::{Buf, Bytes, BytesMut};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tower_lsp::jsonrpc::{Request, Response};

/// Method that stands for a message that could not be read.
pub(super) const MALFORMED: &str = "riptrace/malformed";
/// Largest message that is taken in: whole texts of documents are sent.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest header of a message.
const HEADER_BYTES_MAX: usize = 4096;
const LENGTH: &[u8] = b"content-length:";

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// Bytes without the header of a message.
    #[error("skipped bytes that are no message: each begins with Content-Length: N and an empty line")]
    NoHeader,
    /// A message beyond the limit.
    #[error("a message of {0} bytes was announced, at most {MESSAGE_BYTES_MAX} are read")]
    TooLarge(u64),
    /// A body that is no message of JSON-RPC.
    #[error("the body of a message is not a request, notification or response of JSON-RPC 2.0: {0}")]
    Body(String),
}

/// Cuts bytes into bodies of messages.
#[derive(Debug, Default)]
struct Frames {
    buffer: BytesMut,
    /// Bytes of a body that is too large and still to be skipped.
    skip: u64,
    /// Bytes without a header are told of once, until a message is read again.
    told: bool,
}

impl Frames {
    /// The next body, or why there is none; `None` when more bytes are needed.
    fn next(&mut self) -> Option<Result<Bytes, Malformed>> {
        loop {
            match self.step()? {
                Err(Malformed::NoHeader) if std::mem::replace(&mut self.told, true) => {}
                Ok(body) => {
                    self.told = false;
                    return Some(Ok(body));
                }
                told => return Some(told),
            }
        }
    }

    fn step(&mut self) -> Option<Result<Bytes, Malformed>> {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(self.buffer.len());
        self.buffer.advance(skipped);
        self.skip -= skipped as u64;
        let Some(end) = find(&self.buffer, b"\r\n\r\n") else {
            return if self.buffer.len() > HEADER_BYTES_MAX { Some(Err(self.resume())) } else { None };
        };
        let Some(length) = length(&self.buffer[..end]) else {
            return Some(Err(self.resume()));
        };
        let body = end + 4;
        if length > MESSAGE_BYTES_MAX as u64 {
            self.buffer.advance(body);
            self.skip = length;
            return Some(Err(Malformed::TooLarge(length)));
        }
        let length = usize::try_from(length).unwrap_or(MESSAGE_BYTES_MAX);
        if self.buffer.len() < body + length {
            return None;
        }
        self.buffer.advance(body);
        Some(Ok(self.buffer.split_to(length).freeze()))
    }

    /// Skips to the next thing that looks like a header: at least one byte.
    fn resume(&mut self) -> Malformed {
        let lower = self.buffer.to_ascii_lowercase();
        // Not the one at the very start: it is what could not be read.
        let next = find(&lower[1..], LENGTH).map(|at| at + 1);
        // The header may have come in half.
        let skipped = next.unwrap_or_else(|| lower.len().saturating_sub(LENGTH.len()).max(1));
        self.buffer.advance(skipped);
        Malformed::NoHeader
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// The length that headers announce; `None` when they are no headers.
fn length(headers: &[u8]) -> Option<u64> {
    let mut length = None;
    for line in std::str::from_utf8(headers).ok()?.split("\r\n") {
        let (name, value) = line.split_once(':')?;
        if name.trim().eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse().ok()?);
        }
    }
    length
}

/// What a body is to us.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Exit,
    Message,
    /// A message that is better handed on like this: tower-lsp refuses `"params": null`, which means the same as none.
    Rewritten(Bytes),
    Malformed(Malformed),
}

fn kind(body: &[u8]) -> Kind {
    let why = match serde_json::from_slice::<Request>(body) {
        Ok(request) if request.method() == "exit" => return Kind::Exit,
        Ok(request) if !request.method().is_empty() => return without_null(request),
        Ok(_) => "no method".to_owned(),
        Err(why) => why.to_string(),
    };
    match serde_json::from_slice::<Response>(body) {
        Ok(_) => Kind::Message,
        Err(_) => Kind::Malformed(Malformed::Body(why)),
    }
}

fn without_null(request: Request) -> Kind {
    if request.params() != Some(&serde_json::Value::Null) {
        return Kind::Message;
    }
    let (method, id, _) = request.into_parts();
    Kind::Rewritten(Bytes::from(match id {
        Some(id) => json!({ "id": id, "jsonrpc": "2.0", "method": method }).to_string(),
        None => json!({ "jsonrpc": "2.0", "method": method }).to_string(),
    }))
}

/// Hands on messages until `exit`, the end of the input, or the end of the reader. Dropping `output` ends the server.
pub(super) async fn pump<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(mut input: R, mut output: W) {
    let mut frames = Frames::default();
    loop {
        while let Some(frame) = frames.next() {
            let kind = match &frame {
                Ok(body) => kind(body),
                Err(why) => Kind::Malformed(why.clone()),
            };
            let body = match (&kind, frame) {
                (Kind::Malformed(why), _) => {
                    tracing::warn!("{why}");
                    let params = json!({ "why": why.to_string() });
                    let request = json!({ "jsonrpc": "2.0", "id": null, "method": MALFORMED, "params": params });
                    Bytes::from(request.to_string())
                }
                (Kind::Rewritten(body), _) => body.clone(),
                (_, Ok(body)) => body,
                (_, Err(_)) => continue,
            };
            let header = format!("Content-Length: {}\r\n\r\n", body.len());
            if output.write_all(header.as_bytes()).await.is_err() || output.write_all(&body).await.is_err() {
                return;
            }
            if kind == Kind::Exit {
                return;
            }
        }
        match input.read_buf(&mut frames.buffer).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(why) => {
                tracing::warn!("the editor's end cannot be read: {why}");
                return;
            }
        }
    }
}

/// The bodies that are handed on of bytes that come at once.
pub(super) fn bodies(input: &[u8]) -> Vec<Bytes> {
    let mut frames = Frames::default();
    frames.buffer.extend_from_slice(input);
    let handed_on = |frame: Result<Bytes, Malformed>| {
        let body = frame.ok()?;
        match kind(&body) {
            Kind::Rewritten(other) => Some(other),
            Kind::Message => Some(body),
            Kind::Exit | Kind::Malformed(_) => None,
        }
    };
    std::iter::from_fn(|| frames.next()).filter_map(handed_on).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames(bytes: &[u8], step: usize) -> Vec<Result<Bytes, Malformed>> {
        let mut frames = Frames::default();
        let mut found = Vec::new();
        for part in bytes.chunks(step) {
            frames.buffer.extend_from_slice(part);
            found.extend(std::iter::from_fn(|| frames.next()));
        }
        found
    }

    fn body(text: &'static str) -> Result<Bytes, Malformed> {
        Ok(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn messages_are_found_however_the_bytes_come() {
        let bytes =
            b"Content-Length: 2\r\n\r\n{}content-length:3\r\nContent-Type: x\r\n\r\n[1]Content-Length: 0\r\n\r\n";
        for step in 1..bytes.len() {
            assert_eq!(frames(bytes, step), [body("{}"), body("[1]"), body("")], "{step}");
        }
    }

    #[test]
    fn garbage_is_skipped_up_to_the_next_message() {
        for garbage in
            ["hello\r\n\r\n", "Content-Length: x\r\n\r\n", "Content-Length: -1\r\n\r\n", "\r\n\r\n", "\0\u{ff}"]
        {
            let bytes = format!("{garbage}Content-Length: 2\r\n\r\n{{}}");
            for step in [1, 7, 1000] {
                let found = frames(bytes.as_bytes(), step);
                assert_eq!(found.last(), Some(&body("{}")), "{garbage:?} {step}: {found:?}");
                assert!(found[..found.len() - 1].iter().all(Result::is_err));
            }
        }
        let endless = vec![b'x'; 3 * HEADER_BYTES_MAX];
        assert!(matches!(frames(&endless, 100).as_slice(), [Err(Malformed::NoHeader), ..]));
        let large = format!("Content-Length: {}\r\n\r\n{}Content-Length: 1\r\n\r\n7", 70 << 20, "x".repeat(70 << 20));
        let found = frames(large.as_bytes(), 1 << 20);
        assert_eq!(found, [Err(Malformed::TooLarge(70 << 20)), body("7")]);
    }

    #[test]
    fn messages_are_told_from_what_is_none() {
        for (text, expected) in [
            (r#"{"jsonrpc":"2.0","method":"exit"}"#, Some(Kind::Exit)),
            (r#"{"jsonrpc":"2.0","method":"x","id":1,"params":{}}"#, Some(Kind::Message)),
            (r#"{"jsonrpc":"2.0","id":1,"result":null}"#, Some(Kind::Message)),
            (
                r#"{"jsonrpc":"2.0","id":"a","method":"shutdown","params":null}"#,
                Some(Kind::Rewritten(Bytes::from_static(br#"{"id":"a","jsonrpc":"2.0","method":"shutdown"}"#))),
            ),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}"#, Some(Kind::Message)),
            ("{nope", None),
            ("5", None),
            ("{}", None),
            (r#"{"method":"exit"}"#, None),
            (r#"{"jsonrpc":"2.0"}"#, None),
            (r#"{"jsonrpc":"1.0","method":"x"}"#, None),
            ("\u{0}", None),
        ] {
            match expected {
                Some(expected) => assert_eq!(kind(text.as_bytes()), expected, "{text}"),
                None => assert!(matches!(kind(text.as_bytes()), Kind::Malformed(_)), "{text}"),
            }
        }
    }

    proptest! {
        #[test]
        fn a_message_behind_any_bytes_is_found(garbage in proptest::collection::vec(any::<u8>(), 0..200), step in 1..50usize) {
            // Whatever stands in front, the second message cannot be swallowed by it.
            let mut bytes = garbage;
            bytes.extend(b"Content-Length: 2\r\n\r\n{}Content-Length: 4\r\n\r\ntrue");
            let found = frames(&bytes, step);
            prop_assert_eq!(found.last(), Some(&body("true")));
        }
    }
}
