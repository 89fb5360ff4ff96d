//! Sources: local files, the deployed text of builds, which lines can be asked for, and where variables and functions are
//! declared.

use super::super::envelope::Failure;
use super::super::limits::{LINES_ASKED_MAX, LOADED_SOURCES_MAX, LOCATIONS_KEPT, LOCATIONS_KEPT_MAX, READS_MAX};
use super::super::types::{BreakpointLocationsArguments, PresentationHint, Source};
use super::event::Effect;
use super::handles::Thing;
use super::state::{Asked, State, Turn};
use riptrace_protocol::fleet::BuildFacts;
use riptrace_protocol::ids::BuildId;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

/// Texts that are being read, and what was found out of lines.
#[derive(Debug, Default)]
pub(super) struct Sources {
    last: u64,
    reading: BTreeMap<u64, Asked>,
    locating: BTreeMap<u64, (Asked, Range)>,
    finding: BTreeMap<u64, Asked>,
    located: BTreeMap<Range, (Duration, Vec<u32>)>,
}

/// Lines of a local file, both ends included.
type Range = (String, u32, u32);

impl State {
    /// A file of this machine.
    pub(super) fn local_source(&self, path: &str) -> Source {
        Source {
            name: path.rsplit('/').next().map(str::to_owned),
            path: Some(self.client.path_out(path)),
            ..Source::default()
        }
    }

    /// The local file of a build's file; where there is none, the text that was deployed.
    pub(super) fn source_of(&mut self, build_file: &str, build: Option<&BuildId>) -> Source {
        match self.paths.local_of(build_file) {
            Some(path) => self.local_source(&path),
            None => self.deployed_source(build_file, build),
        }
    }

    fn deployed_source(&mut self, build_file: &str, build: Option<&BuildId>) -> Source {
        let facts = build.and_then(|build| self.build(build));
        let revision = facts.as_ref().and_then(|facts| facts.vcs_revision.as_deref());
        let name = build_file.rsplit('/').next().unwrap_or_default();
        let at = revision.map_or_else(String::new, |revision| format!(" @ {}", revision.get(..12).unwrap_or(revision)));
        let thing = Thing::DeployedSource(build_file.to_owned(), build.cloned());
        Source {
            name: Some(format!("{name}{at}")),
            origin: Some(format!("{build_file}, as the build knows it")),
            presentation_hint: Some(PresentationHint::DeEmphasize),
            source_reference: i32::try_from(self.handles.number(thing)).ok(),
            ..Source::default()
        }
    }

    /// A build of the fleet as it was last seen.
    fn build(&self, id: &BuildId) -> Option<BuildFacts> {
        let hosts = self.attachment.fleet.iter().flat_map(|fleet| &fleet.hosts);
        let mut builds = hosts.flat_map(|host| &host.profile.processes).map(|process| &process.build);
        builds.find(|build| build.id == *id).cloned()
    }

    /// `source`: the text that was deployed.
    pub(super) fn source(&mut self, turn: &mut Turn<'_>, asked: Asked, reference: i64) {
        let Some(Thing::DeployedSource(file, build)) = self.handles.thing(reference) else {
            let why = format!("there is no source with the reference {reference}");
            return turn.answer(asked, Err(Failure::quiet(why)));
        };
        let Some(facts) = build.as_ref().and_then(|build| self.build(build)) else {
            return turn.answer(asked, Err(not_here(&file, "its build does not run any more, or was never known")));
        };
        if self.sources.reading.len() >= READS_MAX {
            let why = "too many sources are being read already; ask again when they have been answered";
            return turn.answer(asked, Err(Failure::quiet(why)));
        }
        self.sources.last += 1;
        self.sources.reading.insert(self.sources.last, asked);
        turn.effect(Effect::ReadSource { read: self.sources.last, file, build: Box::new(facts) });
    }

    pub(super) fn source_read(&mut self, turn: &mut Turn<'_>, read: u64, file: &str, text: Option<String>) {
        let Some(asked) = self.sources.reading.remove(&read) else { return };
        let outcome = match text {
            Some(content) => Ok(Some(json!({"content": content}))),
            None => Err(not_here(file, "the local clone does not have the text that was deployed")),
        };
        turn.answer_raw(asked, outcome);
    }

    /// `loadedSources`: the files that hits have come from, each as it is here and as it was deployed.
    pub(super) fn loaded_sources(&mut self, turn: &mut Turn<'_>, asked: Asked) {
        let files: BTreeSet<(String, BuildId)> = self
            .dictionaries
            .layouts()
            .filter(|layout| !layout.site.file.is_empty())
            .map(|layout| (layout.site.file.clone(), layout.build.clone()))
            .take(LOADED_SOURCES_MAX)
            .collect();
        let mut sources: Vec<Source> = Vec::new();
        for (file, build) in &files {
            if let Some(path) = self.paths.local_of(file) {
                let local = self.local_source(&path);
                if !sources.iter().any(|known| known.path == local.path) {
                    sources.push(local);
                }
            }
            sources.push(self.deployed_source(file, Some(build)));
        }
        let answer =
            super::super::types::ResponseBody::LoadedSources(super::super::types::LoadedSourcesResponse { sources });
        turn.answer(asked, Ok(Some(answer)));
    }

    /// `breakpointLocations`: the lines that some build has. VS Code asks this many times for each breakpoint.
    pub(super) fn breakpoint_locations(
        &mut self,
        turn: &mut Turn<'_>,
        asked: Asked,
        arguments: &BreakpointLocationsArguments,
    ) {
        let path = arguments.source.path.as_deref().unwrap_or_default();
        let range = self.client.path_in(path).map_err(|error| error.to_string()).and_then(|path| {
            let line = |line: i64| self.client.line_in(line).ok_or_else(|| format!("{line} is not a line of a file"));
            let from = line(arguments.line)?;
            let to = arguments.end_line.map_or(Ok(from), line)?;
            Ok((path, from, to.min(from.saturating_add(LINES_ASKED_MAX - 1))))
        });
        let range = match range {
            Ok(range) => range,
            Err(why) => return turn.answer(asked, Err(Failure::quiet(why))),
        };
        if !self.is_joined() {
            return self.answer_locations(turn, asked, &[]);
        }
        if let Some((at, lines)) = self.sources.located.get(&range)
            && turn.now < *at + LOCATIONS_KEPT
        {
            let lines = lines.clone();
            return self.answer_locations(turn, asked, &lines);
        }
        if self.sources.locating.len() >= READS_MAX {
            let why = "too many lines are being looked for already; ask again when they have been answered";
            return turn.answer(asked, Err(Failure::quiet(why)));
        }
        self.sources.last += 1;
        let (path, from, to) = range.clone();
        self.sources.locating.insert(self.sources.last, (asked, range));
        let builds = self.builds_meant();
        turn.effect(Effect::Locate { locate: self.sources.last, path: PathBuf::from(path), from, to, builds });
    }

    pub(super) fn located(&mut self, turn: &mut Turn<'_>, locate: u64, lines: Vec<u32>) {
        let Some((asked, range)) = self.sources.locating.remove(&locate) else { return };
        self.answer_locations(turn, asked, &lines);
        if self.sources.located.len() >= LOCATIONS_KEPT_MAX {
            self.sources.located.clear();
        }
        self.sources.located.insert(range, (turn.now, lines));
    }

    fn answer_locations(&self, turn: &mut Turn<'_>, asked: Asked, lines: &[u32]) {
        let locations: Vec<Value> = lines.iter().map(|line| json!({"line": self.client.line_out(*line)})).collect();
        turn.answer_raw(asked, Ok(Some(json!({"breakpoints": locations}))));
    }

    /// Nobody reads any more.
    pub(super) fn give_up_reading(&mut self, turn: &mut Turn<'_>) {
        let sources = std::mem::take(&mut self.sources);
        let located = sources.locating.into_values().map(|(asked, _)| asked);
        let asked = sources.reading.into_values().chain(sources.finding.into_values()).chain(located);
        for asked in asked {
            turn.answer(asked, Err(Failure::quiet("the session has ended")));
        }
        self.sources.last = sources.last;
    }

    /// `locations`: where a variable is declared, or the function that is its value.
    pub(super) fn locations(&mut self, turn: &mut Turn<'_>, asked: Asked, arguments: &Value) {
        let reference = arguments["locationReference"].as_i64().unwrap_or(0);
        let outcome = match self.handles.thing(reference) {
            Some(Thing::Declared(file, line)) => {
                let source = self.source_of(&file, None);
                Ok(self.location(source, line))
            }
            Some(Thing::Function(name)) if self.sources.finding.len() < READS_MAX => {
                self.sources.last += 1;
                self.sources.finding.insert(self.sources.last, asked);
                return turn.effect(Effect::FindFunction { find: self.sources.last, name });
            }
            Some(Thing::Function(_)) => {
                Err(Failure::quiet("too many functions are being looked for already; ask again when they were found"))
            }
            _ => Err(Failure::quiet(format!("there is no location with the reference {reference}"))),
        };
        turn.answer_raw(asked, outcome.map(Some));
    }

    pub(super) fn function_found(&mut self, turn: &mut Turn<'_>, find: u64, name: &str, place: Option<(PathBuf, u32)>) {
        let Some(asked) = self.sources.finding.remove(&find) else { return };
        let outcome = match place {
            Some((path, line)) => Ok(Some(self.location(self.local_source(&path.to_string_lossy()), line))),
            None => Err(Failure::quiet(format!(
                "the checkout does not declare {name}, or has several functions of this name"
            ))),
        };
        turn.answer_raw(asked, outcome);
    }

    fn location(&self, source: Source, line: u32) -> Value {
        json!({"source": source_json(source), "line": self.client.line_out(line)})
    }
}

/// A source as the protocol spells it, where no type of the crate holds it.
fn source_json(source: Source) -> Value {
    let mut json = json!({"name": source.name});
    if let Some(path) = source.path {
        json["path"] = json!(path);
    }
    if let Some(reference) = source.source_reference {
        json["sourceReference"] = json!(reference);
    }
    json
}

fn not_here(file: &str, why: &str) -> Failure {
    Failure::quiet(format!(
        "{file} is not in this checkout, and {why}. If the file is here under another path, add \"substitutePath\": \
         [{{\"from\": \"local folder\", \"to\": \"folder in the build\"}}] to the attach configuration."
    ))
}
