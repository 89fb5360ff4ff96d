//! The thin driver of a session: transport, clock and fleet client around [`State`].
//!
//! One task owns the state. The editor's messages, the fleet's events and the answers of background work come to it;
//! what it sends goes through one writer, which numbers the messages. An editor that does not read holds back its own
//! session: the fleet's events then wait in the bus.

use super::codec::{CodecError, DapCodec, Frame, Transport};
use super::envelope::{self, Incoming, Outgoing};
use super::fleet::{FleetEvents, FleetSession, Fleets, RealFleets};
use super::limits::{CLOSE_WAIT, COMPLETIONS_MAX, OUTGOING_MAX};
use super::locations::LineTables;
use super::recordings::{self, Recordings};
use super::session::{Effect, Event, JoinedFleet, LocalFiles, Mapped, OpenedRecording, State};
use crate::environment::{BusTarget, Environment};
use crate::lines::{LineMapper, NotThere};
use crate::timeline::TimelineLimits;
use futures::{SinkExt, StreamExt};
use riptrace_protocol::fleet::BuildFacts;
use riptrace_protocol::location::{FunctionPoint, Location};
use riptrace_protocol::tracepoint::{Mode, Tracepoint};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::codec::{FramedRead, FramedWrite};

/// Why the adapter cannot serve an editor.
#[derive(Debug, thiserror::Error)]
pub enum DapError {
    /// The connection failed in the middle.
    #[error("the connection to the editor failed: {0}")]
    Transport(std::io::Error),
}

/// Serves one editor on standard input and output, or any pair of streams, until it disconnects or closes them.
pub async fn serve_dap(
    reader: impl AsyncRead + Send + Unpin + 'static,
    writer: impl AsyncWrite + Send + Unpin + 'static,
    env: Arc<dyn Environment>,
) -> Result<(), DapError> {
    serve(reader, writer, Transport::Stdio, Arc::new(RealFleets(env))).await
}

/// As [`serve_dap`], over fleets of the caller's: tests bring their own.
pub async fn serve_fleets(
    reader: impl AsyncRead + Send + Unpin + 'static,
    writer: impl AsyncWrite + Send + Unpin + 'static,
    fleets: Arc<dyn Fleets>,
) -> Result<(), DapError> {
    serve(reader, writer, Transport::Stdio, fleets).await
}

/// As [`serve_fleets`], with a timeline of a size of the caller's.
pub async fn serve_fleets_keeping(
    reader: impl AsyncRead + Send + Unpin + 'static,
    writer: impl AsyncWrite + Send + Unpin + 'static,
    fleets: Arc<dyn Fleets>,
    limits: TimelineLimits,
) -> Result<(), DapError> {
    serve_with(reader, writer, Transport::Stdio, fleets, limits).await
}

/// Serves each connection to the listener as a session of its own, until the future is dropped.
pub async fn listen_dap(listener: TcpListener, env: Arc<dyn Environment>) {
    serve_connections(listener, Arc::new(RealFleets(env))).await;
}

/// As [`listen_dap`], over fleets of the caller's.
pub async fn serve_connections(listener: TcpListener, fleets: Arc<dyn Fleets>) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((connection, _)) => {
                    if let Err(error) = connection.set_nodelay(true) {
                        tracing::debug!("TCP_NODELAY: {error}");
                    }
                    let (reader, writer) = connection.into_split();
                    sessions.spawn(serve(reader, writer, Transport::Tcp, fleets.clone()));
                }
                // A connection that was gone before it was taken, or too many open files: the others go on.
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = sessions.join_next() => {
                if let Ok(Err(error)) = ended {
                    tracing::warn!("{error}");
                }
            }
        }
    }
}

/// Pause after a connection that could not be accepted: without it, a lack of files would be a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

async fn serve(
    reader: impl AsyncRead + Send + Unpin + 'static,
    writer: impl AsyncWrite + Send + Unpin + 'static,
    transport: Transport,
    fleets: Arc<dyn Fleets>,
) -> Result<(), DapError> {
    serve_with(reader, writer, transport, fleets, TimelineLimits::default()).await
}

async fn serve_with(
    reader: impl AsyncRead + Send + Unpin + 'static,
    writer: impl AsyncWrite + Send + Unpin + 'static,
    transport: Transport,
    fleets: Arc<dyn Fleets>,
    limits: TimelineLimits,
) -> Result<(), DapError> {
    let (outgoing, to_write) = mpsc::channel(OUTGOING_MAX);
    let writer = tokio::spawn(write_all(FramedWrite::new(writer, DapCodec::new(transport)), to_write));
    let (completed, completions) = mpsc::channel(COMPLETIONS_MAX);
    let driver = Driver {
        state: State::new(Box::new(Disk), limits),
        begun: Instant::now(),
        fleets,
        joined: None,
        events: None,
        mapper: None,
        line_tables: Arc::default(),
        to_map: VecDeque::new(),
        maps: false,
        to_create: VecDeque::new(),
        searches: false,
        joining: None,
        outgoing,
        completed,
        work: JoinSet::new(),
        recordings: Recordings::default(),
    };
    let failed = driver.run(FramedRead::new(reader, DapCodec::new(transport)), completions).await;
    // The driver has dropped its sender: the writer ends once all is written.
    if let Err(error) = writer.await {
        tracing::debug!("the writer ended: {error}");
    }
    failed.map_or(Ok(()), |error| Err(DapError::Transport(error)))
}

async fn write_all(mut frames: FramedWrite<impl AsyncWrite + Unpin, DapCodec>, mut messages: mpsc::Receiver<Outgoing>) {
    let mut seq = 0;
    while let Some(message) = messages.recv().await {
        seq += 1;
        let written = async {
            frames.feed(&message.into_value(seq)).await?;
            // What is ready goes out together.
            if messages.is_empty() { frames.flush().await } else { Ok(()) }
        };
        if let Err(error) = written.await {
            tracing::debug!("the editor does not read any more: {error}");
            return;
        }
    }
    if let Err(error) = SinkExt::<&serde_json::Value>::flush(&mut frames).await {
        tracing::debug!("the editor does not read any more: {error}");
    }
}

/// Files of this machine.
struct Disk;

impl LocalFiles for Disk {
    fn is_file(&self, path: &Path) -> bool {
        path.is_file()
    }

    fn go_module(&self, folder: &Path) -> Option<String> {
        let text = std::fs::read_to_string(folder.join("go.mod")).ok()?;
        let module = text.lines().find_map(|line| line.trim().strip_prefix("module "))?;
        Some(module.trim().trim_matches('"').to_owned())
    }
}

struct Driver {
    state: State,
    begun: Instant,
    fleets: Arc<dyn Fleets>,
    joined: Option<Arc<dyn FleetSession>>,
    events: Option<Box<dyn FleetEvents>>,
    mapper: Option<Arc<LineMapper>>,
    line_tables: Arc<LineTables>,
    /// Lines that wait to be mapped: as many as there are breakpoints, at most.
    to_map: VecDeque<(i64, PathBuf, u32, Vec<BuildFacts>)>,
    /// Whether one is being mapped.
    maps: bool,
    /// Tracepoints of functions, by whose names sources are to be found: as many as there are breakpoints, at most.
    to_create: VecDeque<(Tracepoint, String, Vec<BuildFacts>)>,
    /// Whether those of one are being looked for.
    searches: bool,
    joining: Option<tokio::task::AbortHandle>,
    outgoing: mpsc::Sender<Outgoing>,
    completed: mpsc::Sender<Completion>,
    work: JoinSet<()>,
    recordings: Recordings,
}

/// What background work says when it is done.
enum Completion {
    /// An event for the state machine.
    Event(Box<Event>),
    /// What its source says was added to a tracepoint, which may be asked for now.
    Sourced(Box<Tracepoint>),
    /// A fleet was joined.
    Joined { attempt: u64, joined: super::fleet::Joined, fleet: Box<JoinedFleet>, mapper: Arc<LineMapper> },
}

/// Whether the driver goes on.
#[derive(PartialEq, Eq)]
enum Flow {
    On,
    Over,
}

impl Driver {
    async fn run(
        mut self,
        mut frames: FramedRead<impl AsyncRead + Unpin, DapCodec>,
        mut completions: mpsc::Receiver<Completion>,
    ) -> Option<std::io::Error> {
        let mut reads = true;
        let mut failed = None;
        loop {
            let deadline = self.state.deadline();
            let event = tokio::select! {
                frame = frames.next(), if reads => match frame {
                    Some(Ok(Frame::Body(body))) => match envelope::parse(&body) {
                        Ok(Incoming::Request { seq, command, arguments }) => Event::Request { seq, command, arguments },
                        Ok(Incoming::Response) => continue,
                        Err(malformed) => Event::Malformed(malformed),
                    },
                    Some(Ok(Frame::Garbage(garbage))) => {
                        tracing::warn!("{garbage}");
                        Event::Garbage(garbage.to_string())
                    }
                    Some(Err(error)) => {
                        match error {
                            CodecError::Io(error) => failed = Some(error),
                            CodecError::Browser | CodecError::Json(_) => tracing::warn!("{error}"),
                        }
                        reads = false;
                        Event::EditorGone
                    }
                    None => {
                        reads = false;
                        Event::EditorGone
                    }
                },
                Some(completion) = completions.recv() => match completion {
                    Completion::Event(event) => {
                        if matches!(*event, Event::Mapped { .. }) {
                            self.maps = false;
                            self.map_next();
                        }
                        *event
                    }
                    Completion::Sourced(tracepoint) => {
                        self.searches = false;
                        self.ask(|session| {
                            let id = tracepoint.id.clone();
                            let created = session.create(*tracepoint);
                            Box::pin(async move { Event::Created { tracepoint: id, outcome: created.await } })
                        });
                        self.create_next();
                        continue;
                    }
                    Completion::Joined { attempt, joined, fleet, mapper } => {
                        self.mapper = Some(mapper);
                        self.joined = Some(joined.session);
                        self.events = Some(joined.events);
                        Event::Joined { attempt, outcome: Ok(fleet) }
                    }
                },
                event = next_event(&mut self.events) => match event {
                    Some(event) => Event::Stream(event),
                    None => {
                        self.events = None;
                        Event::StreamEnded
                    }
                },
                () = sleep_until(deadline.map(|at| self.begun + at)) => Event::Tick,
                Some(_) = self.work.join_next() => continue,
            };
            if self.handle(event).await == Flow::Over {
                return failed;
            }
        }
    }

    async fn handle(&mut self, event: Event) -> Flow {
        let mut effects = Vec::new();
        self.state.handle(self.begun.elapsed(), event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send(message) => {
                    if self.outgoing.send(message).await.is_err() {
                        // Nobody reads any more; the end of the input follows, or has come.
                        tracing::debug!("a message had no reader");
                    }
                }
                Effect::Join { attempt, target, substitutes } => self.join(attempt, target, substitutes),
                Effect::AskFleet => self.ask(|session| {
                    let fleet = session.fleet();
                    Box::pin(async move { Event::Fleet(fleet.await) })
                }),
                Effect::Map { breakpoint, path, line, builds } => {
                    self.to_map.push_back((breakpoint, path, line, builds));
                    self.map_next();
                }
                Effect::ReadSource { read, file, build } => self.look_up(move |mapper| {
                    Box::pin(async move {
                        let text = match mapper {
                            Some(mapper) => mapper.deployed_file(&file, &build).await,
                            None => None,
                        };
                        Event::SourceRead { read, file, text: text.map(|text| text.to_string()) }
                    })
                }),
                Effect::FindFunction { find, name } => self.look_up(move |mapper| {
                    Box::pin(async move {
                        let place = match mapper {
                            Some(mapper) => mapper.function_place(&name).await,
                            None => None,
                        };
                        Event::FunctionFound { find, name, place }
                    })
                }),
                Effect::Locate { locate, path, from, to, builds } => {
                    let (tables, session) = (self.line_tables.clone(), self.joined.clone());
                    self.look_up(move |mapper| {
                        Box::pin(async move {
                            let lines = match mapper {
                                Some(mapper) => tables.traceable(&mapper, session, &path, from..=to, &builds).await,
                                None => Vec::new(),
                            };
                            Event::Located { locate, lines }
                        })
                    });
                }
                Effect::OpenRecording { attempt, path, cwd, substitutes } => {
                    self.open_recording(attempt, path, cwd, substitutes);
                }
                Effect::ReadRecording { attempt } => {
                    let reader = self.recordings.reader.clone();
                    self.in_background(move || Event::RecordingRead { attempt, outcome: recordings::read(&reader) });
                }
                Effect::BeginSave { save, path, header } => {
                    let writer = self.recordings.new_writer();
                    self.in_background(move || Event::Saved {
                        save,
                        outcome: recordings::begin(&writer, path, *header),
                    });
                }
                Effect::SaveItems { save, items } => {
                    let writer = self.recordings.writer.clone();
                    self.in_background(move || Event::Saved { save, outcome: recordings::write(&writer, items) });
                }
                Effect::EndSave { save } => {
                    let writer = self.recordings.writer.clone();
                    self.in_background(move || Event::Saved { save, outcome: recordings::end(&writer) });
                }
                Effect::AbortSave => self.recordings.abort(),
                Effect::ReadPast { before, count } => self.ask(|session| {
                    let hits = session.hits_before(before, count);
                    Box::pin(async move { Event::PastRead { before, outcome: hits.await } })
                }),
                Effect::Create { tracepoint, builds } => self.create(tracepoint, builds),
                Effect::Remove(tracepoint) => self.ask(|session| {
                    let removed = session.remove(tracepoint.clone());
                    Box::pin(async move { Event::Removed { tracepoint, outcome: removed.await } })
                }),
                Effect::Close => self.close(),
                Effect::Exit => return Flow::Over,
            }
        }
        Flow::On
    }

    fn join(&mut self, attempt: u64, target: BusTarget, substitutes: Vec<(String, String)>) {
        let fleets = self.fleets.clone();
        let completed = self.completed.clone();
        let joining = self.work.spawn(async move {
            let completion = match join(fleets, target).await {
                Ok((joined, fleet)) => {
                    // Rules of the mapper name the build's path first.
                    let mut rules: Vec<_> = substitutes.into_iter().map(|(local, build)| (build, local)).collect();
                    rules.extend(fleet.defaults.substitute_path.iter().cloned());
                    let mapper = Arc::new(LineMapper::new(fleet.defaults.root.clone(), rules));
                    Completion::Joined { attempt, joined, fleet, mapper }
                }
                Err(why) => Completion::Event(Box::new(Event::Joined { attempt, outcome: Err(why) })),
            };
            tell(&completed, completion).await;
        });
        if let Some(older) = self.joining.replace(joining) {
            older.abort();
        }
    }

    /// Asks the fleet in the background; the answer comes back as an event.
    fn ask(&mut self, question: impl FnOnce(&dyn FleetSession) -> futures::future::BoxFuture<'static, Event>) {
        let Some(session) = &self.joined else { return };
        let answer = question(session.as_ref());
        let completed = self.completed.clone();
        self.work.spawn(async move { tell(&completed, Completion::Event(Box::new(answer.await))).await });
    }

    /// Asks the fleet for a tracepoint; for one at a function's returns, or its calls, with what its source says of the variables there.
    fn create(&mut self, tracepoint: Tracepoint, builds: Vec<BuildFacts>) {
        let function = match &tracepoint.location {
            // At its entry a function's arguments are what they are; and where hits are counted nothing is captured.
            Location::Function { name, at: FunctionPoint::Return | FunctionPoint::Call }
                if tracepoint.mode == Mode::Hit =>
            {
                Some(name.clone())
            }
            _ => None,
        };
        match function {
            Some(function) => {
                self.to_create.push_back((tracepoint, function, builds));
                self.create_next();
            }
            None => self.ask(|session| {
                let id = tracepoint.id.clone();
                let created = session.create(tracepoint);
                Box::pin(async move { Event::Created { tracepoint: id, outcome: created.await } })
            }),
        }
    }

    /// Looks for the sources of the next function in the background, one after the other.
    fn create_next(&mut self) {
        if self.searches {
            return;
        }
        let (Some(mapper), Some((mut tracepoint, function, builds))) =
            (self.mapper.clone(), self.to_create.pop_front())
        else {
            return;
        };
        self.searches = true;
        let completed = self.completed.clone();
        self.work.spawn(async move {
            tracepoint.source = mapper.function_sources(&function, &builds).await;
            tell(&completed, Completion::Sourced(Box::new(tracepoint))).await;
        });
    }

    /// Opens a recording; what is read of it afterwards comes from the same file.
    fn open_recording(&mut self, attempt: u64, path: PathBuf, cwd: PathBuf, substitutes: Vec<(String, String)>) {
        let cwd = absolute(cwd);
        let defaults = match self.fleets.checkout(&cwd) {
            Ok(defaults) => defaults,
            Err(why) => {
                return self.in_background(move || Event::RecordingOpened { attempt, outcome: Err(why) });
            }
        };
        let mut rules: Vec<_> = substitutes.into_iter().map(|(local, build)| (build, local)).collect();
        rules.extend(defaults.substitute_path.iter().cloned());
        self.mapper = Some(Arc::new(LineMapper::new(defaults.root.clone(), rules)));
        let reader = self.recordings.new_reader();
        self.in_background(move || {
            let opened = recordings::open(&reader, &path);
            let opened = opened.map(|header| Box::new(OpenedRecording { defaults, header }));
            Event::RecordingOpened { attempt, outcome: opened }
        });
    }

    /// Does what waits for a disk in the background; the answer comes back as an event.
    fn in_background(&mut self, work: impl FnOnce() -> Event + Send + 'static) {
        let completed = self.completed.clone();
        self.work.spawn(async move {
            match tokio::task::spawn_blocking(work).await {
                Ok(event) => tell(&completed, Completion::Event(Box::new(event))).await,
                Err(error) => tracing::error!("work in the background has failed: {error}"),
            }
        });
    }

    /// Looks something up in the checkout in the background; the answer comes back as an event.
    fn look_up(
        &mut self,
        question: impl FnOnce(Option<Arc<LineMapper>>) -> futures::future::BoxFuture<'static, Event>,
    ) {
        let answer = question(self.mapper.clone());
        let completed = self.completed.clone();
        self.work.spawn(async move { tell(&completed, Completion::Event(Box::new(answer.await))).await });
    }

    /// Finds the next local line in builds in the background: one after the other, so that answers come in the order of
    /// the questions and git is not started for each breakpoint at once.
    fn map_next(&mut self) {
        if self.maps {
            return;
        }
        let (Some(mapper), Some((breakpoint, path, line, builds))) = (self.mapper.clone(), self.to_map.pop_front())
        else {
            return;
        };
        self.maps = true;
        let completed = self.completed.clone();
        self.work.spawn(async move {
            let outcome = match builds.as_slice() {
                [] => Ok(Mapped::Path(mapper.build_path(&path).await)),
                builds => match mapper.plan(&path, line, None, builds).await {
                    Ok(mut plan) => {
                        mapper.add_sources(&path, None, builds, &mut plan).await;
                        Ok(Mapped::Plan(plan))
                    }
                    Err(NotThere::Unreadable { .. }) => Ok(Mapped::Unread),
                    Err(why) => Err(why.to_string()),
                },
            };
            tell(&completed, Completion::Event(Box::new(Event::Mapped { breakpoint, outcome }))).await;
        });
    }

    fn close(&mut self) {
        self.events = None;
        let Some(session) = self.joined.take() else { return };
        let completed = self.completed.clone();
        self.work.spawn(async move {
            let outcome = match tokio::time::timeout(CLOSE_WAIT, session.close()).await {
                Ok(outcome) => outcome,
                Err(_) => Err(format!("no answer within {} seconds", CLOSE_WAIT.as_secs())),
            };
            tell(&completed, Completion::Event(Box::new(Event::Closed(outcome)))).await;
        });
    }
}

async fn tell(completed: &mpsc::Sender<Completion>, completion: Completion) {
    if completed.send(completion).await.is_err() {
        tracing::debug!("an answer came after the end of its session");
    }
}

async fn join(
    fleets: Arc<dyn Fleets>,
    mut target: BusTarget,
) -> Result<(super::fleet::Joined, Box<JoinedFleet>), String> {
    target.cwd = absolute(target.cwd);
    let defaults = fleets.checkout(&target.cwd)?;
    let session = fleets.new_session_id();
    let joined = fleets.join(target, session.clone(), fleets.viewer()).await?;
    let fleet = Box::new(JoinedFleet { session, defaults, fleet: joined.fleet.clone() });
    Ok((joined, fleet))
}

/// A folder that is named from the adapter's own.
fn absolute(folder: PathBuf) -> PathBuf {
    match std::env::current_dir() {
        Ok(here) if folder.is_relative() => {
            if folder == Path::new(".") {
                here
            } else {
                here.join(folder)
            }
        }
        _ => folder,
    }
}

async fn next_event(events: &mut Option<Box<dyn FleetEvents>>) -> Option<crate::fleet::SessionEvent> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
