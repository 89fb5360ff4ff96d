//! What the coordinator has learnt that is needed to read hits: layouts, frames of program counters, services.
//!
//! Bounded: when a table is full, the entry that was learnt first goes. A hit whose layout is gone is shown as one that
//! cannot be read; an agent asked for its list tells everything again.

use crate::limits::{FRAMES_MAX, LAYOUTS_MAX, SERVICES_MAX};
use riptrace_protocol::batch::FrameEntry;
use riptrace_protocol::decode::CodeWords;
use riptrace_protocol::hit::{Frame, RawHit};
use riptrace_protocol::ids::{Avma, HostName, LayoutId, ProcessId, ProcessKey};
use riptrace_protocol::layout::{BadLayout, Layout};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A map that forgets what was put in first.
#[derive(Debug)]
struct Bounded<K, V> {
    entries: BTreeMap<K, V>,
    order: VecDeque<K>,
    max: usize,
}

impl<K: Ord + Clone, V> Bounded<K, V> {
    fn new(max: usize) -> Self {
        Bounded { entries: BTreeMap::new(), order: VecDeque::new(), max }
    }

    fn insert(&mut self, key: K, value: V) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
            if self.order.len() > self.max
                && let Some(oldest) = self.order.pop_front()
            {
                self.entries.remove(&oldest);
            }
        }
    }
}

/// Which program counter: of which process, where.
type FrameKey = (ProcessId, Avma);

/// The tables.
#[derive(Debug)]
pub struct Knowledge {
    /// With where their hits have addresses of code.
    layouts: Bounded<LayoutId, (Arc<Layout>, CodeWords)>,
    frames: Bounded<FrameKey, Arc<[Frame]>>,
    services: Bounded<ProcessId, String>,
}

impl Default for Knowledge {
    fn default() -> Self {
        Knowledge {
            layouts: Bounded::new(LAYOUTS_MAX),
            frames: Bounded::new(FRAMES_MAX),
            services: Bounded::new(SERVICES_MAX),
        }
    }
}

impl Knowledge {
    /// Learns a layout, unless it is not sound.
    pub fn learn_layout(&mut self, layout: Layout) -> Result<(), BadLayout> {
        layout.check()?;
        let words = CodeWords::of(&layout);
        self.layouts.insert(layout.id(), (Arc::new(layout), words));
        Ok(())
    }

    /// Learns what a program counter of a host's process stands for.
    pub fn learn_frames(&mut self, host: &HostName, entry: FrameEntry) {
        let process = ProcessId { host: host.clone(), key: entry.process };
        self.frames.insert((process, entry.pc), entry.frames.into());
    }

    /// Learns the service of a process.
    pub fn learn_service(&mut self, host: &HostName, key: ProcessKey, service: &str) {
        self.services.insert(ProcessId { host: host.clone(), key }, service.to_owned());
    }

    /// The layout of this id, if known.
    pub fn layout(&self, id: LayoutId) -> Option<&Layout> {
        self.layouts.entries.get(&id).map(|(layout, _)| &**layout)
    }

    /// Addresses of code that the values of a hit may have.
    pub fn code_in(&self, raw: &RawHit) -> Vec<Avma> {
        self.layouts.entries.get(&raw.layout).map_or_else(Vec::new, |(_, words)| words.addresses(raw))
    }

    /// The frames of a program counter, if known.
    pub fn frames(&self, key: &FrameKey) -> Option<&[Frame]> {
        self.frames.entries.get(key).map(|frames| &**frames)
    }

    /// The service of a process, if known.
    pub fn service(&self, process: &ProcessId) -> Option<&str> {
        self.services.entries.get(process).map(String::as_str)
    }
}
