//! Requests and answers as they are on the bus: JSON, checked when it is read and fitted into one message when it is
//! written.

use crate::event::{Answer, Ask};
use bytes::Bytes;
use riptrace_protocol::agent_api::{Attach, Create, CreateReply, LinesGet, LinesReply, ListReply, Remove, Reply};
use riptrace_protocol::batch::FrameEntry;
use riptrace_protocol::fleet::{HostProfile, ProbeStatus};
use riptrace_protocol::ids::{HostName, Incarnation};
use riptrace_protocol::layout::Layout;
use riptrace_protocol::limits::{EXPRESSION_BYTES_MAX, MESSAGE_BYTES_MAX};
use riptrace_protocol::subject;
use riptrace_protocol::tracepoint::Tracepoint;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Header of an answer that tells which process the agent is.
pub(super) const PID_HEADER: &str = "Riptrace-Agent-Pid";
/// Expressions that one tracepoint captures, at most.
const CAPTURES_MAX: usize = 64;
/// Processes that one request names, at most: more than a host can have probes.
const PROCESSES_MAX: usize = crate::state::PROBES_MAX;

/// A kind of request: each has its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Profile,
    Attach,
    Detach,
    Create,
    Remove,
    List,
    Lines,
}

impl Kind {
    pub(super) const ALL: [Kind; 7] =
        [Kind::Profile, Kind::Attach, Kind::Detach, Kind::Create, Kind::Remove, Kind::List, Kind::Lines];

    pub(super) fn subject(self, host: &HostName) -> String {
        match self {
            Kind::Profile => subject::profile_get(host),
            Kind::Attach => subject::attach(host),
            Kind::Detach => subject::detach(host),
            Kind::Create => subject::create_tracepoint(host),
            Kind::Remove => subject::remove_tracepoint(host),
            Kind::List => subject::list_tracepoints(host),
            Kind::Lines => subject::lines(host),
        }
    }

    /// Reads a request. The error names the subject and what is wrong.
    pub(super) fn read(self, host: &HostName, payload: &[u8]) -> Result<Ask, String> {
        let subject = self.subject(host);
        if payload.len() > MESSAGE_BYTES_MAX {
            return Err(format!("{subject}: {} bytes, at most {MESSAGE_BYTES_MAX} are allowed", payload.len()));
        }
        let ask = match self {
            Kind::Profile => json::<Object>(payload).map(|_| Ask::Profile),
            Kind::List => json::<Object>(payload).map(|_| Ask::List),
            Kind::Attach => json::<Attach>(payload).map(|attach| Ask::Attach(attach.process)),
            Kind::Detach => json::<Attach>(payload).map(|attach| Ask::Detach(attach.process)),
            Kind::Lines => json::<LinesGet>(payload).and_then(check_lines).map(Ask::Lines),
            Kind::Remove => json::<Remove>(payload).map(|remove| Ask::Remove(remove.tracepoint)),
            Kind::Create => {
                json::<Create>(payload).and_then(|create| check(create).map(|create| Ask::Create(Box::new(create))))
            }
        };
        ask.map_err(|why| format!("{subject}: {why}"))
    }
}

/// A request without content ([`ProfileGet`], [`List`]): any object, so that a later version may say more.
///
/// [`ProfileGet`]: riptrace_protocol::agent_api::ProfileGet
/// [`List`]: riptrace_protocol::agent_api::List
type Object = BTreeMap<String, serde::de::IgnoredAny>;

/// Nothing at all stands for `{}`: a person who asks by hand need not write it.
fn json<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    let payload = if payload.is_empty() { b"{}".as_slice() } else { payload };
    serde_json::from_slice(payload).map_err(|error| format!("not a valid request: {error}"))
}

fn check(create: Create) -> Result<Create, String> {
    let Tracepoint { condition, captures, .. } = &create.tracepoint;
    if captures.len() > CAPTURES_MAX {
        return Err(format!("{} captures, at most {CAPTURES_MAX} are allowed", captures.len()));
    }
    if create.processes.len() > PROCESSES_MAX {
        return Err(format!("{} processes, at most {PROCESSES_MAX} are allowed", create.processes.len()));
    }
    match condition.iter().chain(captures).find(|expression| expression.len() > EXPRESSION_BYTES_MAX) {
        Some(long) => Err(format!("an expression of {} bytes, at most {EXPRESSION_BYTES_MAX} are allowed", long.len())),
        None => Ok(create),
    }
}

fn check_lines(lines: LinesGet) -> Result<LinesGet, String> {
    let LinesGet { first, last, file, .. } = &lines;
    if *first == 0 || last < first {
        return Err(format!(
            "lines {first} to {last} are no range: lines count from 1, and the last is not before the first"
        ));
    }
    if file.is_empty() || file.len() > EXPRESSION_BYTES_MAX {
        return Err(format!("a file has a name of 1 to {EXPRESSION_BYTES_MAX} bytes"));
    }
    Ok(lines)
}

/// The answer to what could not be read.
pub(super) fn refusal(why: String) -> Bytes {
    encode(&Reply::<()>::Error(why)).unwrap_or_default()
}

/// Writes an answer. What does not fit in one message is cut, least important first, and logged: a coordinator asks
/// again for what it misses.
pub(super) fn write(answer: Answer, incarnation: Incarnation, frames: impl FnOnce(usize) -> Vec<FrameEntry>) -> Bytes {
    let fitted = match answer {
        Answer::Error(why) => return refusal(why),
        Answer::Attach(reply) => encode(&Reply::Ok(reply)),
        Answer::Remove(mut reply) => fit(&mut reply, |reply| shorten(&mut reply.probes)),
        Answer::Lines(mut reply) => fit(&mut reply, |reply: &mut LinesReply| {
            reply.more = true;
            halve(&mut reply.lines)
        }),
        Answer::Profile(mut profile) => fit(&mut profile, |profile: &mut HostProfile| halve(&mut profile.processes)),
        Answer::Create(mut reply) => {
            fit(&mut reply, |reply: &mut CreateReply| shorten(&mut reply.probes) || halve(&mut reply.layouts))
        }
        Answer::List { tracepoints, probes, layouts } => {
            let mut reply = ListReply { incarnation, tracepoints, probes, layouts: owned(layouts), frames: vec![] };
            // Frames fill half of what the rest leaves; the estimate of their size is from above.
            let rest = encode(&Reply::Ok(&reply)).map_or(MESSAGE_BYTES_MAX, |bytes| bytes.len());
            reply.frames = frames(MESSAGE_BYTES_MAX.saturating_sub(rest) / 2);
            fit(&mut reply, |reply: &mut ListReply| {
                halve(&mut reply.frames)
                    || halve(&mut reply.layouts)
                    || shorten(&mut reply.probes)
                    || halve(&mut reply.tracepoints)
            })
        }
    };
    fitted.unwrap_or_else(|bytes| {
        refusal(format!("the answer takes {bytes} bytes, at most {MESSAGE_BYTES_MAX} fit in a message"))
    })
}

fn owned(layouts: Vec<Arc<Layout>>) -> Vec<Layout> {
    layouts.into_iter().map(|layout| (*layout).clone()).collect()
}

/// Writes `Reply::Ok(reply)`, made smaller step by step until it fits.
fn fit<T: Serialize>(reply: &mut T, mut smaller: impl FnMut(&mut T) -> bool) -> Result<Bytes, usize> {
    loop {
        match encode(&Reply::Ok(&*reply)) {
            Err(bytes) if smaller(reply) => tracing::warn!(bytes, "an answer was cut to fit in one message"),
            result => return result,
        }
    }
}

/// The text, or its size when it is too large.
fn encode<T: Serialize>(message: &T) -> Result<Bytes, usize> {
    // Plain data with text keys: JSON takes it.
    let text = serde_json::to_vec(message).map_err(|_| 0_usize)?;
    if text.len() > MESSAGE_BYTES_MAX { Err(text.len()) } else { Ok(Bytes::from(text)) }
}

/// Drops the second half; whether there was one.
fn halve<T>(list: &mut Vec<T>) -> bool {
    let full = !list.is_empty();
    list.truncate(list.len() / 2);
    full
}

/// Leaves the names of all sites but the first of each probe away; whether there were more.
fn shorten(probes: &mut [ProbeStatus]) -> bool {
    let long = probes.iter().any(|probe| probe.sites.len() > 1);
    probes.iter_mut().for_each(|probe| probe.sites.truncate(1));
    long
}

#[cfg(test)]
mod tests {
    use super::*;
    use riptrace_protocol::fleet::{Language, SiteFacts};
    use riptrace_protocol::ids::BuildId;
    use riptrace_protocol::layout::{Type, TypeKind};

    fn host() -> HostName {
        HostName::new("web-1").unwrap()
    }

    #[test]
    fn garbage_is_answered_with_the_subject_and_the_problem() {
        let error = Kind::Create.read(&host(), b"\xff{").unwrap_err();
        assert!(error.starts_with("web-1.debugger.createTracepoint: not a valid request: "), "{error}");
        let error = Kind::Remove.read(&host(), br#"{"tracepoint":"a.b"}"#).unwrap_err();
        assert!(error.contains("tracepoint id \"a.b\" is not a name"), "{error}");
        let error = Kind::Attach.read(&host(), b"").unwrap_err();
        assert!(error.contains("missing field `process`"), "{error}");
        let error = Kind::List.read(&host(), &vec![b' '; MESSAGE_BYTES_MAX + 1]).unwrap_err();
        assert!(error.contains("bytes, at most"), "{error}");
        assert!(Kind::Profile.read(&host(), "[".repeat(100_000).as_bytes()).is_err());
        assert!(Kind::Profile.read(&host(), b"[]").is_err());
        assert_eq!(Kind::Profile.read(&host(), b""), Ok(Ask::Profile));
        assert_eq!(Kind::List.read(&host(), b"{}"), Ok(Ask::List));
        let reply: Reply<()> = serde_json::from_slice(&refusal("why".into())).unwrap();
        assert_eq!(reply, Reply::Error("why".into()));
    }

    #[test]
    fn a_tracepoint_with_too_long_an_expression_is_refused() {
        let create = |condition: &str| {
            format!(
                r#"{{"tracepoint":{{"id":"t","location":{{"kind":"function","name":"main.f"}},"condition":"{condition}"}},"processes":[]}}"#
            )
        };
        assert!(Kind::Create.read(&host(), create("x > 1").as_bytes()).is_ok());
        let error = Kind::Create.read(&host(), create(&"x".repeat(5_000)).as_bytes()).unwrap_err();
        assert!(error.contains("an expression of 5000 bytes"), "{error}");
    }

    #[test]
    fn an_answer_that_is_too_large_is_cut_to_one_message() {
        let ty = Type { name: "T".repeat(1_000), bytes: 8, kind: TypeKind::Signed };
        let layout = |line| Layout {
            build: BuildId("go:a".into()),
            language: Language::Go,
            site: SiteFacts { function: "main.f".into(), file: "a.go".into(), line },
            moment: riptrace_protocol::layout::Moment::Line,
            variables: vec![],
            types: vec![ty.clone(); 100],
            string_bytes: 0,
            elements: 0,
            depth: 0,
        };
        let reply = CreateReply { probes: vec![], layouts: (0..20).map(layout).collect() };
        let bytes = write(Answer::Create(reply), Incarnation(1), |_| vec![]);
        assert!(bytes.len() <= MESSAGE_BYTES_MAX);
        let reply: Reply<CreateReply> = serde_json::from_slice(&bytes).unwrap();
        assert!(matches!(reply, Reply::Ok(reply) if reply.layouts.len() == 5), "twice halved");
    }
}
