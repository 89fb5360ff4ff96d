//! One message of every kind, small, with every variant of the binary enums somewhere.

// Each test that uses this module uses a part of it.
#![allow(dead_code, unreachable_pub)]

use riptrace_protocol::agent_api::{
    Attach, AttachReply, ClockPing, ClockPong, Create, CreateReply, Heartbeat, LineFacts, LinesGet, LinesReply, List,
    ListReply, ProfileGet, Remove, RemoveReply, Reply, VariableFacts,
};
use riptrace_protocol::batch::{Batch, FrameEntry};
use riptrace_protocol::coordinator_api::{
    CoordinatorStatus, FleetGet, SessionOpen, SessionOpened, SessionRef, SessionState, TracepointCreate,
    TracepointRemove,
};
use riptrace_protocol::fleet::{
    BuildFacts, FleetView, HostProfile, HostView, Language, Mechanism, ProbeState, ProbeStatus, ProcessFacts,
    SiteFacts, TracepointStatus,
};
use riptrace_protocol::hit::{Chunk, ChunkEnd, DropReason, Frame, RawDrop, RawHit, RootState};
use riptrace_protocol::ids::{
    Avma, BuildId, HostName, Incarnation, LayoutId, ProcessId, ProcessKey, SessionId, TracepointId,
};
use riptrace_protocol::layout::{Field, Layout, Root, Scope, Type, TypeIndex, TypeKind, Variable};
use riptrace_protocol::location::Location;
use riptrace_protocol::selector::Selector;
use riptrace_protocol::stream::{OrderedHit, Resume, StreamDrop, StreamFrames, StreamItem, StreamMessage};
use riptrace_protocol::time::ClockDomain;
use riptrace_protocol::tracepoint::{CaptureLimits, HitCondition, Mode, Tracepoint};
use serde::{Serialize, de::DeserializeOwned};

/// A JSON message: its name, its bytes, and how it is read.
pub struct Json {
    pub name: &'static str,
    pub now: String,
    /// Whether a text reads as the value that was built here.
    pub reads_as_itself: Box<Check>,
}

/// Reads a text; an error says why it is not the value that was built here.
pub type Check = dyn Fn(&str) -> Result<(), String>;

fn json<T: Serialize + DeserializeOwned + PartialEq + 'static>(name: &'static str, message: T) -> Json {
    let now = serde_json::to_string(&message).unwrap();
    let reads_as_itself = Box::new(move |text: &str| match serde_json::from_str::<T>(text) {
        Ok(read) if read == message => Ok(()),
        Ok(_) => Err("it reads as something else".to_owned()),
        Err(error) => Err(error.to_string()),
    });
    Json { name, now, reads_as_itself }
}

pub fn json_messages() -> Vec<Json> {
    let armed = probe_status();
    let refused = ProbeStatus {
        process: process(813),
        state: ProbeState::Refused,
        mechanism: None,
        sites: vec![],
        reason: Some("no code for cart.go:42 in build go:abc".into()),
        passages: 0,
        hits: 0,
        dropped: 0,
        ..armed.clone()
    };
    let removed =
        ProbeStatus { state: ProbeState::Off, reason: Some("removed".into()), unfinished: true, ..armed.clone() };
    vec![
        json("profile_get", ProfileGet {}),
        json("profile_get_reply", Reply::Ok(profile())),
        json("attach", Attach { process: key(812) }),
        json("attach_reply", Reply::Ok(AttachReply { loaded: true })),
        json("create_tracepoint", Create { tracepoint: tracepoint(), processes: vec![key(812), key(813)] }),
        json(
            "create_tracepoint_reply",
            Reply::Ok(CreateReply { probes: vec![armed.clone(), refused], layouts: vec![small_layout()] }),
        ),
        json("remove_tracepoint", Remove { tracepoint: tracepoint().id }),
        json("remove_tracepoint_reply", Reply::Ok(RemoveReply { probes: vec![removed] })),
        json("list_tracepoints", List {}),
        json(
            "list_tracepoints_reply",
            Reply::Ok(ListReply {
                incarnation: Incarnation(7),
                tracepoints: vec![short_tracepoint()],
                probes: vec![],
                layouts: vec![],
                frames: vec![frame_entry()],
            }),
        ),
        json(
            "lines",
            LinesGet {
                build: profile().processes[0].build.id.clone(),
                file: "cart/cart.go".into(),
                first: 40,
                last: 60,
                variables: true,
            },
        ),
        json(
            "lines_reply",
            Reply::Ok(LinesReply {
                file: "/src/shop/cart/cart.go".into(),
                lines: vec![
                    LineFacts {
                        line: 42,
                        function: "cart.(*Cart).Add".into(),
                        refused: None,
                        variables: vec![
                            VariableFacts {
                                name: "qty".into(),
                                type_name: "int".into(),
                                scope: Scope::Argument,
                                missing: None,
                            },
                            VariableFacts {
                                name: "total".into(),
                                type_name: "float64".into(),
                                scope: Scope::Local,
                                missing: Some("optimised out".into()),
                            },
                        ],
                    },
                    LineFacts { line: 43, function: String::new(), refused: None, variables: vec![] },
                ],
                more: false,
            }),
        ),
        json("error_reply", Reply::<AttachReply>::Error("process 812 is gone".into())),
        json("clock_ping", ClockPing { coordinator: Incarnation(9), sent_ns: 1_000, is_waited_for: false }),
        json(
            "clock_ping_reply",
            ClockPong {
                sent_ns: 1_000,
                clock_domain: domain(),
                received_ns: 500,
                replied_ns: 600,
                incarnation: Incarnation(7),
            },
        ),
        json(
            "heartbeat",
            Heartbeat {
                host: host(),
                incarnation: Incarnation(7),
                profile_revision: 3,
                probes: vec![ProbeStatus { state: ProbeState::Off, reason: Some("over its budget".into()), ..armed }],
                leaving: false,
            },
        ),
        json("fleet_get", FleetGet {}),
        json(
            "fleet_get_reply",
            Reply::Ok(FleetView {
                coordinator: Incarnation(9),
                hosts: vec![HostView { profile: profile(), alive: true, clock_uncertainty_ns: Some(41_000) }],
                tracepoints: vec![],
            }),
        ),
        json("session_open", SessionOpen { session: session(), viewer: "vscode ana@laptop".into() }),
        json("session_open_reply", Reply::Ok(SessionOpened { coordinator: Incarnation(9), lease_ms: 10_000 })),
        json("session_ref", SessionRef { session: session() }),
        json(
            "session_state",
            SessionState {
                session: session(),
                coordinator: Incarnation(9),
                tracepoints: vec![TracepointStatus { ended: Some("500 hits were asked for".into()), ..status() }],
            },
        ),
        json("tracepoint_create", TracepointCreate { session: session(), tracepoint: short_tracepoint() }),
        json("tracepoint_create_reply", Reply::Ok(status())),
        json("tracepoint_remove", TracepointRemove { session: session(), tracepoint: tracepoint().id }),
        json("coordinator_status", CoordinatorStatus { coordinator: Incarnation(9), version: "0.1.0".into() }),
    ]
}

fn host() -> HostName {
    HostName::new("web-1").unwrap()
}

fn session() -> SessionId {
    SessionId::new("s-4f1a").unwrap()
}

fn key(pid: u32) -> ProcessKey {
    ProcessKey { pid, start_time: 4_711 }
}

fn process(pid: u32) -> ProcessId {
    ProcessId { host: host(), key: key(pid) }
}

fn domain() -> ClockDomain {
    ClockDomain("6f1c3c1e:4026531834".into())
}

fn build() -> BuildId {
    BuildId("go:abc".into())
}

fn site() -> SiteFacts {
    SiteFacts { function: "main.(*Cart).Add".into(), file: "/src/shop/cart/cart.go".into(), line: 42 }
}

fn profile() -> HostProfile {
    HostProfile {
        host: host(),
        incarnation: Incarnation(7),
        version: "0.1.0".into(),
        kernel: "6.12.0".into(),
        clock_domain: domain(),
        labels: [("env".into(), "prod".into())].into(),
        revision: 3,
        processes: vec![
            ProcessFacts {
                key: key(812),
                service: "cart".into(),
                exe: "/usr/bin/cartd".into(),
                build: BuildFacts {
                    id: build(),
                    language: Language::Go,
                    dwarf: true,
                    go_version: Some("go1.27.3".into()),
                    module: Some("example.com/shop".into()),
                    module_version: Some("(devel)".into()),
                    vcs_revision: Some("0123456789abcdef0123456789abcdef01234567".into()),
                    vcs_modified: Some(false),
                    settings: [("GOARCH".into(), "amd64".into()), ("-trimpath".into(), "true".into())].into(),
                },
                container: Some("9d3b".into()),
                labels: [("env".into(), "prod".into())].into(),
                refused: None,
            },
            ProcessFacts {
                key: key(1),
                service: "init".into(),
                exe: "/sbin/init".into(),
                build: BuildFacts {
                    id: BuildId("gnu:00ff".into()),
                    language: Language::Native,
                    dwarf: false,
                    go_version: None,
                    module: None,
                    module_version: None,
                    vcs_revision: None,
                    vcs_modified: None,
                    settings: Default::default(),
                },
                container: None,
                labels: Default::default(),
                refused: Some("owned by another user".into()),
            },
        ],
    }
}

fn tracepoint() -> Tracepoint {
    Tracepoint {
        id: TracepointId::new("t-1").unwrap(),
        location: Location::Line { file: "cart/cart.go".into(), line: 42 },
        selector: Selector::parse("host=web-*,service=cart").unwrap(),
        condition: Some("qty > 2".into()),
        hit_condition: Some(HitCondition::Every { n: 10 }),
        log_message: Some("qty={qty}".into()),
        captures: vec!["c.items[0]".into()],
        mode: Mode::Hit,
        limits: CaptureLimits { count: Some(500), ..CaptureLimits::default() },
        source: Default::default(),
    }
}

fn short_tracepoint() -> Tracepoint {
    Tracepoint {
        location: Location::Function {
            name: "main.(*Cart).Add".into(),
            at: riptrace_protocol::location::FunctionPoint::Entry,
        },
        selector: Selector::default(),
        condition: None,
        hit_condition: None,
        log_message: None,
        captures: vec![],
        limits: CaptureLimits { rate_per_s: None, ..CaptureLimits::default() },
        ..tracepoint()
    }
}

fn probe_status() -> ProbeStatus {
    ProbeStatus {
        tracepoint: tracepoint().id,
        process: process(812),
        service: "cart".into(),
        build: build(),
        state: ProbeState::Armed,
        mechanism: Some(Mechanism::Ptrace),
        sites: vec![site()],
        reason: None,
        note: None,
        passages: 130,
        hits: 120,
        dropped: 10,
        unfinished: false,
    }
}

fn status() -> TracepointStatus {
    TracepointStatus {
        tracepoint: tracepoint().id,
        location: tracepoint().location,
        probes: vec![probe_status()],
        ended: None,
    }
}

fn frame_entry() -> FrameEntry {
    FrameEntry {
        build: build(),
        process: key(812),
        pc: Avma(0x4b_0176),
        frames: vec![
            Frame { function: "main.total".into(), file: "/src/shop/cart/total.go".into(), line: 7, inlined: true },
            Frame {
                function: "main.(*Cart).Add".into(),
                file: "/src/shop/cart/cart.go".into(),
                line: 42,
                inlined: false,
            },
        ],
    }
}

fn small_layout() -> Layout {
    Layout {
        build: build(),
        language: Language::Go,
        site: site(),
        moment: riptrace_protocol::layout::Moment::Line,
        variables: vec![Variable {
            name: "qty".into(),
            ty: TypeIndex(0),
            scope: Scope::Argument,
            declared_line: 41,
            root: Root::Whole { offset: 0, bytes: 8 },
        }],
        types: vec![Type { name: "int".into(), bytes: 8, kind: TypeKind::Signed }],
        string_bytes: 256,
        elements: 16,
        depth: 2,
    }
}

/// A layout with every kind of type, root and scope; [`batch`]'s hits fit it.
pub fn layout() -> Layout {
    let ty = |name: &str, bytes, kind| Type { name: name.into(), bytes, kind };
    let field = |name: &str, ty, offset, embedded| Field { name: name.into(), ty: TypeIndex(ty), offset, embedded };
    let variable =
        |name: &str, ty, scope, root| Variable { name: name.into(), ty: TypeIndex(ty), scope, declared_line: 40, root };
    let absent = |name: &str, root| variable(name, 0, Scope::Local, root);
    let enumeration = TypeKind::Enum { signed: true, names: vec![("Red".into(), -1), ("Blue".into(), 2)] };
    Layout {
        variables: vec![
            variable("c", 10, Scope::Argument, Root::Whole { offset: 0, bytes: 8 }),
            variable("names", 7, Scope::Local, Root::Whole { offset: 8, bytes: 24 }),
            variable("err", 11, Scope::Result, Root::Whole { offset: 32, bytes: 16 }),
            variable("len(names)", 0, Scope::Capture, Root::Whole { offset: 48, bytes: 8 }),
            absent("a", Root::Partial { present: "len only".into() }),
            absent("b", Root::Suspect { why: "same place as b.len".into() }),
            absent("d", Root::OptimisedOut),
            absent("e", Root::NotCaptured { why: "over the limit".into() }),
            absent("password", Root::Redacted),
        ],
        types: vec![
            ty("int", 8, TypeKind::Signed),
            ty("uint8", 1, TypeKind::Unsigned),
            ty("float64", 8, TypeKind::Float),
            ty("complex64", 8, TypeKind::Complex),
            ty("bool", 1, TypeKind::Bool),
            ty("unsafe.Pointer", 8, TypeKind::Pointer { to: None }),
            ty("string", 16, TypeKind::GoString),
            ty("[]string", 24, TypeKind::GoSlice { element: TypeIndex(6) }),
            ty("[2]bool", 2, TypeKind::Array { element: TypeIndex(4), count: 2 }),
            ty(
                "main.Cart",
                24,
                TypeKind::Struct { fields: vec![field("Base", 0, 0, true), field("Rate", 2, 8, false)] },
            ),
            ty("*main.Cart", 8, TypeKind::Pointer { to: Some(TypeIndex(9)) }),
            ty("error", 16, TypeKind::Opaque { what: "interface".into() }),
            ty("main.Qty", 8, TypeKind::Alias { to: TypeIndex(0) }),
            ty("Colour", 4, enumeration),
        ],
        ..small_layout()
    }
}

pub fn bare_hit() -> RawHit {
    RawHit {
        number: 0,
        tracepoint: tracepoint().id,
        process: key(812),
        layout: LayoutId([0x5a; 16]),
        time_ns: 1_000_000,
        thread: 815,
        goroutine: None,
        roots: vec![],
        root_states: vec![],
        chunks: vec![],
        stack: vec![],
        stack_end: riptrace_protocol::hit::StackEnd::Whole,
        duration_ns: None,
    }
}

fn hit(number: u64) -> RawHit {
    let word = u64::to_le_bytes;
    let roots = [word(0xc000_1000), word(0xc000_2000), word(2), word(4), [0; 8], [0; 8], word(2)].concat();
    RawHit {
        number,
        layout: layout().id(),
        time_ns: 1_000_000 + number,
        goroutine: Some(34),
        roots,
        root_states: [
            vec![RootState::Captured, RootState::Captured, RootState::Unreadable(Avma(0xdead)), RootState::OverBudget],
            vec![RootState::Absent; 5],
        ]
        .concat(),
        chunks: vec![
            Chunk {
                address: Avma(0xc000_1000),
                wanted_bytes: 24,
                bytes: [word(7), 1.5f64.to_le_bytes()].concat(),
                end: ChunkEnd::Fault,
            },
            Chunk {
                address: Avma(0xc000_2000),
                wanted_bytes: 32,
                bytes: [word(0xc000_3000), word(5), word(0xc000_3000), word(900)].concat(),
                end: ChunkEnd::Complete,
            },
            Chunk { address: Avma(0xc000_3000), wanted_bytes: 900, bytes: b"apple pie".to_vec(), end: ChunkEnd::Limit },
        ],
        stack: vec![Avma(0x4b_0176), Avma(0x4b_2001)],
        stack_end: riptrace_protocol::hit::StackEnd::Bytes(8192),
        duration_ns: None,
        ..bare_hit()
    }
}

pub fn batch() -> Batch {
    let reasons = [
        DropReason::Rate,
        DropReason::Queue,
        DropReason::Bus,
        DropReason::Lost,
        DropReason::Session,
        DropReason::Capture,
        DropReason::Condition,
        DropReason::Sampled,
        DropReason::Stack,
        DropReason::Ring,
    ];
    let raw_drop = |reason| RawDrop { tracepoint: tracepoint().id, process: key(812), reason, count: 120 };
    Batch {
        host: host(),
        incarnation: Incarnation(7),
        number: 3,
        clock_domain: domain(),
        watermark_ns: 1_000_013,
        first_hit: 12,
        hits: vec![hit(12), hit(13)],
        drops: reasons.map(raw_drop).to_vec(),
        frames: vec![frame_entry()],
    }
}

pub fn empty_batch() -> Batch {
    Batch { number: 4, first_hit: 14, hits: vec![], drops: vec![], frames: vec![], ..batch() }
}

pub fn stream_message() -> StreamMessage {
    let ordered = |seq, raw: RawHit, late| OrderedHit {
        seq,
        time_ns: 1_795_000_000_000_123_456,
        uncertainty_ns: 41_000,
        host: host(),
        service: "cart".into(),
        undetermined_with: vec![seq - 1],
        late,
        raw,
    };
    let stream_drop = |process, tracepoint, reason| StreamDrop { host: host(), process, tracepoint, reason, count: 9 };
    StreamMessage {
        session: session(),
        items: vec![
            StreamItem::Layout(Box::new(layout())),
            StreamItem::Frames(vec![StreamFrames {
                process: process(812),
                pc: frame_entry().pc,
                frames: frame_entry().frames,
            }]),
            StreamItem::Hit(Box::new(ordered(12, hit(12), false))),
            StreamItem::Hit(Box::new(ordered(13, hit(13), true))),
            StreamItem::Drop(stream_drop(Some(key(812)), Some(tracepoint().id), DropReason::Rate)),
            StreamItem::Drop(stream_drop(None, None, DropReason::Lost)),
        ],
        resume: Resume {
            next_seq: 14,
            released_ns: 1_795_000_000_000_123_456,
            counted: vec![(tracepoint().id, 13)],
            next_hit: vec![(host(), Incarnation(7), 14)],
            trace_sequence: 88,
            layouts_sent: vec![layout().id()],
        },
    }
}
