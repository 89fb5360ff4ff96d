//! The demo's story: what a person does in an editor, and what the editor shows.

use super::editor::Editor;
use super::hosts::{Fleet, Hosts};
use super::shop::{Build, Shop, Spot};
use crate::failure::Failure;
use crate::output;
use serde_json::{Value, json};

/// Orders that are sent while the line is traced: enough to see an order among them, few enough to read.
const ORDERS: u32 = 3;

/// What is set before the orders are sent.
struct Point {
    spot: Spot,
    /// Message of a logpoint; `None` for a breakpoint.
    message: Option<&'static str>,
}

/// One paused hit, as the editor shows it.
#[derive(Debug, PartialEq)]
struct Paused {
    title: String,
    frames: Vec<String>,
    variables: Vec<String>,
}

/// Tells the story; fails when an expected hit is missing.
pub(super) async fn run(nats: &str, build: &Build, hosts: &Hosts, shop: &Shop, fleet: &Fleet) -> Result<(), Failure> {
    let points = [
        Point {
            spot: build.spot("cmd/gateway/main.go", "gateway-checkout")?,
            message: Some("order {requestID} of {customer}"),
        },
        Point { spot: build.spot("cart/cart.go", "cart-add")?, message: None },
        Point { spot: build.spot("pricing/pricing.go", "price-quote")?, message: Some("quote of {quote.Total} cents") },
    ];

    let mut editor = Editor::start()?;
    arm(&mut editor, nats, build, &points).await?;
    let summary = shop.buy(ORDERS).await?;
    let lines = summary["lines"].as_u64().unwrap_or(0);
    say(&format!("shop     {ORDERS} orders with {lines} lines between them; every answer was right"))?;
    let expected = [("gateway", u64::from(ORDERS)), ("cart", lines), ("pricing", u64::from(ORDERS))];
    read_rows(&mut editor, expected).await?;
    step_back_and_forth(&mut editor).await?;
    editor.disconnect().await?;

    fleet.wait_for("the probes to be taken out", |view| view.tracepoints.is_empty()).await?;
    let after = shop.buy(ORDERS).await?;
    say(&format!(
        "editor   disconnected; every probe is out, and {} more orders were answered right, on {} hosts",
        after["requests"],
        hosts.names().len()
    ))
}

fn say(text: &str) -> Result<(), Failure> {
    output::line(text).map_err(|e| Failure::Failed(format!("nobody reads the demo: {e}")))
}

async fn arm(editor: &mut Editor, nats: &str, build: &Build, points: &[Point]) -> Result<(), Failure> {
    let client = json!({
        "clientID": "riptrace-demo", "adapterID": "riptrace", "linesStartAt1": true, "columnsStartAt1": true,
        "pathFormat": "path", "supportsVariableType": true, "supportsVariablePaging": true,
    });
    editor.request("initialize", client).await?;
    let attach = json!({"nats": nats, "cwd": build.checkout, "stopOnHit": true});
    let attached = editor.send("attach", attach).await?;
    editor.event("initialized", |_| true).await?;
    for point in points {
        let mut breakpoint = json!({"line": point.spot.line});
        let kind = match point.message {
            Some(message) => {
                breakpoint["logMessage"] = message.into();
                format!("logpoint    \"{message}\"")
            }
            None => "breakpoint".to_owned(),
        };
        let set = json!({"source": {"path": point.spot.path}, "breakpoints": [breakpoint]});
        let answer = editor.request("setBreakpoints", set).await?;
        let mut breakpoint = answer["breakpoints"][0].clone();
        let id = breakpoint["id"].clone();
        while breakpoint["verified"] != true {
            let of_this = |body: &Value| body["breakpoint"]["id"] == id;
            breakpoint = editor.event("breakpoint", of_this).await?["breakpoint"].take();
        }
        let message = breakpoint["message"].as_str().unwrap_or_default();
        say(&format!("editor   {kind}  {}:{}  {message}", point.spot.file, point.spot.line))?;
    }
    editor.request("configurationDone", json!({})).await?;
    editor.response("attach", attached).await?;
    Ok(())
}

/// Prints the rows of the debug console until every expected hit is there.
async fn read_rows(editor: &mut Editor, expected: [(&str, u64); 3]) -> Result<(), Failure> {
    let total: u64 = expected.iter().map(|(_, count)| count).sum();
    let mut seen = [0u64; 3];
    let mut last_seq = 0;
    for _ in 0..total {
        let row = editor.event("output", |body| body["variablesReference"].as_u64().unwrap_or(0) > 0).await;
        let row = row.map_err(|why| Failure::Failed(format!("{why}; hits so far: {seen:?} of {expected:?}")))?;
        let hit = editor.event("riptrace/hit", |_| true).await?;
        let text = row["output"].as_str().unwrap_or_default().trim_end();
        say(&format!("console  {text}   [{}:{}]", row["source"]["name"].as_str().unwrap_or("?"), row["line"]))?;
        let seq = hit["seq"].as_u64().unwrap_or(0);
        if seq <= last_seq {
            return Err(Failure::Failed(format!("hit {seq} came after hit {last_seq}")));
        }
        last_seq = seq;
        match expected.iter().position(|(service, _)| hit["service"] == *service) {
            Some(at) => seen[at] += 1,
            None => return Err(Failure::Failed(format!("a hit that nobody asked for: {hit}"))),
        }
        if last_seq == 1 && hit["service"] != "gateway" {
            return Err(Failure::Failed(format!(
                "an order reaches the gateway first, and this was shown first: {hit}"
            )));
        }
    }
    match expected.iter().zip(seen).find(|((_, count), seen)| count != seen) {
        None => Ok(()),
        Some(((service, count), seen)) => {
            Err(Failure::Failed(format!("{seen} hits in {service}, {count} were expected")))
        }
    }
}

async fn step_back_and_forth(editor: &mut Editor) -> Result<(), Failure> {
    let first = paused(editor, "paused  ").await?;
    let first_quantity = quantity(editor, &first).await?;
    // The first order has one line of one item; see orderFor in the load generator.
    if first_quantity != "1" {
        return Err(Failure::Failed(format!("the first quantity is 1, and {first_quantity:?} was shown")));
    }
    go(editor, "continue").await?;
    let second = paused(editor, "next    ").await?;
    go(editor, "reverseContinue").await?;
    let again = paused(editor, "back    ").await?;
    go(editor, "continue").await?;
    let forth = paused(editor, "forth   ").await?;
    if again.shown != first.shown || forth.shown != second.shown {
        return Err(Failure::Failed("a hit looked different when it was seen again".to_owned()));
    }
    if first.shown == second.shown {
        return Err(Failure::Failed("the step did not move".to_owned()));
    }
    Ok(())
}

/// A paused hit, and where the editor is in it.
struct At {
    shown: Paused,
    thread: Value,
    frame: Value,
}

async fn go(editor: &mut Editor, how: &str) -> Result<(), Failure> {
    // The hits are not the threads' own: any thread moves the timeline.
    let threads = editor.request("threads", json!({})).await?;
    let thread = threads["threads"][0]["id"].clone();
    editor.request(how, json!({"threadId": thread})).await?;
    Ok(())
}

async fn paused(editor: &mut Editor, label: &str) -> Result<At, Failure> {
    let stopped = editor.event("stopped", |_| true).await?;
    let thread = stopped["threadId"].clone();
    let trace = editor.request("stackTrace", json!({"threadId": thread, "startFrame": 0, "levels": 20})).await?;
    let frames: Vec<String> = trace["stackFrames"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|frame| format!("{} {}:{}", text(&frame["name"]), text(&frame["source"]["name"]), frame["line"]))
        .collect();
    let frame = trace["stackFrames"][0]["id"].clone();
    let scopes = editor.request("scopes", json!({"frameId": frame})).await?;
    let mut variables = Vec::new();
    for scope in scopes["scopes"].as_array().into_iter().flatten() {
        let reference = json!({"variablesReference": scope["variablesReference"]});
        let listed = editor.request("variables", reference).await?;
        for variable in listed["variables"].as_array().into_iter().flatten() {
            let (name, value) = (text(&variable["name"]), text(&variable["value"]));
            variables.push(format!("{}: {name} = {value}", text(&scope["name"])));
        }
    }
    let title = text(&stopped["description"]);
    say(&format!("{label} {title}"))?;
    for frame in frames.iter().take(3) {
        say(&format!("           at {frame}"))?;
    }
    // All of the hit's own facts are looked at, and shown when the timeline opens.
    let facts = variables.iter().filter(|variable| label.starts_with("paused") || !variable.starts_with("Hit:"));
    for variable in facts {
        say(&format!("           {variable}"))?;
    }
    Ok(At { shown: Paused { title, frames, variables }, thread, frame })
}

async fn quantity(editor: &mut Editor, at: &At) -> Result<String, Failure> {
    let ask = json!({"expression": "quantity", "frameId": at.frame, "context": "watch"});
    let answer = editor.request("evaluate", ask).await?;
    let value = text(&answer["result"]);
    say(&format!("           watch: quantity = {value}   (thread {})", at.thread))?;
    Ok(value)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
