//! `launch`: a recording is opened as if its hits had just come, without any fleet; and `riptrace/save`, which writes one.
//!
//! Both go part by part: the session asks the driver for the next part when it has taken the one before, so that a
//! recording of any size is never in memory twice, and the session answers other requests meanwhile.
//!
//! In a recording the tracepoints are those it was made with. A breakpoint of the editor takes over the recorded hits of
//! its place; without any breakpoint, continue goes over all hits.

use super::super::envelope::Failure;
use super::super::types::{Event as DapEvent, OutputEventCategory};
use super::event::{Effect, OpenedRecording};
use super::lifecycle::AttachConfig;
use super::own::read;
use super::progress::Task;
use super::state::{Asked, Phase, State, Turn, View};
use super::status::count;
use crate::timeline::recording::{AskedFor, Header, PART_ITEMS_MAX};
use riptrace_protocol::expression::Template;
use riptrace_protocol::stream::{StreamFrames, StreamItem};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

/// How often progress is told, in hits.
const PROGRESS_HITS: u64 = 20_000;

/// A recording that is being written.
#[derive(Debug)]
pub(super) struct Saving {
    asked: Asked,
    /// Layouts and frames that are still to be written.
    preamble: VecDeque<Vec<StreamItem>>,
    next: u64,
    /// Hits that come later are not in this recording.
    last: u64,
    written: u64,
    path: PathBuf,
    ends: bool,
}

/// Recordings of a session.
#[derive(Debug, Default)]
pub(super) struct Recordings {
    saving: Option<Saving>,
    last_save: u64,
    /// The request that is answered once a recording is read.
    loading: Option<Asked>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SaveArguments {
    path: String,
}

impl State {
    /// `launch`: opens a recording.
    pub(super) fn launch(&mut self, turn: &mut Turn<'_>, asked: Asked, arguments: &Value) {
        let config = match AttachConfig::read(arguments) {
            Ok(config) => config,
            Err(error) => {
                let why = format!("The launch configuration is wrong: {error}.");
                return turn.answer(asked, Err(Failure::shown(why)));
            }
        };
        let Some(path) = arguments["recording"].as_str().filter(|path| !path.trim().is_empty()) else {
            return turn.answer(asked, Err(launch_refused()));
        };
        self.phase = Phase::Joining;
        self.attachment.begin_attempt();
        self.begin(turn, Task::Load, asked.seq);
        let effect = Effect::OpenRecording {
            attempt: self.attachment.attempt(),
            path: config.target.cwd.join(path),
            cwd: config.target.cwd.clone(),
            substitutes: config.substitute_path.clone(),
        };
        self.attachment.config = config;
        self.recordings.loading = Some(asked);
        turn.effect(effect);
    }

    /// The recording was found, or not.
    pub(super) fn recording_opened(
        &mut self,
        turn: &mut Turn<'_>,
        attempt: u64,
        outcome: Result<Box<OpenedRecording>, String>,
    ) {
        if attempt != self.attachment.attempt() || self.recordings.loading.is_none() {
            return;
        }
        let opened = outcome.and_then(|opened| {
            let fleet = opened.header.fleet().map_err(|error| error.to_string())?;
            let asked = opened.header.asked().map_err(|error| error.to_string())?;
            Ok((opened, fleet, asked))
        });
        let (opened, fleet, asked) = match opened {
            Ok(opened) => opened,
            Err(why) => return self.loading_failed(turn, &why),
        };
        let root = opened.defaults.root.clone();
        let defaults_local_first =
            opened.defaults.substitute_path.iter().map(|(build, local)| (local.clone(), build.clone()));
        let substitutes = self.attachment.config.substitute_path.iter().cloned().chain(defaults_local_first).collect();
        self.paths.set(root.clone(), substitutes);
        self.attachment.fleet = Some(fleet);
        self.attachment.is_recording = true;
        self.told_modules = self.module_list();
        self.statistics.missing_before(opened.header.dropped);
        for AskedFor { tracepoint, local } in asked {
            let template = tracepoint.log_message.as_deref().and_then(|text| Template::parse(text).ok());
            self.dictionaries.set_message(&tracepoint.id, template.clone());
            let local = local.map(|(file, line)| (moved(&file, &opened.header.root, &root), line));
            self.breakpoints.recorded(tracepoint, local, template.is_some());
        }
        turn.effect(Effect::ReadRecording { attempt });
    }

    /// The next items of the recording; `None` after the last.
    pub(super) fn recording_read(
        &mut self,
        turn: &mut Turn<'_>,
        attempt: u64,
        outcome: Result<Option<Vec<StreamItem>>, String>,
    ) {
        if attempt != self.attachment.attempt() || self.recordings.loading.is_none() {
            return;
        }
        match outcome {
            Ok(Some(items)) => {
                let before = self.statistics.counts().0;
                items.into_iter().for_each(|item| self.recorded(turn, item));
                let hits = self.statistics.counts().0;
                if hits / PROGRESS_HITS > before / PROGRESS_HITS {
                    self.go_on(turn, Task::Load, &format!("{hits} hits"));
                }
                turn.effect(Effect::ReadRecording { attempt });
            }
            Ok(None) => self.loaded(turn, None),
            Err(why) if self.timeline.is_empty() => self.loading_failed(turn, &why),
            Err(why) => self.loaded(turn, Some(&why)),
        }
    }

    fn recorded(&mut self, turn: &mut Turn<'_>, item: StreamItem) {
        if let Err(error) = self.dictionaries.learn(&item) {
            let text = format!("RipTrace: a layout cannot be used ({error}); the values of its hits cannot be shown.");
            turn.note(OutputEventCategory::Stderr, text);
        }
        if let StreamItem::Hit(hit) = item {
            let correlation = self.correlation_hash(&hit);
            if self.timeline.push(&hit, correlation).is_some() {
                self.statistics.hit(turn.now, &hit.service, hit.time_ns);
                self.breakpoints.count_hit(&hit.raw.tracepoint);
            }
        }
    }

    fn loaded(&mut self, turn: &mut Turn<'_>, damage: Option<&str>) {
        let Some(asked) = self.recordings.loading.take() else { return };
        self.end_task(turn, Task::Load);
        self.phase = Phase::Joined;
        self.view = View::Running { stop_after: self.attachment.config.stop_on_hit.then_some(0) };
        self.statistics.fleet_changed();
        turn.answer(asked, Ok(None));
        turn.emit(DapEvent::Initialized);
        let hits = count(self.timeline.len(), "hit", "hits");
        let evicted = match self.timeline.evicted() {
            0 => String::new(),
            n => format!("; {n} older ones have made room"),
        };
        turn.note(OutputEventCategory::Console, format!("RipTrace: {hits} from the recording{evicted}."));
        if let Some(why) = damage {
            turn.note(OutputEventCategory::Stderr, format!("RipTrace: {why}; what was read before is shown."));
        }
        let ids: Vec<i64> = self.breakpoints.set.keys().copied().collect();
        for id in ids {
            self.adopt(turn, id);
        }
    }

    fn loading_failed(&mut self, turn: &mut Turn<'_>, why: &str) {
        self.end_task(turn, Task::Load);
        self.phase = Phase::Ready;
        self.attachment.is_recording = false;
        if let Some(asked) = self.recordings.loading.take() {
            turn.answer(asked, Err(Failure::shown(why)));
        }
    }

    /// Whether this request is a launch that is under way.
    pub(super) fn is_loading(&self, request: Option<i64>) -> bool {
        request.is_some() && self.recordings.loading.as_ref().map(|asked| asked.seq) == request
    }

    /// The editor takes a launch back.
    pub(super) fn give_up_loading(&mut self, turn: &mut Turn<'_>) {
        self.end_task(turn, Task::Load);
        if let Some(asked) = self.recordings.loading.take() {
            self.attachment.begin_attempt();
            self.attachment.is_recording = false;
            self.timeline.clear();
            turn.answer(asked, Err(Failure::cancelled()));
        }
    }

    /// `riptrace/save`: writes what is kept into a recording.
    pub(super) fn save_asked(&mut self, turn: &mut Turn<'_>, asked: Asked, arguments: Value) {
        let arguments: SaveArguments = match read("save", arguments) {
            Ok(arguments) => arguments,
            Err(failure) => return turn.answer(asked, Err(failure)),
        };
        if self.recordings.saving.is_some() {
            return turn.answer(asked, Err(Failure::quiet("a recording is being written already; wait for its end")));
        }
        let Some(fleet) = self.attachment.fleet.as_ref().filter(|_| !self.timeline.is_empty()) else {
            return turn.answer(asked, Err(Failure::shown("There is no hit to save yet.")));
        };
        let path = self.attachment.config.target.cwd.join(&arguments.path);
        let (_, dropped) = self.statistics.counts();
        let root = self.paths.root().to_string_lossy().into_owned();
        let header = Box::new(Header::new(fleet, &self.breakpoints.asked_for(), root, dropped));
        self.begin(turn, Task::Save, asked.seq);
        self.recordings.last_save += 1;
        self.recordings.saving = Some(Saving {
            asked,
            preamble: self.preamble(),
            next: 0,
            last: self.timeline.newest_seq().unwrap_or(0),
            written: 0,
            path: path.clone(),
            ends: false,
        });
        turn.effect(Effect::BeginSave { save: self.recordings.last_save, path, header });
    }

    /// Layouts and frames, in parts.
    fn preamble(&self) -> VecDeque<Vec<StreamItem>> {
        let layouts: Vec<StreamItem> =
            self.dictionaries.layouts().map(|layout| StreamItem::Layout(Box::new(layout.as_ref().clone()))).collect();
        let frames: Vec<StreamFrames> = self
            .dictionaries
            .frames()
            .map(|(process, pc, frames)| StreamFrames { process: process.clone(), pc, frames: frames.to_vec() })
            .collect();
        let frames = frames.chunks(PART_ITEMS_MAX).map(|frames| vec![StreamItem::Frames(frames.to_vec())]);
        layouts.chunks(PART_ITEMS_MAX).map(<[StreamItem]>::to_vec).chain(frames).collect()
    }

    /// A part was written; `outcome` holds the size of the file at the end.
    pub(super) fn saved(&mut self, turn: &mut Turn<'_>, save: u64, outcome: Result<Option<u64>, String>) {
        if save != self.recordings.last_save {
            return;
        }
        let Some(mut saving) = self.recordings.saving.take() else { return };
        if let Err(why) = outcome {
            self.end_task(turn, Task::Save);
            let failure = Failure::shown(format!("{} could not be written: {why}", saving.path.display()));
            return turn.answer(saving.asked, Err(failure));
        }
        if saving.ends {
            self.end_task(turn, Task::Save);
            let bytes = outcome.ok().flatten();
            let body = json!({"path": saving.path, "hits": saving.written, "bytes": bytes});
            return turn.answer_raw(saving.asked, Ok(Some(body)));
        }
        if let Some(items) = saving.preamble.pop_front() {
            turn.effect(Effect::SaveItems { save, items });
        } else {
            let hits: Vec<_> = self
                .timeline
                .from(saving.next)
                .take_while(|hit| hit.seq() <= saving.last)
                .take(PART_ITEMS_MAX)
                .filter_map(|hit| hit.whole())
                .collect();
            match hits.last() {
                Some(last) => {
                    saving.next = last.seq + 1;
                    let before = saving.written;
                    saving.written += hits.len() as u64;
                    if saving.written / PROGRESS_HITS > before / PROGRESS_HITS {
                        self.go_on(turn, Task::Save, &format!("{} hits", saving.written));
                    }
                    let items = hits.into_iter().map(|hit| StreamItem::Hit(Box::new(hit.as_ref().clone()))).collect();
                    turn.effect(Effect::SaveItems { save, items });
                }
                None => {
                    saving.ends = true;
                    turn.effect(Effect::EndSave { save });
                }
            }
        }
        self.recordings.saving = Some(saving);
    }

    /// Whether this request is a save that is under way.
    pub(super) fn is_saving(&self, request: Option<i64>) -> bool {
        request.is_some() && self.recordings.saving.as_ref().map(|saving| saving.asked.seq) == request
    }

    /// The editor takes a save back, or the session ends: the unfinished file is removed.
    pub(super) fn give_up_saving(&mut self, turn: &mut Turn<'_>) {
        self.end_task(turn, Task::Save);
        if let Some(saving) = self.recordings.saving.take() {
            turn.effect(Effect::AbortSave);
            turn.answer(saving.asked, Err(Failure::cancelled()));
        }
    }
}

/// The answer to a `launch` that names no recording.
fn launch_refused() -> Failure {
    Failure::shown(
        "RipTrace joins services that already run, so it launches none: use \"request\": \"attach\". A launch opens a \
         recording: give its path as \"recording\". To have a fleet on this machine, run `riptrace up` in a terminal and \
         start your services.",
    )
}

/// A path below the checkout of the recording, as a path below this one.
fn moved(file: &str, from: &str, to: &Path) -> String {
    match file.strip_prefix(from.trim_end_matches('/')).and_then(|rest| rest.strip_prefix('/')) {
        Some(rest) if !from.is_empty() && !to.as_os_str().is_empty() => to.join(rest).to_string_lossy().into_owned(),
        _ => file.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_recordings_checkout_is_looked_for_in_this_one() {
        let here = Path::new("/home/bob/shop");
        assert_eq!(moved("/home/ana/shop/cart/cart.go", "/home/ana/shop", here), "/home/bob/shop/cart/cart.go");
        assert_eq!(moved("/home/ana/shop2/cart.go", "/home/ana/shop", here), "/home/ana/shop2/cart.go");
        assert_eq!(moved("/x/cart.go", "", here), "/x/cart.go");
    }
}
