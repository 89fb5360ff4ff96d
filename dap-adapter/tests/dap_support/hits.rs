//! Hits of a small shop, with layouts and frames to read them.

use riptrace_protocol::fleet::{Language, SiteFacts};
use riptrace_protocol::hit::{Chunk, ChunkEnd, Frame, RawHit, RootState};
use riptrace_protocol::ids::{Avma, BuildId, HostName, LayoutId, ProcessId, ProcessKey, TracepointId};
use riptrace_protocol::layout::{Field, Layout, Root, Scope, Type, TypeIndex, TypeKind, Variable};
use riptrace_protocol::stream::{OrderedHit, StreamFrames, StreamItem};

/// 2026-11-23T10:00:00Z in unix nanoseconds.
pub(crate) const TEN_O_CLOCK_NS: i64 = 1_795_428_000_000_000_000;
const SITE: Avma = Avma(0x40_1000);
const CALLER: Avma = Avma(0x40_2000);
const NAMELESS: Avma = Avma(0x40_3000);

/// The layout of `func (c *Cart) Add(sku string, qty int)` at cart.go:42 with a local `prices []int`.
pub(crate) fn layout() -> Layout {
    let ty = |name: &str, bytes, kind| Type { name: name.into(), bytes, kind };
    let variable =
        |name: &str, ty, scope, root| Variable { name: name.into(), ty: TypeIndex(ty), scope, declared_line: 40, root };
    let whole = |offset, bytes| Root::Whole { offset, bytes };
    Layout {
        build: BuildId("go:cart-1".into()),
        language: Language::Go,
        site: SiteFacts { function: "main.(*Cart).Add".into(), file: "/src/shop/cart/cart.go".into(), line: 42 },
        moment: riptrace_protocol::layout::Moment::Line,
        variables: vec![
            variable("qty", 0, Scope::Argument, whole(0, 8)),
            variable("sku", 1, Scope::Argument, whole(8, 16)),
            variable("prices", 2, Scope::Local, whole(24, 24)),
            variable("item", 3, Scope::Local, whole(48, 16)),
            variable("gone", 0, Scope::Local, Root::OptimisedOut),
        ],
        types: vec![
            ty("int", 8, TypeKind::Signed),
            ty("string", 16, TypeKind::GoString),
            ty("[]int", 24, TypeKind::GoSlice { element: TypeIndex(0) }),
            ty(
                "main.Item",
                16,
                TypeKind::Struct {
                    fields: vec![
                        Field { name: "ID".into(), ty: TypeIndex(0), offset: 0, embedded: false },
                        Field { name: "Left".into(), ty: TypeIndex(0), offset: 8, embedded: false },
                    ],
                },
            ),
        ],
        string_bytes: 256,
        elements: 16,
        depth: 2,
    }
}

/// Who makes a hit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Runner {
    pub(crate) host: &'static str,
    pub(crate) pid: u32,
    pub(crate) goroutine: u64,
}

pub(crate) const WEB_1: Runner = Runner { host: "web-1", pid: 812, goroutine: 34 };
pub(crate) const WEB_2: Runner = Runner { host: "web-2", pid: 44, goroutine: 7 };

/// Layout and frames of one process, as the stream sends them in front of its first hit.
pub(crate) fn preamble(runner: Runner) -> Vec<StreamItem> {
    let process = process(runner);
    let frame = |function: &str, file: &str, line, inlined| Frame {
        function: function.into(),
        file: file.into(),
        line,
        inlined,
    };
    let entry = |pc, frames| StreamFrames { process: process.clone(), pc, frames };
    vec![
        StreamItem::Layout(Box::new(layout())),
        StreamItem::Frames(vec![
            entry(SITE, vec![frame("main.(*Cart).Add", "/src/shop/cart/cart.go", 42, false)]),
            entry(
                CALLER,
                vec![
                    frame("main.handle", "/src/shop/cart/cart.go", 90, true),
                    frame("net/http.HandlerFunc.ServeHTTP", "/usr/lib/go/src/net/http/server.go", 2166, false),
                ],
            ),
        ]),
    ]
}

pub(crate) fn process(runner: Runner) -> ProcessId {
    ProcessId { host: HostName::new(runner.host).unwrap(), key: ProcessKey { pid: runner.pid, start_time: 1 } }
}

/// A hit of `Add("tea", qty)`; each is 1 ms and 456 ns after the one before.
pub(crate) fn hit(seq: u64, tracepoint: &TracepointId, runner: Runner, qty: i64) -> StreamItem {
    StreamItem::Hit(Box::new(ordered(seq, tracepoint, runner, qty)))
}

pub(crate) fn ordered(seq: u64, tracepoint: &TracepointId, runner: Runner, qty: i64) -> OrderedHit {
    let mut roots = Vec::new();
    for word in [qty, 0xc000, 3, 0xd000, 4, 8, 17, -1] {
        roots.extend_from_slice(&word.to_le_bytes());
    }
    let prices: Vec<u8> = [10i64, 20, 30, 40].iter().flat_map(|price| price.to_le_bytes()).collect();
    let chunk = |address, bytes: &[u8]| Chunk {
        address: Avma(address),
        wanted_bytes: bytes.len() as u64,
        bytes: bytes.to_vec(),
        end: ChunkEnd::Complete,
    };
    OrderedHit {
        seq,
        time_ns: TEN_O_CLOCK_NS + seq as i64 * 1_000_456,
        uncertainty_ns: 41_000,
        host: HostName::new(runner.host).unwrap(),
        service: "cart".into(),
        undetermined_with: Vec::new(),
        late: false,
        raw: RawHit {
            number: seq,
            tracepoint: tracepoint.clone(),
            process: process(runner).key,
            layout: layout_id(),
            time_ns: seq,
            thread: 815,
            goroutine: Some(runner.goroutine),
            roots,
            root_states: vec![
                RootState::Captured,
                RootState::Captured,
                RootState::Captured,
                RootState::Captured,
                RootState::Absent,
            ],
            chunks: vec![chunk(0xc000, b"tea"), chunk(0xd000, &prices)],
            stack: vec![SITE, CALLER, NAMELESS],
            stack_end: riptrace_protocol::hit::StackEnd::Frames,
            duration_ns: None,
        },
    }
}

fn layout_id() -> LayoutId {
    layout().id()
}
