//! Who was where: threads, call stacks, scopes, modules.

use super::super::envelope::Failure;
use super::super::types::{
    Module, ModuleId, ModulesResponse, ResponseBody, Scope as DapScope, ScopePresentationhint, ScopesResponse,
    StackFrame, StackFramePresentationhint, StackTraceArguments, StackTraceResponse, Thread, ThreadsResponse,
};
use super::handles::Thing;
use super::state::{Answer, Asked, State, Turn};
use super::status::count;
use super::threads::{FLEET_THREAD, newest_of};
use crate::timeline::StackEntry;
use crate::timeline::values::{GROUPS, Group};
use riptrace_protocol::layout::Scope;
use riptrace_protocol::stream::OrderedHit;
use std::collections::BTreeMap;

impl State {
    pub(super) fn list_threads(&mut self, turn: &mut Turn<'_>, asked: Asked) {
        let (hosts, processes) = self.meant();
        let name = format!("fleet: {} on {}", count(processes, "process", "processes"), count(hosts, "host", "hosts"));
        let fleet = Thread { id: FLEET_THREAD, name };
        let open = self.paused_hit().cloned();
        let others =
            self.threads.list(&self.timeline, open.as_deref()).into_iter().map(|(id, name)| Thread { id, name });
        let threads = std::iter::once(fleet).chain(others).collect();
        turn.answer(asked, Ok(Some(ResponseBody::Threads(ThreadsResponse { threads }))));
    }

    pub(super) fn stack_trace(&mut self, turn: &mut Turn<'_>, asked: Asked, arguments: &StackTraceArguments) {
        let answer = self.frames(arguments);
        turn.answer(asked, answer);
    }

    fn frames(&mut self, arguments: &StackTraceArguments) -> Answer {
        let Some(hit) = self.paused_hit().cloned() else {
            return Err(Failure::quiet("the thread runs: it has a call stack while one of its hits is open"));
        };
        if self.threads.of(&hit).unwrap_or(FLEET_THREAD) != arguments.thread_id {
            let newest = self.threads.who(arguments.thread_id).and_then(|who| newest_of(&self.timeline, who));
            let newest = newest.map_or_else(String::new, |seq| format!("; its newest hit is {seq}"));
            return Err(Failure::quiet(format!("the thread runs: the open hit {} is another's{newest}", hit.seq)));
        }
        let entries = self.dictionaries.stack(&hit);
        let total = entries.len() + usize::from(hit.raw.stack_end.is_cut());
        let start = usize::try_from(arguments.start_frame.unwrap_or(0)).unwrap_or(0);
        let levels = match arguments.levels.and_then(|levels| usize::try_from(levels).ok()) {
            None | Some(0) => total,
            Some(levels) => levels,
        };
        let shown = (start..total).take(levels);
        let stack_frames = shown
            .map(|index| match entries.get(index) {
                Some(entry) => self.frame(&hit, index, entry),
                None => StackFrame {
                    id: self.handles.number(Thing::Frame(hit.seq, index)),
                    name: hit.raw.stack_end.note(entries.len()).unwrap_or_default(),
                    presentation_hint: Some(StackFramePresentationhint::Label),
                    ..StackFrame::default()
                },
            })
            .collect();
        let total_frames = i64::try_from(total).ok();
        Ok(Some(ResponseBody::StackTrace(StackTraceResponse { stack_frames, total_frames })))
    }

    fn frame(&mut self, hit: &OrderedHit, index: usize, entry: &StackEntry) -> StackFrame {
        let id = self.handles.number(Thing::Frame(hit.seq, index));
        let instruction_pointer_reference = Some(format!("{:#x}", entry.pc.0));
        let Some(frame) = &entry.frame else {
            return StackFrame {
                id,
                name: format!("{:#x} (nothing is known of this address)", entry.pc.0),
                instruction_pointer_reference,
                presentation_hint: Some(StackFramePresentationhint::Subtle),
                ..StackFrame::default()
            };
        };
        let name = if frame.inlined { format!("{} (inlined)", frame.function) } else { frame.function.clone() };
        let place = if index == 0 { self.place_of(hit) } else { None };
        let place = place.or_else(|| {
            let build = self.dictionaries.layout(&hit.raw.layout).map(|layout| layout.build.clone());
            let known = !frame.file.is_empty() && frame.line > 0;
            known.then(|| (self.source_of(&frame.file, build.as_ref()), frame.line))
        });
        let (source, line, column) = match place {
            Some((source, line)) => (Some(source), self.client.line_out(line), self.client.first_column()),
            None => (None, 0, 0),
        };
        StackFrame { id, name, source, line, column, instruction_pointer_reference, ..StackFrame::default() }
    }

    pub(super) fn scopes(&mut self, turn: &mut Turn<'_>, asked: Asked, frame_id: i64) {
        let answer = self.scopes_of(frame_id);
        turn.answer(asked, answer);
    }

    fn scopes_of(&mut self, frame_id: i64) -> Answer {
        let Some(Thing::Frame(seq, index)) = self.handles.thing(frame_id) else {
            return Err(Failure::quiet(format!("there is no frame {frame_id}: its hit is not kept any more")));
        };
        let hit = self.hit(seq).ok_or_else(|| self.no_such_hit(seq))?;
        let mut scopes = Vec::new();
        let mut scope = |name: &str, hint: Option<ScopePresentationhint>, reference, children: usize| {
            scopes.push(DapScope {
                name: name.to_owned(),
                presentation_hint: hint,
                variables_reference: reference,
                named_variables: i64::try_from(children).ok(),
                expensive: false,
                ..DapScope::default()
            });
        };
        if index == 0 {
            let values = self.values_of(&hit);
            for (number, group) in GROUPS.into_iter().enumerate() {
                let children = values.grouped(group).count();
                if children > 0 {
                    let (name, hint) = match group {
                        Group::Of(Scope::Argument) => ("Arguments", Some(ScopePresentationhint::Arguments)),
                        Group::Of(Scope::Local) => ("Locals", Some(ScopePresentationhint::Locals)),
                        Group::Of(Scope::Result) => ("Results", None),
                        Group::Of(Scope::Capture) => ("Captures", None),
                        Group::PackageVariables => ("Package variables", None),
                        // Told with the facts of the hit.
                        Group::Of(Scope::Goroutine) => continue,
                    };
                    scope(name, hint, self.handles.number(Thing::Scope(seq, number)), children);
                }
            }
            if values.all().is_empty() {
                scope("Locals", Some(ScopePresentationhint::Locals), self.handles.number(Thing::Nothing(seq)), 1);
            }
        } else {
            scope("Not captured", None, self.handles.number(Thing::OuterFrame(seq)), 1);
        }
        scope("Hit", None, self.handles.number(Thing::Facts(seq)), super::variables::FACTS);
        Ok(Some(ResponseBody::Scopes(ScopesResponse { scopes })))
    }

    /// The builds of the fleet.
    pub(super) fn modules(&mut self, turn: &mut Turn<'_>, asked: Asked, start: Option<i64>, count: Option<i64>) {
        let all = self.module_list();
        let total_modules = i64::try_from(all.len()).ok();
        let number = |number: Option<i64>| number.and_then(|number| usize::try_from(number).ok());
        let count = number(count).filter(|&count| count > 0).unwrap_or(usize::MAX);
        let modules: Vec<Module> = all.into_values().skip(number(start).unwrap_or(0)).take(count).collect();
        turn.answer(asked, Ok(Some(ResponseBody::Modules(ModulesResponse { modules, total_modules }))));
    }

    /// The builds of the fleet, by their ids.
    pub(super) fn module_list(&self) -> BTreeMap<String, Module> {
        let mut modules: BTreeMap<String, Module> = BTreeMap::new();
        for host in self.attachment.fleet.iter().flat_map(|fleet| &fleet.hosts).filter(|host| host.alive) {
            for process in &host.profile.processes {
                let build = &process.build;
                modules.entry(build.id.0.clone()).or_insert_with(|| {
                    let version = build.vcs_revision.clone().or_else(|| build.module_version.clone());
                    let modified = if build.vcs_modified == Some(true) { " (with uncommitted changes)" } else { "" };
                    Module {
                        id: ModuleId::String(build.id.0.clone()),
                        name: build.module.clone().unwrap_or_else(|| process.service.clone()),
                        path: Some(process.exe.clone()),
                        is_optimized: None,
                        is_user_code: None,
                        version: version.map(|version| format!("{version}{modified}")),
                        symbol_status: Some(
                            if build.dwarf { "DWARF" } else { "no DWARF: functions and lines only" }.into(),
                        ),
                        symbol_file_path: None,
                        date_time_stamp: None,
                        address_range: None,
                    }
                });
            }
        }
        modules
    }
}
