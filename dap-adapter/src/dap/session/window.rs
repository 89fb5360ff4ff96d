//! Hits that have made room for newer ones: they are read back from the fleet's own store where a person goes to them.
//!
//! A request that needs them is parked, a window of older hits is asked for, and the request goes on where its search
//! stopped. The window is one stretch of hits without gaps, replaced by each answer; the timeline itself never changes.

use super::super::envelope::Failure;
use super::super::limits::{PARKED_MAX, PAST_ROUNDS_MAX, PAST_WINDOW_HITS};
use super::event::Effect;
use super::motion::Reason;
use super::own::PageArguments;
use super::past::Stations;
use super::state::{Asked, State, Turn};
use super::threads::Who;
use crate::timeline::{Glance, Timeline};
use riptrace_protocol::stream::OrderedHit;
use std::sync::Arc;

/// What is looked for.
#[derive(Debug, Clone)]
pub(super) enum Goal {
    /// A hit that continue and reverse continue go to.
    Station,
    /// A hit of the same goroutine.
    Of(Box<Who>),
}

impl Goal {
    /// Why a hit of this goal is opened.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Goal::Station => Reason::Breakpoint,
            Goal::Of(_) => Reason::Step,
        }
    }
}

/// A request that waits for older hits.
#[derive(Debug)]
pub(super) struct Parked {
    what: What,
    rounds: usize,
    /// The window that it waits for ends in front of this hit.
    before: u64,
}

#[derive(Debug)]
enum What {
    /// A motion that was answered; a `stopped` event ends it.
    Move { goal: Goal, forward: bool, from: u64 },
    /// `riptrace/openHit` and `goto`.
    Open { asked: Asked, seq: u64, reason: Reason },
    /// `riptrace/timelinePage`.
    Page { asked: Asked, arguments: Box<PageArguments>, seq: u64 },
}

/// Older hits, and who waits for them.
#[derive(Debug)]
pub(super) struct Past {
    pub(super) window: Timeline,
    /// Nothing in front of this hit can be read any more.
    floor: u64,
    /// The window that is being read ends in front of this hit.
    asked: Option<u64>,
    parked: Vec<Parked>,
}

impl Default for Past {
    fn default() -> Past {
        Past { window: Timeline::new(PAST_WINDOW), floor: 1, asked: None, parked: Vec::new() }
    }
}

impl Past {
    /// Hits up to this one are not asked for any more: the timeline has begun anew behind it.
    pub(super) fn after(seq: u64) -> Past {
        Past { floor: seq.saturating_add(1), ..Past::default() }
    }
}

const PAST_WINDOW: crate::timeline::TimelineLimits =
    crate::timeline::TimelineLimits { hits: PAST_WINDOW_HITS, bytes: 16 * 1024 * 1024 };

/// Where a search ended.
enum Found {
    Hit(Arc<OrderedHit>),
    /// Nowhere in what is at hand; it goes on in front of (or behind) this hit.
    Beyond(u64),
    /// Nowhere in the hits that a later condition could be asked of.
    Cut,
    Nothing,
}

impl State {
    /// A hit that is not in the timeline any more, if it is in the window.
    pub(super) fn past_hit(&self, seq: u64) -> Option<Arc<OrderedHit>> {
        self.past.window.get(seq)
    }

    /// Whether a hit of this number may be read back.
    pub(super) fn is_readable(&self, seq: u64) -> bool {
        !self.attachment.is_recording
            && self.is_joined()
            && seq >= self.past.floor.max(1)
            && self.timeline.oldest().is_some_and(|oldest| seq < oldest)
    }

    /// Goes to the next or previous hit of a goal; what is to be said where there is none is said by the caller.
    pub(super) fn go(&mut self, turn: &mut Turn<'_>, goal: Goal, forward: bool, from: u64) {
        self.go_round(turn, goal, forward, from, 0);
    }

    fn go_round(&mut self, turn: &mut Turn<'_>, goal: Goal, forward: bool, from: u64, rounds: usize) {
        match self.search(&goal, forward, from) {
            Found::Hit(hit) => self.open_hit(turn, hit, goal.reason()),
            Found::Beyond(from) if rounds < PAST_ROUNDS_MAX && self.past.parked.len() < PARKED_MAX => {
                let before = if forward { from.saturating_add(PAST_WINDOW_HITS as u64) } else { from };
                let what = What::Move { goal, forward, from };
                self.park(turn, Parked { what, rounds: rounds + 1, before });
            }
            Found::Cut => self.say_cut(turn),
            Found::Beyond(from) if forward => match self.search_in(&self.timeline, &goal, true, from) {
                Found::Hit(hit) => self.open_hit(turn, hit, goal.reason()),
                _ => self.found_nothing(turn, &goal, forward),
            },
            Found::Beyond(_) | Found::Nothing => self.found_nothing(turn, &goal, forward),
        }
    }

    /// Searches the window and the timeline, as far as they join.
    fn search(&self, goal: &Goal, forward: bool, from: u64) -> Found {
        let window = &self.past.window;
        let oldest = self.timeline.oldest().unwrap_or(u64::MAX);
        if forward {
            let mut from = from;
            if from.saturating_add(1) < oldest {
                let joins = window.oldest().zip(window.newest_seq());
                match joins.filter(|(first, last)| from.saturating_add(1) >= *first && from < *last) {
                    Some((_, last)) => {
                        match self.search_in(window, goal, true, from) {
                            Found::Nothing => from = last,
                            found => return found,
                        }
                        if last.saturating_add(1) < oldest && self.is_readable(last + 1) {
                            return Found::Beyond(last);
                        }
                    }
                    None if self.is_readable(from.saturating_add(1)) => return Found::Beyond(from),
                    // What was between is gone for good: the search goes on in what is kept.
                    None => {}
                }
            }
            return self.search_in(&self.timeline, goal, true, from);
        }
        let mut from = from;
        if from > oldest {
            match self.search_in(&self.timeline, goal, false, from) {
                Found::Nothing => {}
                found => return found,
            }
            from = oldest;
        }
        if let (Some(first), Some(last)) = (window.oldest(), window.newest_seq())
            && first < from
            && last.saturating_add(1) >= from
        {
            match self.search_in(window, goal, false, from) {
                Found::Nothing => {}
                found => return found,
            }
            from = first;
        }
        if from > 1 && self.is_readable(from - 1) { Found::Beyond(from) } else { Found::Nothing }
    }

    fn search_in(&self, timeline: &Timeline, goal: &Goal, forward: bool, from: u64) -> Found {
        let find = |wanted: &dyn Fn(&Glance<'_>) -> bool| {
            if forward { timeline.next(from, wanted) } else { timeline.previous(from, wanted) }
        };
        match goal {
            Goal::Station => {
                let stations: Stations = self.stations_of(timeline);
                match find(&|hit| self.is_station(&stations, hit)) {
                    Some(hit) => Found::Hit(hit),
                    None if stations.is_cut() => Found::Cut,
                    None => Found::Nothing,
                }
            }
            Goal::Of(who) => {
                // From a hit of its own, a goroutine's next one is known at once.
                if timeline.get(from).is_some_and(|hit| Who::of(&hit) == **who) {
                    return timeline.neighbour(from, forward).map_or(Found::Nothing, Found::Hit);
                }
                let origins = timeline.mark_origins(|origin| *origin == who.origin);
                find(&|hit| hit.runner() == who.runner && hit.is_from(&origins)).map_or(Found::Nothing, Found::Hit)
            }
        }
    }

    /// `riptrace/openHit` and `goto`: the hit is opened, once it is here.
    pub(super) fn open_number(&mut self, turn: &mut Turn<'_>, asked: Asked, seq: u64, reason: Reason) {
        match self.hit(seq) {
            Some(hit) => {
                turn.answer(asked, Ok(None));
                self.open_hit(turn, hit, reason);
            }
            None if self.is_readable(seq) && self.past.parked.len() < PARKED_MAX => {
                // In the middle of its window: steps go to both sides.
                let before = seq.saturating_add(PAST_WINDOW_HITS as u64 / 2);
                self.park(turn, Parked { what: What::Open { asked, seq, reason }, rounds: 1, before });
            }
            None => {
                let failure = self.no_such_hit(seq);
                turn.answer(asked, Err(failure));
            }
        }
    }

    /// `riptrace/timelinePage` of hits that are not in the timeline any more: whether the request waits for them.
    pub(super) fn park_page(
        &mut self,
        turn: &mut Turn<'_>,
        asked: Asked,
        arguments: Box<PageArguments>,
        seq: u64,
    ) -> Result<(), (Asked, Box<PageArguments>)> {
        if self.is_here(seq) || !self.is_readable(seq) || self.past.parked.len() >= PARKED_MAX {
            return Err((asked, arguments));
        }
        let before =
            if arguments.is_forward() { seq.saturating_add(PAST_WINDOW_HITS as u64) } else { seq.saturating_add(1) };
        self.park(turn, Parked { what: What::Page { asked, arguments, seq }, rounds: 1, before });
        Ok(())
    }

    fn park(&mut self, turn: &mut Turn<'_>, parked: Parked) {
        self.past.parked.push(parked);
        self.read_next(turn);
    }

    /// Reads the window of who waits longest, unless one is being read: there is one at a time.
    fn read_next(&mut self, turn: &mut Turn<'_>) {
        let Some(before) = self.past.parked.first().map(|parked| parked.before) else { return };
        if self.past.asked.is_none() {
            self.past.asked = Some(before);
            let oldest = self.timeline.oldest().unwrap_or(u64::MAX);
            let before = before.min(oldest).saturating_sub(self.rows.offset());
            turn.effect(Effect::ReadPast { before, count: PAST_WINDOW_HITS });
        }
    }

    /// Whether a hit is in the timeline or in the window.
    fn is_here(&self, seq: u64) -> bool {
        self.past.window.glance(seq).is_some() || self.timeline.glance(seq).is_some()
    }

    /// Older hits have come.
    pub(super) fn past_read(&mut self, turn: &mut Turn<'_>, before: u64, outcome: Result<Vec<OrderedHit>, String>) {
        let asked_for = self.past.asked.take();
        let parked = std::mem::take(&mut self.past.parked);
        let offset = self.rows.offset();
        let before = before.saturating_add(offset);
        let hits = match outcome {
            Ok(mut hits) => {
                for hit in &mut hits {
                    hit.seq = hit.seq.saturating_add(offset);
                    hit.undetermined_with.iter_mut().for_each(|seq| *seq = seq.saturating_add(offset));
                }
                hits
            }
            Err(why) => {
                for waiting in parked {
                    self.give_up(turn, waiting, &why);
                }
                return;
            }
        };
        if hits.is_empty() {
            self.past.floor = self.past.floor.max(before);
        } else {
            self.past.window.clear();
            for hit in &hits {
                let correlation = self.correlation_hash(hit);
                self.past.window.push(hit, correlation);
            }
        }
        for Parked { what, rounds, before } in parked {
            let is_served = match &what {
                What::Move { .. } => true,
                What::Open { seq, .. } | What::Page { seq, .. } => Some(before) == asked_for || self.is_here(*seq),
            };
            if !is_served {
                // It waits for another window than the one that was read.
                self.past.parked.push(Parked { what, rounds, before });
                continue;
            }
            match what {
                What::Move { goal, forward, from } => {
                    // The store may have let go of the next ones.
                    let gap = self.past.window.oldest().filter(|&first| forward && first > from + 1);
                    self.go_round(turn, goal, forward, gap.map_or(from, |first| first - 1), rounds);
                }
                What::Open { asked, seq, reason } => match self.hit(seq) {
                    Some(hit) => {
                        turn.answer(asked, Ok(None));
                        self.open_hit(turn, hit, reason);
                    }
                    None => {
                        let failure = self.no_such_hit(seq);
                        turn.answer(asked, Err(failure));
                    }
                },
                What::Page { asked, arguments, .. } => {
                    let outcome = self.page(*arguments);
                    turn.answer_raw(asked, outcome.map(Some));
                }
            }
        }
        self.read_next(turn);
    }

    fn give_up(&mut self, turn: &mut Turn<'_>, parked: Parked, why: &str) {
        let failure = || Failure::quiet(format!("older hits cannot be read from the fleet: {why}"));
        match parked.what {
            What::Open { asked, .. } | What::Page { asked, .. } => turn.answer(asked, Err(failure())),
            What::Move { goal, forward, .. } => {
                let text = format!("RipTrace: {}.", failure().message);
                turn.note(super::super::types::OutputEventCategory::Stderr, text);
                self.found_nothing(turn, &goal, forward);
            }
        }
    }

    /// The session ends: nobody waits any more.
    pub(super) fn give_up_past(&mut self, turn: &mut Turn<'_>) {
        for parked in std::mem::take(&mut self.past.parked) {
            if let What::Open { asked, .. } | What::Page { asked, .. } = parked.what {
                turn.answer(asked, Err(Failure::quiet("the session has ended")));
            }
        }
    }
}
