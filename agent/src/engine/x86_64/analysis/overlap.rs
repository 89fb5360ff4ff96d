//! Several sites of one function: patches never overlap.
//!
//! The earlier armed stays as it is. A later one takes the cheapest patch that touches none of the earlier ones':
//!
//! ```text
//! its bytes are free                              what the site can take alone
//! an earlier site lies within its five bytes      trap: it displaces its own instruction only
//! it lies within an earlier site's patch itself   inside: no patch; the earlier one must be made a trap first
//! ```
//!
//! Two traps never overlap, so making the earlier one a trap always helps. A displaced instruction must be the original
//! one, so "touches" counts the whole of a patch, not just the bytes that the jump changes.

use super::choice::{JUMP_BYTES, Obstacle, SiteChoice};
use super::function::FunctionAnalysis;

/// What one of several sites can take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A patch of its own, or a refusal.
    Own(SiteChoice),
    /// It is one of the instructions that an earlier site's patch displaces. The engine can make that one a trap, by
    /// [`FunctionAnalysis::as_trap`], and ask again.
    Inside {
        /// The earlier site.
        of: u64,
    },
}

/// One of several sites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Its address.
    pub address: u64,
    /// What it can take.
    pub place: Place,
}

impl FunctionAnalysis {
    /// What each of several sites can take, given those before it. `armed`: what is in place already, in the order of
    /// arming, as [`FunctionAnalysis::site`] or this function chose it. The answers are in the order of `sites`; an
    /// address that is armed already or comes twice is answered as the first time.
    pub fn choose_all(&self, armed: &[(u64, SiteChoice)], sites: &[u64]) -> Vec<Placement> {
        let mut taken = Taken::default();
        for (address, choice) in armed {
            taken.add(*address, choice);
        }
        let mut answers: Vec<Placement> = Vec::with_capacity(sites.len());
        for &address in sites {
            let before = armed.iter().find(|(other, _)| *other == address).map(|(_, choice)| choice);
            let place = match before.or_else(|| taken.chosen(&answers, address)) {
                Some(choice) => Place::Own(choice.clone()),
                None => {
                    let place = self.beside(&taken, address);
                    if let Place::Own(choice) = &place
                        && taken.add(address, choice)
                    {
                        taken.answered.insert(address, answers.len());
                    }
                    place
                }
            };
            answers.push(Placement { address, place });
        }
        answers
    }

    /// The trap that a site can take even where it could take a jump; `None` when it can take nothing.
    pub fn as_trap(&self, address: u64, why: Obstacle) -> Option<SiteChoice> {
        match self.site(address) {
            SiteChoice::Jump { patch, .. } | SiteChoice::PunnedJump { patch, .. } => {
                patch.displaced.first().map(|first| SiteChoice::Trap { displaced: *first, why })
            }
            trap @ SiteChoice::Trap { .. } => Some(trap),
            SiteChoice::Refused { .. } => None,
        }
    }

    fn beside(&self, taken: &Taken, address: u64) -> Place {
        if let Some(of) = taken.holder(address) {
            return Place::Inside { of };
        }
        let choice = self.site(address);
        let Some(end) = end(address, &choice) else { return Place::Own(choice) };
        match taken.first_within(address, end) {
            None => Place::Own(choice),
            Some(neighbour) => match self.as_trap(address, Obstacle::Neighbour { at: neighbour }) {
                Some(trap) => Place::Own(trap),
                None => Place::Own(choice),
            },
        }
    }
}

/// First address behind a patch; `None` when there is none.
fn end(address: u64, choice: &SiteChoice) -> Option<u64> {
    match choice {
        SiteChoice::Jump { patch, .. } | SiteChoice::PunnedJump { patch, .. } => {
            Some(address + u64::from(patch.patch_bytes).max(JUMP_BYTES as u64))
        }
        SiteChoice::Trap { displaced, .. } => Some(address + u64::from(displaced.bytes)),
        SiteChoice::Refused { .. } => None,
    }
}

/// Patches by address; none overlap.
#[derive(Default)]
struct Taken {
    ends: std::collections::BTreeMap<u64, u64>,
    answered: std::collections::BTreeMap<u64, usize>,
}

impl Taken {
    /// Whether there is a patch to add.
    fn add(&mut self, address: u64, choice: &SiteChoice) -> bool {
        let end = end(address, choice);
        if let Some(end) = end {
            self.ends.insert(address, end);
        }
        end.is_some()
    }

    fn chosen<'a>(&self, answers: &'a [Placement], address: u64) -> Option<&'a SiteChoice> {
        match &answers.get(*self.answered.get(&address)?)?.place {
            Place::Own(choice) => Some(choice),
            Place::Inside { .. } => None,
        }
    }

    /// The patch that an address is in.
    fn holder(&self, address: u64) -> Option<u64> {
        let (start, end) = self.ends.range(..=address).next_back()?;
        (address < *end).then_some(*start)
    }

    /// The first patch that begins between two addresses.
    fn first_within(&self, start: u64, end: u64) -> Option<u64> {
        self.ends.range(start..end).next().map(|(address, _)| *address)
    }
}
