use super::*;
use proptest::prelude::*;
use riptrace_protocol::hit::RawHit;
use riptrace_protocol::ids::{HostName, LayoutId, ProcessKey, TracepointId};

fn hit(seq: u64, bytes: usize) -> Arc<OrderedHit> {
    Arc::new(OrderedHit {
        seq,
        time_ns: 0,
        uncertainty_ns: 0,
        host: HostName::new("a").unwrap(),
        service: String::new(),
        undetermined_with: Vec::new(),
        late: false,
        raw: RawHit {
            number: seq,
            tracepoint: TracepointId::new("t").unwrap(),
            process: ProcessKey { pid: 1, start_time: 1 },
            layout: LayoutId([0; 16]),
            time_ns: 0,
            thread: 1,
            goroutine: None,
            roots: vec![0; bytes],
            root_states: Vec::new(),
            chunks: Vec::new(),
            stack: Vec::new(),
            stack_truncated: false,
            duration_ns: None,
        },
    })
}

fn seqs<'a>(hits: impl IntoIterator<Item = &'a Arc<OrderedHit>>) -> Vec<u64> {
    hits.into_iter().map(|hit| hit.seq).collect()
}

#[test]
fn the_oldest_hits_make_room_and_are_counted() {
    let mut timeline = Timeline::new(TimelineLimits { hits: 3, bytes: 1 << 20 });
    for seq in 1..=5 {
        let evicted = timeline.push(hit(seq, 0)).unwrap();
        assert_eq!(seqs(&evicted), if seq > 3 { vec![seq - 3] } else { vec![] });
    }
    assert_eq!((seqs(timeline.from(0)), timeline.evicted()), (vec![3, 4, 5], 2));
    assert!(timeline.get(2).is_none() && timeline.get(3).is_some());
}

#[test]
fn one_hit_larger_than_all_memory_is_kept_alone() {
    let mut timeline = Timeline::new(TimelineLimits { hits: 100, bytes: 1000 });
    timeline.push(hit(1, 100)).unwrap();
    let evicted = timeline.push(hit(2, 10_000)).unwrap();
    assert_eq!((seqs(&evicted), seqs(timeline.from(0))), (vec![1], vec![2]));
}

#[test]
fn a_hit_that_is_not_behind_the_newest_is_refused() {
    let mut timeline = Timeline::default();
    assert!(timeline.push(hit(5, 0)).is_some());
    assert!(timeline.push(hit(5, 0)).is_none());
    assert!(timeline.push(hit(4, 0)).is_none());
    assert_eq!(timeline.len(), 1);
}

proptest! {
    #[test]
    fn neighbours_are_those_of_a_plain_list(
        steps in proptest::collection::vec((1u64..4, 0usize..300), 1..60),
        asked in 0u64..120,
        limit in 1usize..20,
    ) {
        let mut timeline = Timeline::new(TimelineLimits { hits: limit, bytes: 8000 });
        let mut all = Vec::new();
        let mut seq = 0;
        for (step, bytes) in steps {
            seq += step;
            timeline.push(hit(seq, bytes)).unwrap();
            all.push(seq);
        }
        let kept = seqs(timeline.from(0));
        prop_assert!(kept.len() <= limit && all.ends_with(&kept));
        prop_assert_eq!(timeline.evicted() as usize, all.len() - kept.len());
        let bytes: usize = timeline.hits.iter().map(|hit| memory_bytes(hit)).sum();
        prop_assert_eq!(timeline.bytes, bytes);
        let odd = |hit: &OrderedHit| hit.seq % 2 == 1;
        let next = timeline.next(asked, odd).map(|hit| hit.seq);
        prop_assert_eq!(next, kept.iter().copied().find(|&seq| seq > asked && seq % 2 == 1));
        let previous = timeline.previous(asked, odd).map(|hit| hit.seq);
        prop_assert_eq!(previous, kept.iter().copied().rev().find(|&seq| seq < asked && seq % 2 == 1));
        prop_assert_eq!(timeline.get(asked).map(|hit| hit.seq), kept.iter().copied().find(|&seq| seq == asked));
    }
}
