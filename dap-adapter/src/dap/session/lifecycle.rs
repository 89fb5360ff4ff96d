//! Beginning and end of a session: `initialize`, `attach`, `configurationDone`, `restart`, `terminate`, `disconnect`.

use super::super::envelope::Failure;
use super::super::limits::{CORRELATE_MAX, FLEET_INTERVAL};
use super::super::types::{
    CancelArguments, Capabilities, Event as DapEvent, InitializeArguments, OutputEventCategory, ResponseBody,
    RestartArguments, response_body,
};
use super::client::Client;
use super::event::{Effect, JoinedFleet};
use super::exceptions::filters;
use super::modes;
use super::progress::Task;
use super::state::{Asked, Phase, State, Turn, View};
use super::window::Past;
use crate::environment::BusTarget;
use riptrace_protocol::expression::{self, Expr};
use riptrace_protocol::fleet::FleetView;
use riptrace_protocol::ids::SessionId;
use riptrace_protocol::limits::SESSION_LEASE_MS;
use riptrace_protocol::selector::Selector;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// The fleet of a session and how it is joined.
#[derive(Debug, Default)]
pub(super) struct Attachment {
    /// Grows with each try to join; answers to an older one are void.
    attempt: u64,
    attaching: Option<Asked>,
    ending: Vec<(Asked, End)>,
    editor_gone: bool,
    /// What the person asked for.
    pub(super) config: AttachConfig,
    /// The session's id, once joined.
    pub(super) session: Option<SessionId>,
    /// The fleet as it was last seen.
    pub(super) fleet: Option<FleetView>,
    fleet_asked: bool,
    fleet_at: Duration,
    /// It is a recording that is looked at: there is no fleet to ask.
    pub(super) is_recording: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Terminate,
    Disconnect,
}

impl Attachment {
    /// When the fleet is to be looked at again.
    pub(super) fn deadline(&self, phase: Phase) -> Option<Duration> {
        (phase == Phase::Joined && !self.fleet_asked && !self.is_recording).then_some(self.fleet_at)
    }

    /// Which try to attach or launch this is.
    pub(super) fn attempt(&self) -> u64 {
        self.attempt
    }

    /// Another try to attach or launch: answers to older ones are void.
    pub(super) fn begin_attempt(&mut self) {
        self.attempt += 1;
    }

    /// Notes that the fleet is looked at now; false when that is under way already.
    pub(super) fn ask_fleet(&mut self) -> bool {
        !std::mem::replace(&mut self.fleet_asked, true)
    }
}

/// Arguments of `attach`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct AttachConfig {
    /// Which bus.
    pub(super) target: BusTarget,
    /// Which processes; `None` falls back to the checkout's default.
    pub(super) selector: Option<Selector>,
    /// Local prefix and the build's prefix.
    pub(super) substitute_path: Vec<(String, String)>,
    /// Whether the first hit of a breakpoint opens the timeline.
    pub(super) stop_on_hit: bool,
    /// Hits per second and process: absent, `none`, or a number.
    pub(super) rate_per_s: Option<Option<u32>>,
    /// Where captured values tell which request a hit belongs to.
    pub(super) correlate: Vec<Expr>,
}

impl Default for AttachConfig {
    fn default() -> Self {
        AttachConfig {
            target: BusTarget { cwd: PathBuf::from("."), ..BusTarget::default() },
            selector: None,
            substitute_path: Vec::new(),
            stop_on_hit: true,
            rate_per_s: None,
            correlate: Vec::new(),
        }
    }
}

/// An attach configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadConfig {
    /// A text was expected.
    #[error("\"{0}\" must be a text")]
    Text(&'static str),
    /// A truth value was expected.
    #[error("\"stopOnHit\" must be true or false")]
    StopOnHit,
    /// Not a rate.
    #[error("\"rate\" must be a whole number of hits per second from 1, or \"none\"")]
    Rate,
    /// Not a list of pairs.
    #[error("\"substitutePath\" must be a list of {{\"from\": local folder, \"to\": folder in the build}}")]
    SubstitutePath,
    /// Not a list of expressions.
    #[error("\"correlate\" must be an expression over captured values, or a list of at most {CORRELATE_MAX}: {0}")]
    Correlate(String),
    /// Not a selector.
    #[error("\"selector\": {0}")]
    Selector(String),
}

impl AttachConfig {
    /// Reads the arguments; fields that others added (`name`, `type`, ..) are ignored.
    pub(super) fn read(arguments: &Value) -> Result<AttachConfig, BadConfig> {
        let text = |key: &'static str| match &arguments[key] {
            Value::Null => Ok(None),
            Value::String(text) if text.trim().is_empty() => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            _ => Err(BadConfig::Text(key)),
        };
        let selector = text("selector")?
            .map(|text| Selector::parse(&text).map_err(|error| BadConfig::Selector(error.to_string())))
            .transpose()?;
        let rate_per_s = match &arguments["rate"] {
            Value::Null => None,
            Value::String(none) if none == "none" => Some(None),
            rate => {
                let whole =
                    rate.as_u64().or_else(|| rate.as_f64().filter(|rate| rate.fract() == 0.0).map(|rate| rate as u64));
                Some(Some(whole.and_then(|n| u32::try_from(n).ok()).filter(|&n| n > 0).ok_or(BadConfig::Rate)?))
            }
        };
        let stop_on_hit = match &arguments["stopOnHit"] {
            Value::Null => true,
            Value::Bool(stop) => *stop,
            _ => return Err(BadConfig::StopOnHit),
        };
        let substitute_path = match &arguments["substitutePath"] {
            Value::Null => Vec::new(),
            Value::Array(pairs) => pairs.iter().map(pair).collect::<Option<_>>().ok_or(BadConfig::SubstitutePath)?,
            _ => return Err(BadConfig::SubstitutePath),
        };
        let target = BusTarget {
            nats: text("nats")?,
            creds: text("creds")?.map(PathBuf::from),
            cwd: text("cwd")?.map_or_else(|| PathBuf::from("."), PathBuf::from),
        };
        let correlate = correlate(&arguments["correlate"])?;
        Ok(AttachConfig { target, selector, substitute_path, stop_on_hit, rate_per_s, correlate })
    }
}

/// `"traceID"` or `["traceID", "req.ID"]`.
fn correlate(value: &Value) -> Result<Vec<Expr>, BadConfig> {
    let expressions: Vec<&str> = match value {
        Value::Null => Vec::new(),
        Value::String(one) => vec![one],
        Value::Array(several) => several
            .iter()
            .map(|one| one.as_str().ok_or_else(|| BadConfig::Correlate(format!("{one} is no text"))))
            .collect::<Result<_, _>>()?,
        other => return Err(BadConfig::Correlate(format!("{other} is no text"))),
    };
    if expressions.len() > CORRELATE_MAX {
        return Err(BadConfig::Correlate(format!("{} are too many", expressions.len())));
    }
    let parse =
        |text: &str| expression::parse(text).map_err(|error| BadConfig::Correlate(format!("{text:?}: {error}")));
    expressions.into_iter().map(parse).collect()
}

fn pair(pair: &Value) -> Option<(String, String)> {
    Some((pair["from"].as_str()?.to_owned(), pair["to"].as_str()?.to_owned()))
}

impl State {
    pub(super) fn initialize(
        &mut self,
        turn: &mut Turn<'_>,
        asked: Asked,
        arguments: &InitializeArguments,
        announces_ansi: bool,
    ) {
        self.client = Client::new(arguments, announces_ansi);
        self.phase = Phase::Ready;
        let yes = Some(true);
        let capabilities = Capabilities {
            supports_configuration_done_request: yes,
            supports_function_breakpoints: yes,
            supports_conditional_breakpoints: yes,
            supports_hit_conditional_breakpoints: yes,
            supports_log_points: yes,
            supports_evaluate_for_hovers: yes,
            supports_clipboard_context: yes,
            supports_completions_request: yes,
            supports_step_back: yes,
            supports_delayed_stack_trace_loading: yes,
            supports_value_formatting_options: yes,
            supports_modules_request: yes,
            supports_restart_request: yes,
            supports_terminate_request: yes,
            supports_cancel_request: yes,
            supports_goto_targets_request: yes,
            supports_breakpoint_locations_request: yes,
            supports_loaded_sources_request: yes,
            supports_exception_info_request: yes,
            supports_exception_filter_options: yes,
            exception_breakpoint_filters: Some(filters()),
            ..Capabilities::default()
        };
        let offered = match response_body(ResponseBody::Initialize(capabilities)) {
            Ok(mut offered) => {
                if let Some(offered) = &mut offered {
                    // Newer than the crate's type.
                    offered["breakpointModes"] = modes::offered();
                }
                Ok(offered)
            }
            Err(error) => Err(Failure::quiet(format!("the capabilities are no JSON: {error}"))),
        };
        turn.answer_raw(asked, offered);
    }

    pub(super) fn attach(&mut self, turn: &mut Turn<'_>, asked: Asked, arguments: Value) {
        match AttachConfig::read(&arguments) {
            Err(error) => {
                turn.answer(asked, Err(Failure::shown(format!("The attach configuration is wrong: {error}."))))
            }
            Ok(config) => {
                self.phase = Phase::Joining;
                self.attachment.attempt += 1;
                self.begin(turn, Task::Attach, asked.seq);
                self.attachment.attaching = Some(asked);
                let effect = Effect::Join {
                    attempt: self.attachment.attempt,
                    target: config.target.clone(),
                    substitutes: config.substitute_path.clone(),
                };
                self.attachment.config = config;
                turn.effect(effect);
            }
        }
    }

    pub(super) fn joined(&mut self, turn: &mut Turn<'_>, attempt: u64, outcome: Result<Box<JoinedFleet>, String>) {
        let current = self.phase == Phase::Joining && attempt == self.attachment.attempt;
        let asked = if current { self.attachment.attaching.take() } else { None };
        let Some(asked) = asked else {
            // The editor has taken the request back; what was opened for it is closed again.
            if outcome.is_ok() {
                turn.effect(Effect::Close);
            }
            return;
        };
        self.end_task(turn, Task::Attach);
        match outcome {
            Err(why) => {
                self.phase = Phase::Ready;
                turn.answer(asked, Err(Failure::shown(why)));
            }
            Ok(joined) => {
                self.phase = Phase::Joined;
                let JoinedFleet { session, defaults, fleet } = *joined;
                let config = &mut self.attachment.config;
                if config.selector.is_none()
                    && let Some(text) = &defaults.selector
                {
                    match Selector::parse(text) {
                        Ok(selector) => config.selector = Some(selector),
                        Err(error) => {
                            self.phase = Phase::Ready;
                            turn.effect(Effect::Close);
                            let why = format!("The selector of riptrace.toml is wrong: {error}.");
                            return turn.answer(asked, Err(Failure::shown(why)));
                        }
                    }
                }
                config.rate_per_s = config.rate_per_s.or(defaults.rate_per_s);
                let defaults_local_first = defaults.substitute_path.into_iter().map(|(build, local)| (local, build));
                let substitutes = config.substitute_path.iter().cloned().chain(defaults_local_first).collect();
                self.paths.set(defaults.root, substitutes);
                self.attachment.session = Some(session);
                self.attachment.fleet = Some(fleet);
                self.told_modules = self.module_list();
                self.attachment.fleet_at = turn.now + FLEET_INTERVAL;
                self.view = View::Running { stop_after: self.attachment.config.stop_on_hit.then_some(0) };
                self.statistics.changed();
                self.statistics.fleet_changed();
                turn.answer(asked, Ok(None));
                turn.emit(DapEvent::Initialized);
                self.create_all(turn);
            }
        }
    }

    pub(super) fn configuration_done(&mut self, turn: &mut Turn<'_>, asked: Asked) {
        self.configured = true;
        turn.answer(asked, Ok(None));
        if self.attachment.is_recording && self.attachment.config.stop_on_hit {
            return self.open_first(turn);
        }
        // Hits that came while the editor was still setting its breakpoints.
        if let View::Running { stop_after: Some(seq) } = self.view {
            let opens = self.timeline.mark_tracepoints(|tracepoint| self.breakpoints.opens_timeline(tracepoint));
            if let Some(hit) = self.timeline.next(seq, |hit| hit.is_of(&opens)) {
                self.open_hit(turn, hit, super::motion::Reason::Breakpoint);
            }
        }
    }

    pub(super) fn restart(&mut self, turn: &mut Turn<'_>, asked: Asked, arguments: RestartArguments) {
        if self.phase != Phase::Joined {
            return turn.answer(asked, Err(Failure::quiet("there is nothing to restart: send 'attach' first")));
        }
        if self.attachment.is_recording {
            turn.answer(asked, Ok(None));
            self.view = View::Running { stop_after: None };
            return self.open_first(turn);
        }
        if let Some(arguments) =
            arguments.arguments.and_then(|a| a.additional_data).filter(|a| a.get("request").is_some())
        {
            match AttachConfig::read(&arguments) {
                Err(error) => {
                    let why = format!("The attach configuration is wrong: {error}.");
                    return turn.answer(asked, Err(Failure::shown(why)));
                }
                Ok(config) if config.target != self.attachment.config.target => {
                    let why = "A restart keeps its fleet: stop this session and start a new one for another \"nats\", \
                               \"creds\" or \"cwd\".";
                    return turn.answer(asked, Err(Failure::shown(why)));
                }
                Ok(mut config) => {
                    config.selector = config.selector.or_else(|| self.attachment.config.selector.clone());
                    config.rate_per_s = config.rate_per_s.or(self.attachment.config.rate_per_s);
                    self.attachment.config = config;
                }
            }
        }
        let newest = self.timeline.newest_seq().unwrap_or(0);
        self.view = View::Running { stop_after: self.attachment.config.stop_on_hit.then_some(newest) };
        self.handles.clear();
        self.threads.clear();
        self.values.clear();
        self.give_up_past(turn);
        self.past = Past::after(self.timeline.newest_seq().unwrap_or(0));
        self.timeline.clear();
        self.rows.restarted();
        self.statistics.restarted();
        turn.answer(asked, Ok(None));
        self.rearm_all(turn);
        self.invalidate(turn, &["all"]);
        turn.note(OutputEventCategory::Console, "RipTrace: tracepoints are armed again; the timeline begins anew.");
    }

    pub(super) fn cancel(&mut self, turn: &mut Turn<'_>, asked: Asked, arguments: &CancelArguments) {
        let attaching = self.attachment.attaching.as_ref().map(|attach| attach.seq);
        let task = arguments.progress_id.as_deref().and_then(|id| self.progress.task(id));
        if task == Some(Task::Attach) || (arguments.request_id.is_some() && attaching == arguments.request_id) {
            self.give_up_attaching(turn);
            self.phase = Phase::Ready;
        } else if task == Some(Task::Load) || self.is_loading(arguments.request_id) {
            self.give_up_loading(turn);
            self.phase = Phase::Ready;
        } else if task == Some(Task::Save) || self.is_saving(arguments.request_id) {
            self.give_up_saving(turn);
        }
        turn.answer(asked, Ok(None));
    }

    fn give_up_attaching(&mut self, turn: &mut Turn<'_>) {
        self.attachment.attempt += 1;
        self.end_task(turn, Task::Attach);
        if let Some(attach) = self.attachment.attaching.take() {
            turn.answer(attach, Err(Failure::cancelled()));
        }
    }

    pub(super) fn terminate(&mut self, turn: &mut Turn<'_>, asked: Asked) {
        self.end(turn, Some((asked, End::Terminate)));
    }

    pub(super) fn disconnect(&mut self, turn: &mut Turn<'_>, asked: Asked) {
        self.end(turn, Some((asked, End::Disconnect)));
    }

    /// The editor is gone without a word.
    pub(super) fn editor_gone(&mut self, turn: &mut Turn<'_>) {
        self.attachment.editor_gone = true;
        self.end(turn, None);
    }

    /// Takes the session's tracepoints out; the targets run on, whatever the request says of a "debuggee".
    fn end(&mut self, turn: &mut Turn<'_>, request: Option<(Asked, End)>) {
        let closing = !self.attachment.ending.is_empty();
        self.attachment.ending.extend(request);
        self.give_up_attaching(turn);
        self.answer_pending_sets(turn);
        self.answer_fleet(turn, Some("the session has ended"));
        self.give_up_reading(turn);
        self.give_up_loading(turn);
        self.give_up_saving(turn);
        self.give_up_past(turn);
        match self.phase {
            Phase::Joined if !self.attachment.is_recording => {
                self.phase = Phase::Ended;
                turn.effect(Effect::Close);
            }
            Phase::Ended if closing => {}
            _ => {
                self.phase = Phase::Ended;
                self.ended(turn);
            }
        }
    }

    pub(super) fn closed(&mut self, turn: &mut Turn<'_>, outcome: Result<(), String>) {
        if self.phase != Phase::Ended {
            return;
        }
        if let Err(why) = outcome {
            let seconds = SESSION_LEASE_MS / 1000;
            let text = format!(
                "RipTrace: the fleet did not confirm the end of the session ({why}); its tracepoints end by themselves \
                 within {seconds} seconds."
            );
            turn.note(OutputEventCategory::Stderr, text);
        }
        self.ended(turn);
    }

    fn ended(&mut self, turn: &mut Turn<'_>) {
        let ending = std::mem::take(&mut self.attachment.ending);
        let exit = self.attachment.editor_gone || ending.iter().any(|(_, end)| *end == End::Disconnect);
        let terminated = ending.iter().any(|(_, end)| *end == End::Terminate);
        for (asked, _) in ending {
            turn.answer(asked, Ok(None));
        }
        if terminated {
            turn.emit(DapEvent::Terminated(None));
        }
        if exit {
            turn.effect(Effect::Exit);
        }
    }

    /// Looks at the fleet when it is time.
    pub(super) fn fleet_due(&mut self, turn: &mut Turn<'_>) {
        if self.attachment.deadline(self.phase).is_some_and(|at| at <= turn.now) {
            self.attachment.ask_fleet();
            turn.effect(Effect::AskFleet);
        }
    }

    pub(super) fn fleet_seen(&mut self, turn: &mut Turn<'_>, outcome: Result<FleetView, String>) {
        self.attachment.fleet_asked = false;
        self.attachment.fleet_at = turn.now + FLEET_INTERVAL;
        match outcome {
            Ok(fleet) => {
                self.rates.seen(turn.now, &fleet);
                if self.attachment.fleet.as_ref() != Some(&fleet) {
                    self.statistics.changed();
                    self.statistics.fleet_changed();
                }
                self.attachment.fleet = Some(fleet);
                if self.phase == Phase::Joined {
                    self.tell_modules(turn);
                    self.map_new_builds(turn);
                }
                self.answer_fleet(turn, None);
            }
            // A fleet that cannot be seen is told by the session's own events; the last view stays.
            Err(why) => self.answer_fleet(turn, Some(&why)),
        }
    }

    /// Hosts that are heard, and their processes, that the session's selector means.
    pub(super) fn meant(&self) -> (usize, usize) {
        let everything = Selector::default();
        let selector = self.attachment.config.selector.as_ref().unwrap_or(&everything);
        let hosts = self.attachment.fleet.iter().flat_map(|fleet| &fleet.hosts).filter(|host| host.alive);
        hosts.fold((0, 0), |(hosts, processes), host| {
            let profile = &host.profile;
            let meant = profile.processes.iter().filter(|process| selector.matches(&profile.host, process)).count();
            (hosts + usize::from(meant > 0), processes + meant)
        })
    }
}
