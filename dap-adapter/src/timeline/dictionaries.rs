//! What a stream of hits says once and refers to afterwards: layouts, and the frames of program counters; and, because
//! texts are made where somebody looks, the log messages of the tracepoints.

use riptrace_protocol::decode::{CodeNames, Decoder, GoroutineFacts};
use riptrace_protocol::expression::{Expr, Template};
use riptrace_protocol::hit::Frame;
use riptrace_protocol::ids::{Avma, LayoutId, ProcessId, TracepointId};
use riptrace_protocol::layout::{BadLayout, Layout};
use riptrace_protocol::stream::{OrderedHit, StreamItem};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Program counters whose frames are kept: a large fleet's call sites. The oldest are forgotten first; their frames
/// are then shown as addresses.
const FRAMES_MAX: usize = 262_144;
/// Layouts that are kept, at most; each belongs to one site of one build.
const LAYOUTS_MAX: usize = 16_384;

/// Layouts, frames and log messages of a stream.
#[derive(Debug, Default)]
pub struct Dictionaries {
    layouts: HashMap<LayoutId, Arc<Layout>>,
    layouts_by_age: VecDeque<LayoutId>,
    frames: HashMap<(ProcessId, Avma), Arc<[Frame]>>,
    frames_by_age: VecDeque<(ProcessId, Avma)>,
    messages: HashMap<TracepointId, Arc<Template>>,
    captures: HashMap<TracepointId, Arc<[Expr]>>,
}

/// One entry of a hit's call stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackEntry {
    /// Program counter: the site itself, or a return address less one.
    pub pc: Avma,
    /// What it stands for; `None` when nothing is known of it.
    pub frame: Option<Frame>,
}

/// Names for addresses of code in one process.
#[derive(Debug)]
pub struct Names<'d> {
    dictionaries: &'d Dictionaries,
    process: ProcessId,
}

impl CodeNames for Names<'_> {
    fn frames(&self, address: Avma) -> Option<&[Frame]> {
        self.dictionaries.frames.get(&(self.process.clone(), address)).map(AsRef::as_ref)
    }
}

impl Dictionaries {
    /// Takes what an item of the stream teaches; hits and drops teach nothing. A layout that cannot be used is refused,
    /// and its hits will say that their values cannot be read.
    pub fn learn(&mut self, item: &StreamItem) -> Result<(), BadLayout> {
        match item {
            StreamItem::Layout(layout) => self.learn_layout(layout)?,
            StreamItem::Frames(entries) => {
                for entry in entries {
                    let key = (entry.process.clone(), entry.pc);
                    if self.frames.insert(key.clone(), entry.frames.clone().into()).is_none() {
                        self.frames_by_age.push_back(key);
                    }
                }
                while self.frames_by_age.len() > FRAMES_MAX {
                    if let Some(oldest) = self.frames_by_age.pop_front() {
                        self.frames.remove(&oldest);
                    }
                }
            }
            StreamItem::Hit(_) | StreamItem::Drop(_) => {}
        }
        Ok(())
    }

    fn learn_layout(&mut self, layout: &Layout) -> Result<(), BadLayout> {
        layout.check()?;
        let id = layout.id();
        if self.layouts.insert(id, Arc::new(layout.clone())).is_none() {
            self.layouts_by_age.push_back(id);
        }
        while self.layouts_by_age.len() > LAYOUTS_MAX {
            if let Some(oldest) = self.layouts_by_age.pop_front() {
                self.layouts.remove(&oldest);
            }
        }
        Ok(())
    }

    /// Says how hits of a tracepoint are told; `None` for a summary of their values.
    pub fn set_message(&mut self, tracepoint: &TracepointId, message: Option<Template>) {
        match message {
            Some(message) => self.messages.insert(tracepoint.clone(), Arc::new(message)),
            None => self.messages.remove(tracepoint),
        };
    }

    /// Keeps the expressions that a tracepoint captures: those that have no variable of their own in a hit are computed
    /// of what it has.
    pub fn set_captures(&mut self, tracepoint: &TracepointId, captures: Vec<Expr>) {
        if captures.is_empty() {
            self.captures.remove(tracepoint);
        } else {
            self.captures.insert(tracepoint.clone(), captures.into());
        }
    }

    /// The expressions that a tracepoint captures.
    pub fn captures(&self, tracepoint: &TracepointId) -> &[Expr] {
        self.captures.get(tracepoint).map_or(&[], AsRef::as_ref)
    }

    /// The log message of a tracepoint.
    pub fn message(&self, tracepoint: &TracepointId) -> Option<&Template> {
        self.messages.get(tracepoint).map(AsRef::as_ref)
    }

    /// A layout that was learnt.
    pub fn layout(&self, id: &LayoutId) -> Option<&Arc<Layout>> {
        self.layouts.get(id)
    }

    /// The layouts that are kept.
    pub fn layouts(&self) -> impl Iterator<Item = &Arc<Layout>> {
        self.layouts.values()
    }

    /// The frames that are kept, by process and program counter.
    pub fn frames(&self) -> impl Iterator<Item = (&ProcessId, Avma, &Arc<[Frame]>)> {
        self.frames.iter().map(|((process, pc), frames)| (process, *pc, frames))
    }

    /// Names for the addresses of code that a hit has in its values.
    pub fn names(&self, hit: &OrderedHit) -> Names<'_> {
        Names { dictionaries: self, process: ProcessId { host: hit.host.clone(), key: hit.raw.process } }
    }

    /// What is known of the goroutine that passed; `None` where there is none, or nothing is known of it but its id.
    pub fn goroutine(&self, hit: &OrderedHit) -> Option<GoroutineFacts> {
        let names = self.names(hit);
        Decoder::new(self.layout(&hit.raw.layout)?, &hit.raw).with_names(&names).goroutine()
    }

    /// The call stack of a hit, innermost frame first. Functions that were inlined have frames of their own.
    pub fn stack(&self, hit: &OrderedHit) -> Vec<StackEntry> {
        let process = ProcessId { host: hit.host.clone(), key: hit.raw.process };
        let mut entries = Vec::with_capacity(hit.raw.stack.len());
        for &pc in &hit.raw.stack {
            match self.frames.get(&(process.clone(), pc)) {
                Some(frames) if !frames.is_empty() => {
                    entries.extend(frames.iter().map(|frame| StackEntry { pc, frame: Some(frame.clone()) }));
                }
                _ => entries.push(StackEntry { pc, frame: None }),
            }
        }
        entries
    }

    /// Function, file and line of a hit: of its innermost frame, else of its layout's site.
    pub fn place(&self, hit: &OrderedHit) -> Option<Frame> {
        if let Some(layout) = self.layout(&hit.raw.layout) {
            let site = &layout.site;
            return Some(Frame {
                function: site.function.clone(),
                file: site.file.clone(),
                line: site.line,
                inlined: false,
            });
        }
        self.stack(hit).into_iter().next().and_then(|entry| entry.frame)
    }
}
