//! The fleet's store of pushed builds: a JetStream object store (NATS ADR-20, so that `nats object ls` shows it), in
//! which an object's name is the key of the build's code.
//!
//! An object is its chunks on `$O.BUCKET.C.NUID` and then one message on `$O.BUCKET.M.NAME` that says how many, and
//! their digest: an upload that was cut off has no name and is never found. What is fetched is believed only when
//! number, size and digest are right; whether it is the build it claims to be is for the caller to check.

use crate::symbols::sources::SYMBOL_FILE_BYTES_MAX;
use crate::symbols::sources::code::CodeKey;
use async_nats::jetstream::consumer::{DeliverPolicy, pull::OrderedConfig};
use async_nats::jetstream::stream::{Config, DirectGetErrorKind, DiscardPolicy, Stream};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures::StreamExt;
use riptrace_protocol::subject::SYMBOLS_BUCKET;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Bytes of one chunk: what other clients of object stores take.
const CHUNK_BYTES: usize = 128 << 10;
/// Chunks on their way that are not acknowledged, at most.
const UNACKNOWLEDGED_MAX: usize = 16;
/// How long the store may take for one answer or one chunk.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// Builds that are listed, at most: a fleet has hundreds.
const LISTED_MAX: u64 = 10_000;

/// What went wrong with the store, in a sentence.
#[derive(Debug, thiserror::Error)]
#[error("the fleet's store of symbols: {0}")]
pub struct StoreError(String);

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError(error.to_string())
}

async fn answered<T, E: std::fmt::Display>(answer: impl Future<Output = Result<T, E>>) -> Result<T, StoreError> {
    let answer = timeout(ANSWER_TIMEOUT, answer).await;
    answer.map_err(|_| failed("it does not answer; is JetStream on?"))?.map_err(failed)
}

/// A build in the store: ADR-20's `ObjectInfo`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredBuild {
    /// The key of its code.
    pub name: String,
    /// What was said of it when it was pushed: `build`, `file`, `go`, `module`, `version`, `revision`.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    bucket: String,
    nuid: String,
    /// Bytes of the file.
    pub size: u64,
    #[serde(default)]
    mtime: String,
    chunks: u64,
    #[serde(default)]
    digest: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
}

/// The store.
#[derive(Debug, Clone)]
pub struct SymbolStore {
    context: Context,
}

fn stream_name() -> String {
    format!("OBJ_{SYMBOLS_BUCKET}")
}

fn named(name: &str) -> String {
    format!("$O.{SYMBOLS_BUCKET}.M.{}", base64(name.as_bytes()))
}

fn chunks_of(nuid: &str) -> String {
    format!("$O.{SYMBOLS_BUCKET}.C.{nuid}")
}

impl SymbolStore {
    /// The store on a bus. Nothing is made until something is pushed.
    pub fn new(client: Client) -> SymbolStore {
        SymbolStore { context: jetstream::new(client) }
    }

    /// `None` when nothing was ever pushed.
    async fn stream(&self) -> Option<Stream> {
        timeout(ANSWER_TIMEOUT, self.context.get_stream(stream_name())).await.ok()?.ok()
    }

    /// What is kept of a build's code.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn find(&self, code: &CodeKey) -> Result<Option<StoredBuild>, StoreError> {
        match self.stream().await {
            Some(stream) => info(&stream, code.as_str()).await,
            None => Ok(None),
        }
    }

    /// All that was pushed.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn list(&self) -> Result<Vec<StoredBuild>, StoreError> {
        let Some(stream) = self.stream().await else { return Ok(Vec::new()) };
        let config = OrderedConfig {
            filter_subject: format!("$O.{SYMBOLS_BUCKET}.M.>"),
            deliver_policy: DeliverPolicy::LastPerSubject,
            ..OrderedConfig::default()
        };
        let mut consumer = answered(stream.create_consumer(config)).await?;
        let count = answered(consumer.info()).await?.num_pending.min(LISTED_MAX);
        let mut messages = answered(consumer.messages()).await?;
        let mut found = Vec::new();
        for _ in 0..count {
            let message = timeout(ANSWER_TIMEOUT, messages.next()).await.map_err(|_| failed("the list stopped"))?;
            let Some(message) = message else { break };
            let build: StoredBuild = serde_json::from_slice(&message.map_err(failed)?.payload).map_err(failed)?;
            if !build.deleted {
                found.push(build);
            }
        }
        Ok(found)
    }

    /// Puts a file into the store. `progress` is told how many bytes are there.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn push(
        &self,
        code: &CodeKey,
        metadata: BTreeMap<String, String>,
        file: &Path,
        mut progress: impl FnMut(u64),
    ) -> Result<(), StoreError> {
        let config = Config {
            name: stream_name(),
            description: Some("RipTrace: builds with debug information, by the hash of their code".to_owned()),
            subjects: vec![format!("$O.{SYMBOLS_BUCKET}.C.>"), format!("$O.{SYMBOLS_BUCKET}.M.>")],
            discard: DiscardPolicy::New,
            allow_rollup: true,
            allow_direct: true,
            ..Config::default()
        };
        let stream = answered(self.context.get_or_create_stream(config)).await?;
        let nuid = unique().map_err(failed)?;
        let sent = self.send(&nuid, file, &mut progress).await;
        let sent = match sent {
            Ok((size, chunks, digest)) => {
                let build = StoredBuild {
                    name: code.as_str().to_owned(),
                    metadata,
                    bucket: SYMBOLS_BUCKET.to_owned(),
                    nuid: nuid.clone(),
                    size,
                    // The store's own time of the message counts.
                    mtime: "0001-01-01T00:00:00Z".to_owned(),
                    chunks,
                    digest,
                    deleted: false,
                };
                let mut headers = HeaderMap::new();
                headers.insert("Nats-Rollup", "sub");
                let content = Bytes::from(serde_json::to_vec(&build).map_err(failed)?);
                let subject = named(code.as_str());
                match answered(self.context.publish_with_headers(subject, headers, content)).await {
                    Ok(acknowledged) => answered(acknowledged.into_future()).await.map(drop),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        if sent.is_err() {
            // Chunks without a name are of no use.
            let _ = timeout(ANSWER_TIMEOUT, stream.purge().filter(chunks_of(&nuid))).await;
        }
        sent
    }

    /// Sends the chunks of a file; gives back size, number and digest.
    async fn send(
        &self,
        nuid: &str,
        path: &Path,
        progress: &mut impl FnMut(u64),
    ) -> Result<(u64, u64, String), StoreError> {
        let text = |error: std::io::Error| failed(format!("{}: {error}", path.display()));
        let mut file = tokio::fs::File::open(path).await.map_err(text)?;
        let (mut size, mut chunks, mut hash) = (0u64, 0u64, Sha256::new());
        let mut waiting = VecDeque::new();
        loop {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut chunk).await.map_err(text)?;
            if chunk.is_empty() || waiting.len() >= UNACKNOWLEDGED_MAX {
                while waiting.len() > if chunk.is_empty() { 0 } else { UNACKNOWLEDGED_MAX / 2 } {
                    let Some(next) = waiting.pop_front() else { break };
                    answered(next).await?;
                }
            }
            if chunk.is_empty() {
                break;
            }
            size += chunk.len() as u64;
            chunks += 1;
            hash.update(&chunk);
            let sent = answered(self.context.publish(chunks_of(nuid), Bytes::from(chunk))).await?;
            waiting.push_back(sent.into_future());
            progress(size);
        }
        Ok((size, chunks, format!("SHA-256={}", base64(&hash.finalize()))))
    }

    /// Fetches a build into a new file; `false` when none has this code.
    ///
    /// # Errors
    /// [`StoreError`]; the file is worth nothing then.
    pub async fn fetch(
        &self,
        code: &CodeKey,
        into: &Path,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<bool, StoreError> {
        let Some(stream) = self.stream().await else { return Ok(false) };
        let Some(build) = info(&stream, code.as_str()).await? else { return Ok(false) };
        if build.size > SYMBOL_FILE_BYTES_MAX {
            return Err(failed(format!("{} bytes, and at most {SYMBOL_FILE_BYTES_MAX} are fetched", build.size)));
        }
        let is_plain = !build.nuid.is_empty() && build.nuid.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !is_plain || build.size == 0 {
            return Err(failed("the build's entry is damaged: push it again"));
        }
        let config = OrderedConfig {
            filter_subject: chunks_of(&build.nuid),
            deliver_policy: DeliverPolicy::All,
            ..OrderedConfig::default()
        };
        let consumer = answered(stream.create_consumer(config)).await?;
        let mut messages = answered(consumer.messages()).await?;
        let text = |error: std::io::Error| failed(format!("{}: {error}", into.display()));
        let mut file = tokio::fs::File::create(into).await.map_err(text)?;
        let (mut size, mut chunks, mut hash) = (0u64, 0u64, Sha256::new());
        while size < build.size {
            let next = timeout(ANSWER_TIMEOUT, messages.next()).await;
            let next =
                next.map_err(|_| failed(format!("the build stopped coming after {size} of {} bytes", build.size)))?;
            let chunk = next.ok_or_else(|| failed("the build ended too early"))?.map_err(failed)?.payload.clone();
            size += chunk.len() as u64;
            chunks += 1;
            hash.update(&chunk);
            file.write_all(&chunk).await.map_err(text)?;
            progress(size, build.size);
        }
        file.flush().await.map_err(text)?;
        let digest = format!("SHA-256={}", base64(&hash.finalize()));
        if (size, chunks) != (build.size, build.chunks) || digest != build.digest {
            return Err(failed("the build is not what was pushed: push it again"));
        }
        Ok(true)
    }
}

async fn info(stream: &Stream, name: &str) -> Result<Option<StoredBuild>, StoreError> {
    let message = timeout(ANSWER_TIMEOUT, stream.direct_get_last_for_subject(named(name))).await;
    match message.map_err(|_| failed("it does not answer"))? {
        Ok(message) => {
            let build: StoredBuild = serde_json::from_slice(&message.payload).map_err(failed)?;
            Ok(Some(build).filter(|build| !build.deleted))
        }
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Letters and digits that no other upload has.
fn unique() -> std::io::Result<String> {
    let mut bytes = [0; 11];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Base64 with the alphabet for URLs and padding (RFC 4648, section 5).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            let value = (word >> (18 - 6 * digit)) & 63;
            text.push(if digit <= group.len() { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_that_of_urls() {
        for (bytes, text) in [
            (b"".as_slice(), ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
            (b"\xfb\xff\xfe", "-__-"),
        ] {
            assert_eq!(base64(bytes), text);
        }
    }
}
