//! Properties of the merge rule.

use super::*;
use proptest::prelude::*;

type Out = Vec<(String, u64, i64, bool)>;

fn source(name: &str) -> SourceId {
    SourceId { host: HostName::new(name).unwrap(), incarnation: Incarnation(1) }
}

fn domain(index: usize) -> ClockDomain {
    ClockDomain(format!("domain-{index}"))
}

/// Clocks that are known for certain but for `width` on both sides; each domain is shifted by its index.
fn clocks(width: i64) -> impl Fn(&ClockDomain, u64) -> Option<Interval> {
    move |domain, at_ns| {
        let shift: i64 = domain.0.rsplit('-').next().unwrap().parse::<i64>().unwrap() * 1_000;
        Some(Interval { lo_ns: at_ns as i64 + shift - width, hi_ns: at_ns as i64 + shift + width })
    }
}

fn item(number: u64, domain_ns: u64) -> Item<()> {
    Item { number, domain_ns, arrived_ns: i64::MAX, bytes: 100, payload: () }
}

/// One source's hits, cut into batches; each batch ends with a watermark.
#[derive(Debug, Clone)]
struct Script {
    domain: usize,
    batches: Vec<Vec<u64>>,
}

fn scripts() -> impl Strategy<Value = Vec<Script>> {
    let batches = proptest::collection::vec(proptest::collection::vec(0u64..400, 0..6), 1..8);
    proptest::collection::vec((0usize..3, batches), 1..5).prop_map(|scripts| {
        scripts
            .into_iter()
            .map(|(domain, steps)| {
                let mut now = 10_000;
                let batches = steps
                    .into_iter()
                    .map(|steps| {
                        steps
                            .into_iter()
                            .map(|step| {
                                now += step;
                                now
                            })
                            .collect()
                    })
                    .collect();
                Script { domain, batches }
            })
            .collect()
    })
}

/// Plays the batches in the interleaving that `choices` picks; all sources are known from the start.
fn play(scripts: &[Script], choices: &[usize], width: i64) -> Out {
    let mut merge = Merge::new(0);
    let ids: Vec<SourceId> = (0..scripts.len()).map(|i| source(&format!("h{i}"))).collect();
    ids.iter().for_each(|id| merge.expect(id, 0));
    let mut next = vec![(0usize, 0u64); scripts.len()];
    let mut out = Out::new();
    let mut choices = choices.iter().cycle();
    let mut clock = 0;
    loop {
        let open: Vec<usize> = (0..scripts.len()).filter(|&i| next[i].0 < scripts[i].batches.len()).collect();
        if open.is_empty() {
            break;
        }
        let i = open[choices.next().unwrap() % open.len()];
        let script = &scripts[i];
        let hits = &script.batches[next[i].0];
        next[i].0 += 1;
        clock += 1;
        // The promise: nothing older than the first hit of the next batches.
        let watermark = script.batches[next[i].0..].iter().flatten().next().copied().unwrap_or(1_000_000);
        merge.heard(&ids[i], &domain(script.domain), watermark, clock);
        for &at in hits {
            merge.push(&ids[i], item(next[i].1, at));
            next[i].1 += 1;
        }
        merge.release(clock, clocks(width), |r| out.push((r.source.host.to_string(), r.number, r.time_ns, r.late)));
    }
    merge.release(MERGE_WAIT_MS * MS * 2, clocks(width), |r| {
        out.push((r.source.host.to_string(), r.number, r.time_ns, r.late));
    });
    assert_eq!(merge.held(), 0);
    out
}

proptest! {
    #[test]
    fn any_interleaving_gives_the_same_order(
        scripts in scripts(),
        one in proptest::collection::vec(any::<usize>(), 1..40),
        other in proptest::collection::vec(any::<usize>(), 1..40),
        width in 0i64..2_000,
    ) {
        let first = play(&scripts, &one, width);
        prop_assert_eq!(&first, &play(&scripts, &other, width));
        prop_assert!(first.iter().all(|hit| !hit.3), "nothing is late when every source keeps its promise");
        prop_assert!(first.windows(2).all(|pair| pair[0].2 <= pair[1].2), "released time runs backwards");
        for (i, script) in scripts.iter().enumerate() {
            let own: Vec<u64> = first.iter().filter(|hit| hit.0 == format!("h{i}")).map(|hit| hit.1).collect();
            let all: Vec<u64> = (0..script.batches.iter().flatten().count() as u64).collect();
            prop_assert_eq!(own, all, "each hit of a source exactly once, in its order");
        }
    }

    #[test]
    fn moving_estimates_and_broken_promises_never_break_the_rules(
        steps in proptest::collection::vec((0usize..4, 0u64..3_000, 0u64..4_000, -5_000i64..5_000, 0u64..900), 1..120),
    ) {
        let mut merge = Merge::new(0);
        let mut out: Vec<Released<()>> = Vec::new();
        let (mut now, mut shift) = (0u64, [0i64; 4]);
        let (mut numbers, mut last, mut pushed) = ([0u64; 4], [10_000u64; 4], 0);
        for (i, step, slack, moved, pause_ms) in steps {
            now += pause_ms * MS;
            shift[i] += moved;
            // Sources 0 and 1 share a clock. The watermark may promise too much.
            let name = domain(i / 2);
            last[i] += step;
            merge.heard(&source(&format!("h{i}")), &name, last[i] + slack, now);
            merge.push(&source(&format!("h{i}")), item(numbers[i], last[i]));
            numbers[i] += 1;
            pushed += 1;
            let estimate = |domain: &ClockDomain, at: u64| {
                let index = if domain.0 == "domain-0" { 0 } else { 2 };
                let middle = at as i64 + shift[index];
                Some(Interval { lo_ns: middle - 300, hi_ns: middle + 300 })
            };
            merge.release(now, estimate, |r| out.push(r));
        }
        merge.release(now + 10_000 * MS, clocks(300), |r| out.push(r));
        prop_assert_eq!(out.len(), pushed);
        let mut time = i64::MIN;
        for hit in &out {
            let uncertainty = i64::try_from(hit.uncertainty_ns()).unwrap();
            prop_assert!(hit.time_ns - uncertainty <= hit.interval.lo_ns && hit.interval.hi_ns <= hit.time_ns + uncertainty);
            if !hit.late {
                prop_assert!(hit.time_ns >= time, "time runs backwards without a mark");
                prop_assert!(hit.interval.lo_ns <= hit.time_ns && hit.time_ns <= hit.interval.hi_ns);
                time = hit.time_ns;
            }
        }
        for (i, &count) in numbers.iter().enumerate() {
            let own: Vec<u64> = out.iter().filter(|r| r.source == source(&format!("h{i}"))).map(|r| r.number).collect();
            prop_assert_eq!(own, (0..count).collect::<Vec<u64>>());
        }
    }
}

#[test]
fn a_silent_source_holds_back_for_the_stated_wait_and_no_longer() {
    let mut merge = Merge::new(0);
    let (a, b) = (source("a"), source("b"));
    merge.expect(&b, 0);
    merge.heard(&a, &domain(0), 500, 0);
    merge.push(&a, item(0, 100));
    let mut out = Vec::new();
    merge.release(1, clocks(1), |r| out.push(r.number));
    assert!(out.is_empty());
    assert_eq!(merge.deadline_ns(1), Some(MERGE_WAIT_MS * MS));
    merge.release(MERGE_WAIT_MS * MS - 1, clocks(1), |r| out.push(r.number));
    assert!(out.is_empty());
    merge.release(MERGE_WAIT_MS * MS, clocks(1), |r| out.push(r.number));
    assert_eq!(out, [0]);
}

#[test]
fn what_arrives_after_later_hits_were_shown_is_appended_and_marked() {
    let mut merge = Merge::new(0);
    let (a, b) = (source("a"), source("b"));
    merge.heard(&a, &domain(0), 90_000, 0);
    merge.push(&a, item(0, 80_000));
    let mut out = Vec::new();
    merge.release(1, clocks(10), |r| out.push((r.source.host.to_string(), r.time_ns, r.late)));
    // Another clock, certainly earlier; and the same clock, exactly earlier.
    merge.heard(&b, &domain(1), 90_000, 2);
    merge.push(&b, item(0, 70_000));
    merge.release(2, clocks(10), |r| out.push((r.source.host.to_string(), r.time_ns, r.late)));
    let c = source("c");
    merge.heard(&c, &domain(0), 89_000, 3);
    merge.push(&c, item(0, 79_995));
    merge.release(3, clocks(10), |r| out.push((r.source.host.to_string(), r.time_ns, r.late)));
    // Within the uncertainty of another clock: not late, its time moves within its interval.
    merge.push(&b, item(1, 78_995));
    merge.release(3, clocks(10), |r| out.push((r.source.host.to_string(), r.time_ns, r.late)));
    let expected = [("a", 80_000, false), ("b", 71_000, true), ("c", 79_995, true), ("b", 80_000, false)];
    assert_eq!(out, expected.map(|(host, time, late)| (host.to_owned(), time, late)));
}

#[test]
fn hits_of_an_unknown_clock_wait_for_it_and_are_then_placed_at_their_arrival() {
    let mut merge = Merge::new(0);
    let a = source("a");
    merge.heard(&a, &domain(0), 500, 0);
    merge.push(&a, Item { number: 0, domain_ns: 100, arrived_ns: 5_000, bytes: 1, payload: () });
    let mut out = Vec::new();
    merge.release(1, |_, _| None, |r| out.push(r));
    assert!(out.is_empty());
    merge.heard(&a, &domain(0), 600, MERGE_WAIT_MS * MS);
    merge.release(MERGE_WAIT_MS * MS, |_, _| None, |r| out.push(r));
    assert_eq!((out[0].time_ns, out[0].uncertainty_ns()), (5_000, UNKNOWN_CLOCK_NS as u64));
}

#[test]
fn an_overfull_merge_releases_the_oldest_and_loses_nothing() {
    let mut merge = Merge::new(0);
    let (a, b) = (source("a"), source("b"));
    merge.expect(&b, 0);
    merge.heard(&a, &domain(0), 1, 0);
    for number in 0..10 {
        merge.push(&a, Item { bytes: MERGE_BYTES_MAX / 4, ..item(number, 100 + number) });
    }
    let mut out = Vec::new();
    merge.release(1, clocks(1), |r| out.push(r.number));
    assert_eq!(out, [0, 1, 2, 3, 4, 5]);
    assert_eq!(merge.held(), 4);
}
