//! What takes long is told while it lasts, and can be taken back, in editors that show it.

use super::super::types::Event as DapEvent;
use super::state::{State, Turn};
use serde_json::json;

/// Something that takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// Joining a fleet.
    Attach,
    /// Reading a recording.
    Load,
    /// Writing a recording.
    Save,
}

impl Task {
    fn title(self) -> &'static str {
        match self {
            Task::Attach => "RipTrace: joining the fleet",
            Task::Load => "RipTrace: reading the recording",
            Task::Save => "RipTrace: writing the recording",
        }
    }
}

/// Tasks under way, with the ids that the editor knows them by.
#[derive(Debug, Default)]
pub(super) struct Progress {
    last: u64,
    tasks: Vec<(Task, String)>,
}

impl Progress {
    /// The task of an id.
    pub(super) fn task(&self, id: &str) -> Option<Task> {
        self.tasks.iter().find(|(_, known)| known == id).map(|(task, _)| *task)
    }
}

impl State {
    /// A task begins.
    pub(super) fn begin(&mut self, turn: &mut Turn<'_>, task: Task, request: i64) {
        if !self.client.shows_progress {
            return;
        }
        self.progress.last += 1;
        let id = format!("riptrace-{}", self.progress.last);
        let body = json!({"progressId": id, "title": task.title(), "requestId": request, "cancellable": true});
        self.progress.tasks.push((task, id));
        turn.emit_raw("progressStart", body);
    }

    /// A task goes on.
    pub(super) fn go_on(&mut self, turn: &mut Turn<'_>, task: Task, message: &str) {
        if let Some((_, id)) = self.progress.tasks.iter().find(|(known, _)| *known == task) {
            turn.emit_raw("progressUpdate", json!({"progressId": id, "message": message}));
        }
    }

    /// A task has ended, however it did.
    pub(super) fn end_task(&mut self, turn: &mut Turn<'_>, task: Task) {
        let (ended, others) =
            std::mem::take(&mut self.progress.tasks).into_iter().partition(|(known, _)| *known == task);
        self.progress.tasks = others;
        let ended: Vec<(Task, String)> = ended;
        for (_, id) in ended {
            turn.emit_raw("progressEnd", json!({"progressId": id}));
        }
    }

    /// What the editor shows of these areas is out of date.
    pub(super) fn invalidate(&self, turn: &mut Turn<'_>, areas: &[&str]) {
        if self.client.takes_invalidated {
            turn.emit_raw("invalidated", json!({"areas": areas}));
        }
    }

    /// Builds of the fleet that are new or gone since they were told.
    pub(super) fn tell_modules(&mut self, turn: &mut Turn<'_>) {
        let now = self.module_list();
        let told = std::mem::take(&mut self.told_modules);
        for (id, module) in &now {
            if !told.contains_key(id) {
                turn.emit(DapEvent::Module(super::super::types::ModuleEventBody {
                    reason: super::super::types::ModuleEventReason::New,
                    module: module.clone(),
                }));
            }
        }
        for (id, module) in told {
            if !now.contains_key(&id) {
                turn.emit(DapEvent::Module(super::super::types::ModuleEventBody {
                    reason: super::super::types::ModuleEventReason::Removed,
                    module,
                }));
            }
        }
        self.told_modules = now;
    }
}
