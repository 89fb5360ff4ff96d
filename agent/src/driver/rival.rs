//! Another agent of the same name that started at the same instant, or on the other side of a network that was apart:
//! the question at the start found neither. Both hear each other's heartbeats, and the one with the larger incarnation
//! gives way.

use riptrace_protocol::agent_api::Heartbeat;
use riptrace_protocol::ids::Incarnation;

/// Heartbeats of one rival that make it one: a single one may be the last word of an agent that was killed.
const HEARTBEATS: u32 = 3;

/// What was heard of others.
#[derive(Debug, Default)]
pub(super) struct Rival {
    heard: Option<(Incarnation, u32)>,
}

impl Rival {
    /// Takes a heartbeat on the host's own subject; whether the agent has to give way.
    pub(super) fn heard(&mut self, own: Incarnation, heartbeat: &Heartbeat) -> bool {
        if heartbeat.incarnation == own || heartbeat.leaving {
            return false;
        }
        let count = match self.heard {
            Some((rival, count)) if rival == heartbeat.incarnation => count + 1,
            Some(_) | None => 1,
        };
        self.heard = Some((heartbeat.incarnation, count));
        count >= HEARTBEATS && own > heartbeat.incarnation
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use riptrace_protocol::ids::HostName;

    fn heartbeat(incarnation: u64, leaving: bool) -> Heartbeat {
        let host = HostName::new("web-1").unwrap();
        let incarnation = Incarnation(incarnation);
        Heartbeat { host, incarnation, profile_revision: 0, probes: vec![], leaving }
    }

    fn gives_way(own: u64, heard: &[Heartbeat]) -> bool {
        let mut rival = Rival::default();
        heard.iter().any(|heartbeat| rival.heard(Incarnation(own), heartbeat))
    }

    #[test]
    fn of_two_agents_exactly_one_gives_way() {
        let (three, five) = (vec![heartbeat(3, false); 4], vec![heartbeat(5, false); 4]);
        assert!(gives_way(5, &three) && !gives_way(3, &five));
    }

    #[test]
    fn the_last_words_of_a_predecessor_are_no_rival() {
        assert!(!gives_way(5, &[heartbeat(3, false), heartbeat(3, false), heartbeat(3, true)]));
        assert!(!gives_way(5, &vec![heartbeat(5, false); 9]));
    }
}
