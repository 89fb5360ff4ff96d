//! Budgets: how many hits a probe may leave per second, and how much of a CPU the probes of one process may take. Pure.
//!
//! ```text
//!           over its hits per second                 the process is over its share of a CPU
//! probe     passages are counted, not captured        the costliest probe is thinned: 1 of 2, 4, .. passages
//!                                                     that does not help: it is switched off, and says why
//! ```
//!
//! What a passage costs is not measured but estimated, from its mechanism and from what it copied: measuring would cost
//! more than the passage. The estimates are medians of `riptrace bench probe`, rounded up; a figure shown to a person
//! says "about".

use riptrace_protocol::fleet::Mechanism;

/// Estimated cost of a passage through a jump that leaves nothing behind: save, test, count.
const JUMP_NS: u64 = 8;
/// What a trap costs more: the kernel's way to the handler and back.
const TRAP_NS: u64 = 2_600;
/// What a record costs more: reservation, time stamp, header.
const RECORD_NS: u64 = 30;
/// What each byte of a record costs more, in picoseconds.
const BYTE_PS: u64 = 100;
/// Largest thinning: one passage of a thousand.
const SHIFT_MAX: u32 = 10;
/// So many looks in a row over the share, with thinning of no more help, switch a probe off: a burst does not.
const STRIKES: u32 = 4;
/// So many looks in a row far below the share make thinning coarser by one step.
const CALM: u32 = 8;

/// What the reader of one process may take of each of the host's CPUs, in percent of it, over time. More is of no use where
/// it matters: a process that leaves more than this can read keeps its CPUs busy by itself, and the reader would take them
/// from it.
const READER_PERCENT_PER_CPU: u64 = 5;
/// The least that the reader of one process may take, in percent of a CPU.
const READER_PERCENT_MIN: u64 = 10;
/// The reader may take so much at once, in nanoseconds of processor time: a burst of some hundred thousand hits.
const READER_BURST_NS: i64 = 100_000_000;
/// What it took too much is remembered up to here, in nanoseconds of processor time: who waits for it is answered.
const READER_DEBT_NS: i64 = 100_000_000;

/// What a reader may take of the host's processor time.
#[derive(Debug, Clone)]
pub(super) struct Effort {
    percent: u64,
    /// What it may take now; below zero it has to rest.
    credit_ns: i64,
    seen_ns: u64,
}

impl Effort {
    /// On a host of so many CPUs.
    pub(super) fn new(cpus: usize, now_ns: u64) -> Effort {
        let percent = (READER_PERCENT_PER_CPU * cpus as u64).clamp(READER_PERCENT_MIN, 100);
        Effort { percent, credit_ns: READER_BURST_NS, seen_ns: now_ns }
    }

    /// It took so much processor time. For how long, in nanoseconds, is it to rest?
    pub(super) fn took(&mut self, now_ns: u64, cpu_ns: u64) -> u64 {
        // What fills in longer than ten seconds is full.
        let passed_ns = now_ns.saturating_sub(self.seen_ns).min(10_000_000_000);
        self.seen_ns = self.seen_ns.max(now_ns);
        let given_ns = (passed_ns * self.percent / 100) as i64;
        let taken_ns = cpu_ns.min(i64::MAX as u64 / 2) as i64;
        self.credit_ns = (self.credit_ns + given_ns - taken_ns).clamp(-READER_DEBT_NS, READER_BURST_NS);
        self.credit_ns.min(0).unsigned_abs() * 100 / self.percent
    }
}

/// The budget of hits per second: what fills up by time. The process takes from it, one token a hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tokens {
    per_s: u64,
    /// Billionths of a token that are not given yet.
    nano_tokens: u64,
    filled_ns: u64,
}

const TOKEN: u64 = 1_000_000_000;

impl Tokens {
    /// A budget that begins with one second's worth, which is also the most that it holds.
    pub(super) fn new(per_s: u32, now_ns: u64) -> Tokens {
        Tokens { per_s: u64::from(per_s), nano_tokens: 0, filled_ns: now_ns }
    }

    /// The most that it holds.
    pub(super) fn most(&self) -> i64 {
        self.per_s as i64
    }

    /// How many tokens are to be added to the `left` ones, given that time went on to `now_ns`.
    pub(super) fn refill(&mut self, now_ns: u64, left: i64) -> i64 {
        // What fills in more than a second is full.
        let passed_ns = now_ns.saturating_sub(self.filled_ns).min(1_000_000_000);
        self.filled_ns = self.filled_ns.max(now_ns);
        self.nano_tokens += passed_ns * self.per_s;
        let whole = (self.nano_tokens / TOKEN) as i64;
        self.nano_tokens %= TOKEN;
        // Threads that took one at the same time may have left less than none.
        whole.min(self.most().saturating_sub(left)).max(0)
    }
}

/// What the passages of one probe were since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Passages that left no record.
    pub(super) passed: u64,
    /// Records.
    pub(super) records: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

impl Usage {
    fn passages(self) -> u64 {
        self.passed + self.records
    }

    fn record_ns(self) -> u64 {
        self.records * RECORD_NS + self.bytes * BYTE_PS / 1000
    }

    /// Estimated processor time of the process, in nanoseconds.
    pub(super) fn cost_ns(self, mechanism: Mechanism) -> u64 {
        let each = match mechanism {
            Mechanism::Jump => JUMP_NS,
            Mechanism::Trap | Mechanism::Ptrace => JUMP_NS + TRAP_NS,
        };
        self.passages() * each + self.record_ns()
    }
}

/// What is to be done about a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Keep,
    /// Capture one passage of `2^shift`; 0: all.
    Thin {
        /// The exponent.
        shift: u32,
        /// For a person.
        why: String,
    },
    /// Switch it off for good.
    Off {
        /// For a person.
        why: String,
    },
}

/// One probe at a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Looked {
    /// Its costliest mechanism.
    pub(super) mechanism: Mechanism,
    /// Its thinning now.
    pub(super) shift: u32,
    /// What it did since the last look.
    pub(super) usage: Usage,
}

/// The share of a CPU that the probes of one process may take.
#[derive(Debug, Clone)]
pub(super) struct Share {
    /// In percent of one CPU.
    percent: u32,
    strikes: u32,
    calm: u32,
}

impl Share {
    /// A share in percent of one CPU.
    pub(super) fn new(percent: u32) -> Share {
        Share { percent, strikes: 0, calm: 0 }
    }

    /// Looks at all live probes of a process, `passed_ns` after the last look, and decides about each, in their order.
    /// At most one of them is thinned further or switched off at a time: the costliest.
    pub(super) fn look(&mut self, passed_ns: u64, probes: &[Looked]) -> Vec<Verdict> {
        let mut verdicts = vec![Verdict::Keep; probes.len()];
        if passed_ns == 0 {
            return verdicts;
        }
        let cost = |probe: &Looked| probe.usage.cost_ns(probe.mechanism);
        let total_ns: u64 = probes.iter().map(cost).sum();
        let allowed_ns = passed_ns / 100 * u64::from(self.percent);
        if total_ns <= allowed_ns {
            self.strikes = 0;
            self.relax(total_ns, allowed_ns, probes, &mut verdicts);
            return verdicts;
        }
        self.calm = 0;
        let Some((worst, probe)) = probes.iter().enumerate().max_by_key(|(_, probe)| cost(probe)) else {
            return verdicts;
        };
        let cost_ns = cost(probe);
        let record_ns = probe.usage.record_ns();
        let over_ns = total_ns - allowed_ns;
        // Thinning saves record time only. It is worth a try where that is what is too much, or most of it.
        if probe.shift < SHIFT_MAX && record_ns * 2 > over_ns {
            let mut shift = probe.shift;
            let mut left_ns = record_ns;
            while shift < SHIFT_MAX && record_ns - left_ns < over_ns && left_ns > 0 {
                shift += 1;
                left_ns /= 2;
            }
            verdicts[worst] = Verdict::Thin { shift, why: self.thinned(shift, passed_ns, cost_ns, probe.usage) };
            return verdicts;
        }
        self.strikes += 1;
        if self.strikes >= STRIKES {
            // Where one is not enough, the next one follows at the next look.
            self.strikes = STRIKES - 1;
            let how = match probe.mechanism {
                Mechanism::Jump => "",
                Mechanism::Trap | Mechanism::Ptrace => " as traps",
            };
            let why = format!(
                "switched off: its {} passages/s took about {} % of a CPU{how}, of the {} % that tracing may take in one \
                 process; choose a place that is passed less, or raise the agent's --cpu-share",
                per_second(probe.usage.passages(), passed_ns),
                percent(cost_ns, passed_ns),
                self.percent
            );
            verdicts[worst] = Verdict::Off { why };
        }
        verdicts
    }

    fn thinned(&self, shift: u32, passed_ns: u64, cost_ns: u64, usage: Usage) -> String {
        format!(
            "sampling 1/{}: {} passages/s took about {} % of a CPU, of the {} % that tracing may take in one process",
            1u64 << shift,
            per_second(usage.passages(), passed_ns),
            percent(cost_ns, passed_ns),
            self.percent
        )
    }

    /// After a time far below the share, one thinned probe records twice as much.
    fn relax(&mut self, total_ns: u64, allowed_ns: u64, probes: &[Looked], verdicts: &mut [Verdict]) {
        let thinned = (probes.iter().enumerate())
            .filter(|(_, probe)| probe.shift > 0 && total_ns + probe.usage.record_ns() < allowed_ns / 2)
            .max_by_key(|(_, probe)| probe.shift);
        let Some((at, probe)) = thinned else {
            self.calm = 0;
            return;
        };
        self.calm += 1;
        if self.calm >= CALM {
            self.calm = 0;
            let shift = probe.shift - 1;
            let why = if shift == 0 { String::new() } else { format!("sampling 1/{}", 1u64 << shift) };
            verdicts[at] = Verdict::Thin { shift, why };
        }
    }
}

fn per_second(count: u64, passed_ns: u64) -> String {
    let per_s = (u128::from(count) * 1_000_000_000 / u128::from(passed_ns.max(1))) as u64;
    match per_s {
        0..10_000 => per_s.to_string(),
        10_000..10_000_000 => format!("{} k", per_s / 1_000),
        _ => format!("{} M", per_s / 1_000_000),
    }
}

fn percent(cost_ns: u64, passed_ns: u64) -> u64 {
    (u128::from(cost_ns) * 100 / u128::from(passed_ns.max(1))) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn tokens_come_with_time_and_no_more_than_a_second_of_them() {
        let mut tokens = Tokens::new(10, 5 * SECOND);
        assert_eq!(tokens.most(), 10);
        assert_eq!(tokens.refill(5 * SECOND + 50_000_000, 0), 0, "half a token");
        assert_eq!(tokens.refill(5 * SECOND + 150_000_000, 0), 1);
        assert_eq!(tokens.refill(5 * SECOND + 200_000_000, 0), 1, "no fraction is lost");
        assert_eq!(tokens.refill(100 * SECOND, 3), 7, "full");
        assert_eq!(tokens.refill(101 * SECOND, -2), 10, "what was taken too much is not given again");
        assert_eq!(tokens.refill(SECOND, 0), 0, "a clock that goes back fills nothing");
        assert_eq!(tokens.refill(102 * SECOND, 15), 0);
        assert_eq!(Tokens::new(0, 0).refill(9 * SECOND, 0), 0);
        assert!(Tokens::new(u32::MAX, 0).refill(u64::MAX, i64::MIN) > 0);
    }

    proptest! {
        #[test]
        fn over_any_time_there_are_no_more_hits_than_the_budget(
            per_s in 0u32..5_000,
            steps in prop::collection::vec((0u64..300_000_000, 0i64..400), 1..80),
        ) {
            let mut tokens = Tokens::new(per_s, 0);
            let (mut left, mut now, mut taken) = (tokens.most(), 0u64, 0i64);
            for (step, wants) in steps {
                now += step;
                left += tokens.refill(now, left);
                prop_assert!(left <= tokens.most());
                let takes = wants.min(left.max(0));
                left -= takes;
                taken += takes;
                let most = i64::from(per_s) + (now / 1000 * u64::from(per_s) / 1_000_000) as i64 + 1;
                prop_assert!(taken <= most, "{taken} of {most}");
            }
        }
    }

    fn jump(shift: u32, passed: u64, records: u64) -> Looked {
        Looked { mechanism: Mechanism::Jump, shift, usage: Usage { passed, records, bytes: records * 200 } }
    }

    #[test]
    fn within_its_share_nothing_happens() {
        let mut share = Share::new(5);
        for _ in 0..50 {
            assert_eq!(
                share.look(SECOND, &[jump(0, 1_000_000, 10_000), jump(0, 0, 0)]),
                [Verdict::Keep, Verdict::Keep]
            );
        }
        assert_eq!(share.look(0, &[jump(0, 1 << 40, 0)]), [Verdict::Keep], "no time, no rate");
    }

    #[test]
    fn the_costliest_probe_is_thinned_until_the_share_holds() {
        let mut share = Share::new(5);
        // 4 M records/s of 200 bytes at about 58 ns: 23 % of a CPU.
        let [Verdict::Keep, Verdict::Thin { shift, why }] =
            &share.look(SECOND, &[jump(0, 0, 1_000), jump(0, 0, 4_000_000)])[..]
        else {
            panic!("it is to be thinned")
        };
        let start = format!("sampling 1/{}: 4000 k passages/s took about 23 % of a CPU, of the 5 %", 1 << shift);
        assert!(why.starts_with(&start), "{why}");
        let records = 4_000_000 >> shift;
        assert_eq!(
            share.look(SECOND, &[jump(0, 0, 1_000), jump(*shift, 4_000_000 - records, records)])[1],
            Verdict::Keep
        );
    }

    #[test]
    fn what_thinning_does_not_help_is_switched_off_after_a_while() {
        let mut share = Share::new(5);
        let trap = Looked {
            mechanism: Mechanism::Trap,
            shift: 0,
            usage: Usage { passed: 40_000, records: 100, bytes: 20_000 },
        };
        for _ in 1..STRIKES {
            assert_eq!(share.look(SECOND, &[trap]), [Verdict::Keep]);
        }
        let [Verdict::Off { why }] = &share.look(SECOND, &[trap])[..] else { panic!("it is to be off") };
        assert!(why.contains("40 k passages/s") && why.contains("10 % of a CPU as traps"), "{why}");
        // One was not enough: the next one follows at once.
        assert!(matches!(&share.look(SECOND, &[trap])[..], [Verdict::Off { .. }]));
        assert_eq!(share.look(SECOND, &[]), []);
        assert_eq!(share.look(SECOND, &[trap]), [Verdict::Keep], "and then there is patience again");
        // A burst is not enough.
        let mut share = Share::new(5);
        for _ in 0..20 {
            assert_eq!(share.look(SECOND, &[trap]), [Verdict::Keep]);
            assert_eq!(share.look(SECOND, &[jump(0, 5, 5)]), [Verdict::Keep]);
        }
    }

    #[test]
    fn thinning_ends_when_there_is_less_to_capture() {
        let mut share = Share::new(5);
        let mut shift = 4;
        for _ in 0..4 * CALM {
            if let [Verdict::Thin { shift: next, .. }] = &share.look(SECOND, &[jump(shift, 1_000, 100)])[..] {
                assert_eq!(*next, shift - 1);
                shift = *next;
            }
        }
        assert_eq!(shift, 0);
    }

    #[test]
    fn a_reader_takes_a_burst_and_then_its_share() {
        // Two CPUs: 10 % of one.
        let mut effort = Effort::new(2, 0);
        assert_eq!(effort.took(0, 90_000_000), 0, "a burst");
        let rest_ns = effort.took(10_000_000, 31_000_000);
        assert_eq!(rest_ns, 200_000_000, "20 ms too much, of which 10 % is given back at a time");
        assert_eq!(effort.took(10_000_000 + rest_ns, 0), 0);
        // At work whenever it may be, for ten seconds of passes that take 5 ms each.
        let (mut now_ns, mut taken_ns) = (0u64, 0u64);
        let mut effort = Effort::new(2, 0);
        while now_ns < 10_000_000_000 {
            now_ns += 5_000_000;
            taken_ns += 5_000_000;
            now_ns += effort.took(now_ns, 5_000_000);
        }
        assert!((1_000_000_000..1_150_000_000).contains(&taken_ns), "{taken_ns}");
        assert!(effort.took(now_ns, u64::MAX) <= 1_000_000_000, "whoever waits is answered");
        assert_eq!(Effort::new(64, 0).percent, 100);
    }

    proptest! {
        /// Whatever a probe does, its cost comes down to the share, or it is switched off, within a bounded time.
        #[test]
        fn no_probe_stays_over_the_share(rate in 0u64..60_000_000, bytes in 0u64..9_000, traps in any::<bool>(), percent in 1u32..50) {
            let mut share = Share::new(percent);
            let mechanism = if traps { Mechanism::Trap } else { Mechanism::Jump };
            let (mut shift, mut off) = (0, false);
            let cost = |shift: u32, off: bool| {
                let records = if off { 0 } else { rate >> shift };
                let usage = Usage { passed: if off { 0 } else { rate - records }, records, bytes: records * bytes };
                (usage, usage.cost_ns(mechanism))
            };
            for _ in 0..SHIFT_MAX + STRIKES + 2 {
                let usage = cost(shift, off).0;
                match &share.look(SECOND, &[Looked { mechanism, shift, usage }])[0] {
                    Verdict::Keep => {}
                    Verdict::Thin { shift: next, .. } => shift = *next,
                    Verdict::Off { .. } => off = true,
                }
            }
            prop_assert!(cost(shift, off).1 <= SECOND / 100 * u64::from(percent), "1/2^{shift} {off}");
        }
    }
}
