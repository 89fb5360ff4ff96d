//! Rounds with and without a probe, by turns, and which of them count: those whose baselines, before and after, were not
//! disturbed. What is looked at is the baseline only, never what is measured. Pure.

use super::figure::median;

/// A baseline that is larger than the quietest one by this factor was disturbed.
const DISTURBED: f64 = 1.25;
/// So many times as many rounds are made, at most, where too few of them are undisturbed.
const MORE: u64 = 4;
/// A spread of the baselines of so many percent is told.
const SPREAD_TOLD_PERCENT: f64 = 15.0;

/// What was measured by turns: a baseline, a round, a baseline, a round, .., a baseline.
#[derive(Debug, Clone, Default)]
pub(super) struct Rounds {
    wanted: u64,
    baselines: Vec<f64>,
    measured: Vec<f64>,
}

impl Rounds {
    /// So many undisturbed rounds are wanted.
    pub(super) fn of(wanted: u64) -> Rounds {
        Rounds { wanted, ..Rounds::default() }
    }

    /// Takes the baseline before the next round, or after the last.
    pub(super) fn baseline(&mut self, value: f64) {
        self.baselines.push(value);
    }

    /// Takes a round.
    pub(super) fn measured(&mut self, value: f64) {
        self.measured.push(value);
    }

    /// Whether enough was measured.
    pub(super) fn is_enough(&self) -> bool {
        let made = self.measured.len() as u64;
        self.undisturbed().len() as u64 >= self.wanted || made >= self.wanted * MORE
    }

    /// Rounds with baseline and what was measured, as far as nothing disturbed them; all, if there are too few of those.
    fn counted(&self) -> Vec<(f64, f64)> {
        let undisturbed = self.undisturbed();
        if undisturbed.len() as u64 * 2 >= self.wanted { undisturbed } else { self.rounds().collect() }
    }

    fn undisturbed(&self) -> Vec<(f64, f64)> {
        let least = self.baselines.iter().copied().fold(f64::INFINITY, f64::min);
        let is_quiet = |pair: &[f64]| pair.iter().all(|baseline| *baseline <= least * DISTURBED);
        self.rounds()
            .zip(self.baselines.windows(2))
            .filter(|(_, pair)| is_quiet(pair))
            .map(|(round, _)| round)
            .collect()
    }

    fn rounds(&self) -> impl Iterator<Item = (f64, f64)> {
        self.baselines.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).zip(self.measured.iter().copied())
    }

    /// The median of what a round was more than its baseline.
    pub(super) fn added(&self) -> f64 {
        median(&self.counted().iter().map(|(baseline, measured)| measured - baseline).collect::<Vec<_>>())
    }

    /// The median of what a round was by its baseline.
    pub(super) fn ratio(&self) -> f64 {
        median(&self.counted().iter().map(|(baseline, measured)| measured / baseline).collect::<Vec<_>>())
    }

    /// The median of the baselines that count.
    pub(super) fn base(&self) -> f64 {
        median(&self.counted().iter().map(|(baseline, _)| *baseline).collect::<Vec<_>>())
    }

    /// From the first to the third quarter of all baselines, in percent of their median.
    fn spread_percent(&self) -> f64 {
        let mut sorted = self.baselines.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |part: usize| sorted.get(sorted.len() * part / 4).copied().unwrap_or(f64::NAN);
        (at(3) - at(1)) / median(&sorted) * 100.0
    }

    /// What a reader has to know of a machine that was busy with something else; empty if it was not.
    pub(super) fn note(&self) -> String {
        let (made, undisturbed) = (self.measured.len(), self.undisturbed().len());
        let spread = self.spread_percent();
        if spread < SPREAD_TOLD_PERCENT && undisturbed == made {
            return String::new();
        }
        format!("; {undisturbed} of {made} rounds undisturbed, the baseline's spread is {spread:.0} %")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(baselines: &[f64], measured: &[f64]) -> Rounds {
        let mut rounds = Rounds::of(2);
        baselines.iter().for_each(|value| rounds.baseline(*value));
        measured.iter().for_each(|value| rounds.measured(*value));
        rounds
    }

    #[test]
    fn a_quiet_machine_needs_no_more_rounds_and_no_note() {
        let rounds = rounds(&[2.0, 2.1, 2.0], &[32.0, 30.05]);
        assert!(rounds.is_enough());
        assert_eq!((rounds.added(), rounds.base(), rounds.note()), (28.975, 2.05, String::new()));
    }

    #[test]
    fn a_round_whose_baseline_was_disturbed_does_not_count_and_is_told() {
        let rounds = rounds(&[2.0, 2.0, 9.0, 2.0, 2.0], &[22.0, 90.0, 90.0, 24.0]);
        assert!(rounds.is_enough());
        assert_eq!((rounds.added(), rounds.ratio()), (21.0, 11.5));
        assert_eq!(rounds.note(), "; 2 of 4 rounds undisturbed, the baseline's spread is 0 %");
    }

    #[test]
    fn a_machine_that_is_never_quiet_is_not_measured_for_ever() {
        let loud: Vec<f64> = (0..9).map(|n| if n % 2 == 0 { 2.0 } else { 6.0 }).collect();
        let rounds = rounds(&loud, &[34.0; 8]);
        assert!(rounds.is_enough(), "after four times as many");
        assert_eq!(rounds.added(), 30.0, "all count");
        assert!(rounds.note().starts_with("; 0 of 8 rounds undisturbed"), "{}", rounds.note());
    }
}
