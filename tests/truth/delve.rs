//! Delve on the same lines: the peer that RipTrace's share of exact values is held against.
//!
//! Where `dlv` is on PATH, a default build of the corpus runs under it once more, with a breakpoint at every marker that
//! RipTrace could compare. What Delve shows there is compared with the truth by the same rules; it marks nothing as partial
//! or suspect, so what it shows and is wrong stays unmarked to who reads it. Lines that it does not pass as often as the
//! program does are left out of both shares.
//!
//! Source: Delve's JSON-RPC API, version 2 (`service/api/types.go`, `service/rpc2/server.go`).

use crate::compare::{self, Compared};
use crate::oracle::{Marker, Truth};
use crate::report::{Outcome, Peer};
use crate::support::fixture::Fixture;
use riptrace_protocol::value::{Scalar, Status, Value};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// One answer takes as long as the program runs to its next stop, on a machine with other work to do.
const ANSWER: Duration = Duration::from_secs(120);
/// `VariableShadowed`: another variable of the name is meant where the line names it.
const SHADOWED: u64 = 2;

/// Where Delve is.
pub(crate) fn found() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("dlv")).find(|file| file.is_file())
}

/// A running `dlv`, and the program under it.
struct Delve {
    process: Child,
    answers: BufReader<TcpStream>,
    stream: TcpStream,
}

impl Drop for Delve {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Delve {
    #[track_caller]
    fn start(dlv: &PathBuf, fixture: &Fixture) -> Delve {
        let mut process = Command::new(dlv)
            .arg("exec")
            .arg(&fixture.program)
            .args(["--headless", "--api-version=2", "--listen=127.0.0.1:0", "--check-go-version=false"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("dlv starts");
        // The program reads both when it gets there.
        process.stdin.take().expect("a pipe").write_all(b"go\nend\n").expect("room in the pipe");
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        let hello = lines.find(|line| line.contains("listening at")).expect("dlv says where it listens");
        // What the program says must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let address = hello.rsplit(' ').next().unwrap_or_default();
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{hello}: {error}"));
        stream.set_read_timeout(Some(ANSWER)).expect("a timeout");
        Delve { process, answers: BufReader::new(stream.try_clone().expect("a descriptor")), stream }
    }

    /// Asks; an error of Delve's is `Err`.
    #[track_caller]
    fn ask(&mut self, method: &str, argument: Json) -> Result<Json, String> {
        let request = json!({"method": format!("RPCServer.{method}"), "params": [argument], "id": 1});
        self.stream.write_all(format!("{request}\n").as_bytes()).expect("dlv reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap_or_else(|error| panic!("{method}: {error}"));
        let mut answer: Json = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{method}: {error}: {line}"));
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer["result"].take()),
        }
    }
}

/// Runs a build under Delve, and compares; `outcomes`: what became of each variable with RipTrace.
#[track_caller]
pub(crate) fn run(
    dlv: &PathBuf,
    fixture: &Fixture,
    truth: &Truth,
    markers: &[&Marker],
    outcomes: &[(String, Outcome)],
) -> Peer {
    let mut delve = Delve::start(dlv, fixture);
    let load = json!({"FollowPointers": true, "MaxVariableRecurse": 4, "MaxStringLen": 1024, "MaxArrayValues": 128,
        "MaxStructFields": -1});
    for marker in markers {
        let filter = format!("truth/{}$", marker.file.replace('.', "\\."));
        let sources = delve.ask("ListSources", json!({"Filter": filter})).expect("its sources");
        let Some(file) = sources["Sources"].as_array().and_then(|files| files.first()).cloned() else { continue };
        // Refused where the line has no code.
        let _ = delve.ask(
            "CreateBreakpoint",
            json!({"Breakpoint": {"name": name_of(marker), "file": file, "line": marker.line, "loadArgs": load,
                "loadLocals": load}}),
        );
    }
    let mut passages: BTreeMap<String, Vec<Vec<Value>>> = BTreeMap::new();
    loop {
        let state = delve.ask("Command", json!({"name": "continue"})).unwrap_or_else(|error| panic!("{error}"));
        if state["State"]["exited"] == true {
            break;
        }
        for thread in state["State"]["Threads"].as_array().into_iter().flatten() {
            let (Some(name), info) = (thread["breakPoint"]["name"].as_str(), &thread["breakPointInfo"]) else {
                continue;
            };
            let lists = [&info["arguments"], &info["locals"]].into_iter().filter_map(Json::as_array).flatten();
            let seen = lists.filter(|it| it["flags"].as_u64().unwrap_or(0) & SHADOWED == 0).map(|it| value(it, None));
            passages.entry(name.to_owned()).or_default().push(seen.collect());
        }
    }
    let mut peer = Peer::default();
    for marker in markers {
        let wanted = &truth.passages[&marker.marker];
        let prefix = format!("{}.", marker.marker);
        let own: Vec<_> = outcomes.iter().filter(|(name, _)| name.starts_with(&prefix)).collect();
        let Some(seen) = passages.get(&name_of(marker)).filter(|seen| seen.len() == wanted.len()) else { continue };
        if own.is_empty() {
            continue;
        }
        peer.lines += 1;
        peer.own_exact += own.iter().filter(|(_, outcome)| *outcome == Outcome::Exact).count();
        peer.variables += own.len();
        for (full, own) in own {
            let name = &full[prefix.len()..];
            let worst = wanted.iter().zip(seen).filter_map(|(truth, values)| {
                let truth = truth.get(name)?;
                let Some(value) = values.iter().find(|value| value.name == *name) else {
                    return Some(Outcome::Withheld("not mentioned".to_owned()));
                };
                let mut compared = Compared::new(marker.cap);
                compare::variable(value, truth, &mut compared);
                if let Some(wrong) = compared.wrong.first() {
                    peer.examples.push(format!("{}: {wrong}", marker.marker));
                }
                Some(compared.outcome(value))
            });
            match worst.max_by_key(Outcome::rank) {
                Some(Outcome::Exact) => {
                    peer.exact += 1;
                    if *own != Outcome::Exact {
                        peer.ahead.push(format!("{full}: {own:?}"));
                    }
                }
                Some(Outcome::Wrong) => peer.wrong += 1,
                _ => {}
            }
        }
    }
    peer
}

/// Delve takes names of letters and digits only.
fn name_of(marker: &Marker) -> String {
    let digits = |c: char| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("x{:x}x", u32::from(c)) };
    format!("m{}", marker.marker.chars().map(digits).collect::<String>())
}

/// A variable of Delve's as a value; `name`: in place of its own.
fn value(it: &Json, name: Option<String>) -> Value {
    let text = |key: &str| it[key].as_str().unwrap_or_default();
    let number = |key: &str| it[key].as_u64().unwrap_or_default();
    let name = name.unwrap_or_else(|| text("name").to_owned());
    let missing =
        |detail: &str| Value::missing(name.clone(), text("type"), Status::NotCaptured { detail: detail.to_owned() });
    if !text("unreadable").is_empty() {
        return missing(text("unreadable"));
    }
    let children = it["children"].as_array().map_or(&[][..], Vec::as_slice);
    let mut made = Value::exact(name.clone(), text("type"), text("value"));
    let is_nil = number("base") == 0;
    let pointee = children.first();
    let target = pointee.and_then(|to| to["addr"].as_u64()).unwrap_or(0);
    let is_cut = |made: &mut Value, wanted: u64| {
        if (made.children.len() as u64) < wanted {
            made.status = Status::Truncated { detail: format!("{} of {wanted}", made.children.len()) };
        }
    };
    // `reflect.Kind`.
    made.scalar = match number("kind") {
        1 => text("value").parse().ok().map(Scalar::Bool),
        2..=12 => {
            // `Name (7)`.
            let digits = text("value").rsplit_once('(').map_or(text("value"), |(_, rest)| rest.trim_end_matches(')'));
            digits.trim().parse().ok().map(Scalar::Int)
        }
        13 => text("value").parse::<f32>().ok().map(|number| Scalar::Float(number.into())),
        14 => text("value").parse::<f64>().ok().map(Scalar::Float),
        15 | 16 => {
            let part = |number: usize| {
                children.get(number).and_then(|part| part["value"].as_str()).unwrap_or_default().to_owned()
            };
            let (real, imaginary) = (part(0), part(1));
            let sign = if imaginary.starts_with(['-', '+']) { "" } else { "+" };
            // As Go prints it: without the sign of a zero that is none.
            made.value = format!("({real}{sign}{imaginary}i)");
            None
        }
        kind @ (17 | 23) => {
            made.children = children.iter().enumerate().map(|(at, it)| value(it, Some(format!("[{at}]")))).collect();
            is_cut(&mut made, number("len"));
            let cap = (kind == 23).then(|| number("cap"));
            Some(Scalar::Sequence { len: number("len"), cap, nil: kind == 23 && is_nil })
        }
        18 => {
            let word = |name: &str| {
                let part = children.iter().find(|part| part["name"] == name);
                part.and_then(|part| part["value"].as_str()?.parse().ok()).unwrap_or(0)
            };
            Some(Scalar::Channel { len: word("qcount"), cap: word("dataqsiz"), nil: children.is_empty() })
        }
        19 => Some(Scalar::Function { nil: is_nil && text("value").is_empty() }),
        20 => {
            let nil = pointee.is_none_or(|held| held["kind"] == 0 && held["addr"] == 0);
            if let Some(held) = pointee.filter(|held| !nil && held["onlyAddr"] != true) {
                made.children.push(value(held, None));
            }
            Some(Scalar::Interface { nil })
        }
        21 => {
            made.children = children
                .chunks_exact(2)
                .map(|pair| Value { key: Some(Box::new(value(&pair[0], None))), ..value(&pair[1], Some("[]".into())) })
                .collect();
            is_cut(&mut made, number("len"));
            Some(Scalar::Map { len: number("len"), nil: is_nil })
        }
        22 => {
            if let Some(to) = pointee.filter(|to| target != 0 && to["onlyAddr"] != true) {
                made.children.push(value(to, None));
            }
            Some(Scalar::Address(target))
        }
        24 => {
            let shown = match it["StringValueBytes"].as_str() {
                Some(encoded) => base64(encoded),
                None => text("value").as_bytes().to_vec(),
            };
            if (shown.len() as u64) < number("len") {
                made.status = Status::Truncated { detail: format!("{} bytes", shown.len()) };
                Some(Scalar::TextPart { shown, len: number("len") })
            } else {
                Some(Scalar::Text(shown))
            }
        }
        25 => {
            made.children = children.iter().map(|it| value(it, None)).collect();
            if (children.len() as u64) < number("len") {
                return missing("it is not loaded");
            }
            None
        }
        26 => Some(Scalar::Address(target)),
        _ => return missing("its kind is not known"),
    };
    made
}

/// Bytes that JSON carries as text (RFC 4648).
fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0u32, 0);
    for digit in text.bytes().filter_map(|byte| DIGITS.iter().position(|&digit| digit == byte)) {
        (bits, count) = (bits << 6 | digit as u32, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}
