//! Batches: what an agent publishes on `<host>.debugger.trace`.
//!
//! A batch is closed by count, size or time. Batches of one incarnation are numbered from 0 without gaps, and so are
//! the hits in them; a reader that sees a gap knows how many hits it did not see. `watermark_ns` promises that every
//! hit older than it is in this batch or an earlier one.
//!
//! A batch that holds nothing but its watermark takes no number: it has the one that the next batch will have. So it may
//! be lost, and nobody need say that it arrived; a later one says more.

use crate::hit::{Frame, RawDrop, RawHit};
use crate::ids::{Avma, BuildId, HostName, Incarnation};
use crate::limits;
use crate::time::ClockDomain;
use crate::wire::{self, WireError};
use serde::{Deserialize, Serialize};

/// Version of the format.
pub const BATCH_VERSION: u8 = 4;
const WHAT: &str = "batch of hits";

/// Hits published together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Which host.
    pub host: HostName,
    /// Which run of its agent.
    pub incarnation: Incarnation,
    /// Number of the batch in this incarnation, from 0; of one that takes none, the number of the next.
    pub number: u64,
    /// Which clock stamped `time_ns` and `watermark_ns`.
    pub clock_domain: ClockDomain,
    /// No hit older than this (domain time) is still to come.
    pub watermark_ns: u64,
    /// Number that the first hit of this batch has, or that the next hit will have when there is none here.
    pub first_hit: u64,
    /// Hits in the order of domain time.
    pub hits: Vec<RawHit>,
    /// What did not become a hit since the last batch.
    pub drops: Vec<RawDrop>,
    /// Program counters with what they stand for: sent when first met, and again to a new coordinator, after an exec,
    /// or when the agent has forgotten that it told. The newest entry holds.
    pub frames: Vec<FrameEntry>,
}

/// What a program counter stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameEntry {
    /// In which build.
    pub build: BuildId,
    /// In which process's address space it was seen (position-independent code differs between processes).
    pub process: crate::ids::ProcessKey,
    /// Program counter, as in [`RawHit::stack`].
    pub pc: Avma,
    /// Frames, innermost first: more than one where functions were inlined; empty when nothing is known.
    pub frames: Vec<Frame>,
}

impl Batch {
    /// Whether it holds nothing but its watermark, and takes no number.
    pub fn is_watermark(&self) -> bool {
        self.hits.is_empty() && self.drops.is_empty() && self.frames.is_empty()
    }

    /// Writes the batch; fails when it is larger than a message may be.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        wire::encode(WHAT, BATCH_VERSION, self)
    }

    /// Reads a batch and checks what it promises about itself.
    pub fn decode(bytes: &[u8]) -> Result<Batch, WireError> {
        let batch: Batch = wire::decode(WHAT, BATCH_VERSION, bytes)?;
        let inconsistent = |rule| Err(WireError::Inconsistent { what: WHAT, rule });
        if batch.hits.len() > limits::BATCH_HITS_MAX {
            return inconsistent("more hits than a batch may have");
        }
        if !batch.hits.iter().zip(batch.first_hit..).all(|(hit, number)| hit.number == number) {
            return inconsistent("hit numbers are not consecutive");
        }
        if !batch.hits.windows(2).all(|pair| pair[0].time_ns <= pair[1].time_ns) {
            return inconsistent("hits are not in the order of time");
        }
        if batch.hits.iter().any(|hit| hit.chunks.len() > limits::HIT_CHUNKS_MAX) {
            return inconsistent("more chunks in a hit than it may have");
        }
        if batch.hits.iter().any(|hit| hit.stack.len() > limits::STACK_FRAMES_MAX) {
            return inconsistent("more frames in a hit than it may have");
        }
        Ok(batch)
    }
}
