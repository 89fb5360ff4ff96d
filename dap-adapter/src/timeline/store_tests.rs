use super::*;
use proptest::prelude::*;
use riptrace_protocol::hit::{ChunkEnd, StackEnd};

fn ordered(seq: u64, bytes: usize) -> OrderedHit {
    OrderedHit {
        seq,
        time_ns: seq as i64 * 10,
        uncertainty_ns: seq % 7,
        host: HostName::new(if seq.is_multiple_of(3) { "a" } else { "b" }).unwrap(),
        service: "cart".into(),
        undetermined_with: if seq.is_multiple_of(4) { vec![seq - 1] } else { Vec::new() },
        late: seq.is_multiple_of(9),
        raw: RawHit {
            number: seq,
            tracepoint: TracepointId::new(if seq.is_multiple_of(2) { "even" } else { "odd" }).unwrap(),
            process: ProcessKey { pid: 1, start_time: 1 },
            layout: LayoutId([(seq % 3) as u8; 16]),
            time_ns: seq * 100,
            thread: 1,
            goroutine: (!seq.is_multiple_of(5)).then_some(seq % 6),
            roots: vec![seq as u8; bytes],
            root_states: vec![RootState::Captured, RootState::Unreadable(Avma(seq))],
            chunks: vec![Chunk { address: Avma(seq), wanted_bytes: 4, bytes: vec![1, 2], end: ChunkEnd::Limit }],
            stack: vec![Avma(seq % 2), Avma(0xffff_ffff_0000)],
            stack_end: if seq.is_multiple_of(2) { StackEnd::Bytes(seq as u32) } else { StackEnd::Whole },
            duration_ns: seq.is_multiple_of(2).then_some(seq),
        },
    }
}

fn seqs<'a>(hits: impl IntoIterator<Item = Glance<'a>>) -> Vec<u64> {
    hits.into_iter().map(|hit| hit.seq()).collect()
}

#[test]
fn the_oldest_hits_make_room_and_are_counted() {
    let mut timeline = Timeline::new(TimelineLimits { hits: 3, bytes: 1 << 20 });
    for seq in 1..=5 {
        let evicted = timeline.push(&ordered(seq, 0), 0).unwrap();
        assert_eq!(evicted, if seq > 3 { vec![seq - 3] } else { vec![] });
    }
    assert_eq!((seqs(timeline.from(0)), timeline.evicted()), (vec![3, 4, 5], 2));
    assert!(timeline.get(2).is_none() && timeline.get(3).is_some());
    assert_eq!((timeline.oldest(), timeline.newest_seq()), (Some(3), Some(5)));
}

#[test]
fn one_hit_larger_than_all_memory_is_kept_alone() {
    let mut timeline = Timeline::new(TimelineLimits { hits: 100, bytes: 1000 });
    timeline.push(&ordered(1, 100), 0).unwrap();
    let evicted = timeline.push(&ordered(2, 10_000), 0).unwrap();
    assert_eq!((evicted, seqs(timeline.from(0))), (vec![1], vec![2]));
}

#[test]
fn a_hit_that_is_not_behind_the_newest_is_refused() {
    let mut timeline = Timeline::default();
    assert!(timeline.push(&ordered(5, 0), 0).is_some());
    assert!(timeline.push(&ordered(5, 0), 0).is_none());
    assert!(timeline.push(&ordered(4, 0), 0).is_none());
    assert_eq!(timeline.len(), 1);
}

#[test]
fn what_no_hit_uses_any_more_is_forgotten() {
    let mut timeline = Timeline::new(TimelineLimits { hits: 1, bytes: 1 << 20 });
    for seq in 1..=3000 {
        timeline.push(&ordered(seq, 3), 0).unwrap();
    }
    assert_eq!((timeline.origins.len(), timeline.stacks.len(), timeline.segments.len()), (1, 1, 1));
    assert_eq!(timeline.newest_of.len(), 1);
    assert_eq!(timeline.bytes, timeline.segments[0].hit_bytes(timeline.segments[0].heads.len() - 1));
}

proptest! {
    #[test]
    fn neighbours_are_those_of_a_plain_list_and_hits_come_back_as_they_went_in(
        steps in proptest::collection::vec((1u64..4, 0usize..300), 1..60),
        asked in 0u64..120,
        limit in 1usize..20,
    ) {
        let mut timeline = Timeline::new(TimelineLimits { hits: limit, bytes: 8000 });
        let mut all = Vec::new();
        let mut seq = 0;
        for (step, bytes) in steps {
            seq += step;
            let hit = ordered(seq, bytes);
            timeline.push(&hit, seq).unwrap();
            all.push(hit);
        }
        let kept = seqs(timeline.from(0));
        let expected: Vec<&OrderedHit> = all.iter().skip(all.len() - kept.len()).collect();
        prop_assert!(kept.len() <= limit && timeline.len() == kept.len());
        for (seq, hit) in kept.iter().zip(&expected) {
            let got = timeline.get(*seq).unwrap();
            prop_assert_eq!(got.as_ref(), *hit);
            let glance = timeline.glance(*seq).unwrap();
            prop_assert_eq!((glance.time_ns(), glance.goroutine()), (hit.time_ns, hit.raw.goroutine));
            prop_assert_eq!((glance.origin().cloned(), glance.runner()), (Some(Origin::of(hit)), Runner::of(hit)));
            prop_assert_eq!((glance.tracepoint(), glance.correlation()), (Some(&hit.raw.tracepoint), *seq));
            let is_same = |other: &&&OrderedHit| Origin::of(other) == Origin::of(hit) && Runner::of(other) == Runner::of(hit);
            let after = expected.iter().filter(is_same).map(|other| other.seq).find(|other| other > seq);
            let before = expected.iter().filter(is_same).map(|other| other.seq).rfind(|other| other < seq);
            prop_assert_eq!(timeline.neighbour(*seq, true).map(|hit| hit.seq), after);
            prop_assert_eq!(timeline.neighbour(*seq, false).map(|hit| hit.seq), before);
        }
        prop_assert_eq!(timeline.evicted() as usize, all.len() - kept.len());
        let bytes: usize =
            timeline.segments.iter().map(|s| (0..s.heads.len()).map(|index| s.hit_bytes(index)).sum::<usize>()).sum();
        prop_assert_eq!(timeline.bytes(), bytes);
        let marks = timeline.mark_tracepoints(|id| id.as_str() == "odd");
        let next = timeline.next(asked, |hit| hit.is_of(&marks)).map(|hit| hit.seq);
        prop_assert_eq!(next, kept.iter().copied().find(|&seq| seq > asked && seq % 2 == 1));
        let previous = timeline.previous(asked, |hit| hit.is_of(&marks)).map(|hit| hit.seq);
        prop_assert_eq!(previous, kept.iter().copied().rev().find(|&seq| seq < asked && seq % 2 == 1));
        prop_assert_eq!(timeline.get(asked).map(|hit| hit.seq), kept.iter().copied().find(|&seq| seq == asked));
        let backwards: Vec<u64> = kept.iter().copied().rev().filter(|&seq| seq < asked).collect();
        prop_assert_eq!(seqs(timeline.before(asked)), backwards);
    }
}
