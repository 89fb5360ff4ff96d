//! A small fleet for tests: one tracepoint in `/src/shop/cart/cart.go:4`, on two hosts.

use riptrace_protocol::fleet::{
    BuildFacts, FleetView, HostProfile, HostView, Language, Mechanism, ProbeState, ProbeStatus, ProcessFacts,
    SiteFacts, TracepointStatus,
};
use riptrace_protocol::hit::{DropReason, RawHit, RootState};
use riptrace_protocol::ids::{BuildId, HostName, Incarnation, ProcessId, ProcessKey, SessionId, TracepointId};
use riptrace_protocol::layout::{Layout, Root, Scope, Type, TypeIndex, TypeKind, Variable};
use riptrace_protocol::location::Location;
use riptrace_protocol::stream::{OrderedHit, Resume, StreamDrop, StreamItem, StreamMessage};
use riptrace_protocol::time::ClockDomain;

pub(super) const FILE: &str = "cart/cart.go";
pub(super) const TEXT: &str = "package cart\n\nfunc Add(n int) {\n\ttotal += n\n\tsave()\n}\n";

pub(super) fn host(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

pub(super) fn session() -> SessionId {
    SessionId::new("s").unwrap()
}

pub(super) fn tracepoint() -> TracepointId {
    TracepointId::new("t").unwrap()
}

pub(super) fn build() -> BuildFacts {
    BuildFacts {
        id: BuildId("go:abc".into()),
        language: Language::Go,
        dwarf: true,
        go_version: None,
        module: None,
        module_version: None,
        vcs_revision: None,
        vcs_modified: None,
        settings: Default::default(),
    }
}

fn site() -> SiteFacts {
    SiteFacts { function: "main.Add".into(), file: format!("/src/shop/{FILE}"), line: 4 }
}

const KEY: ProcessKey = ProcessKey { pid: 812, start_time: 1 };

pub(super) fn probe(host_name: &str, state: ProbeState, hits: u64) -> ProbeStatus {
    let armed = state == ProbeState::Armed;
    ProbeStatus {
        tracepoint: tracepoint(),
        process: ProcessId { host: host(host_name), key: KEY },
        service: "cart".into(),
        build: build().id,
        state,
        mechanism: armed.then_some(Mechanism::Ptrace),
        sites: if armed { vec![site()] } else { vec![] },
        reason: (!armed).then(|| "no code for line 4".to_owned()),
        note: None,
        passages: hits,
        hits,
        dropped: 0,
        unfinished: false,
    }
}

pub(super) fn fleet(probes: Vec<ProbeStatus>) -> FleetView {
    let host_view = |name| HostView {
        profile: HostProfile {
            host: host(name),
            incarnation: Incarnation(1),
            version: String::new(),
            kernel: String::new(),
            clock_domain: ClockDomain(String::new()),
            labels: Default::default(),
            revision: 1,
            processes: vec![ProcessFacts {
                key: KEY,
                service: "cart".into(),
                exe: String::new(),
                build: build(),
                container: None,
                labels: Default::default(),
                refused: None,
            }],
        },
        alive: true,
        clock_uncertainty_ns: None,
    };
    let location = Location::Line { file: FILE.into(), line: 4 };
    FleetView {
        coordinator: Incarnation(9),
        hosts: vec![host_view("web-1"), host_view("web-2")],
        tracepoints: vec![TracepointStatus { tracepoint: tracepoint(), location, probes, ended: None }],
    }
}

pub(super) fn layout() -> Layout {
    Layout {
        build: build().id,
        language: Language::Go,
        site: site(),
        moment: riptrace_protocol::layout::Moment::Line,
        variables: vec![Variable {
            name: "n".into(),
            ty: TypeIndex(0),
            scope: Scope::Argument,
            declared_line: 3,
            root: Root::Whole { offset: 0, bytes: 8 },
        }],
        types: vec![Type { name: "int".into(), bytes: 8, kind: TypeKind::Signed }],
        string_bytes: 0,
        elements: 0,
        depth: 0,
    }
}

pub(super) fn hit(seq: u64, host_name: &str, n: i64) -> StreamItem {
    StreamItem::Hit(Box::new(OrderedHit {
        seq,
        time_ns: 1_000_000_000 * seq as i64,
        uncertainty_ns: 1_000,
        host: host(host_name),
        service: "cart".into(),
        undetermined_with: vec![],
        late: false,
        raw: RawHit {
            number: seq,
            tracepoint: tracepoint(),
            process: KEY,
            layout: layout().id(),
            time_ns: seq,
            thread: 1,
            goroutine: None,
            roots: n.to_le_bytes().to_vec(),
            root_states: vec![RootState::Captured],
            chunks: vec![],
            stack: vec![],
            stack_end: riptrace_protocol::hit::StackEnd::Whole,
            duration_ns: None,
        },
    }))
}

pub(super) fn dropped(host_name: &str, count: u64) -> StreamItem {
    StreamItem::Drop(StreamDrop {
        host: host(host_name),
        process: Some(KEY),
        tracepoint: Some(tracepoint()),
        reason: DropReason::Rate,
        count,
    })
}

pub(super) fn message(items: Vec<StreamItem>) -> Box<StreamMessage> {
    Box::new(StreamMessage { session: session(), items, resume: Resume::default() })
}
