//! The shop on four hosts: hits in one order, with values; each process says what became of a tracepoint.

use crate::support::{
    LATER, SOON, eventually,
    fleet::{Fleet, FleetOptions},
    process::Program,
    shop::{SERVICES, Shop},
};
use nix::sys::signal::Signal;
use serde_json::Value;

const HOSTS: [&str; 4] = ["h-pricing", "h-stock", "h-cart", "h-gateway"];

/// A fleet of four hosts with networks of their own, each running a service that its agent has found.
fn four_hosts() -> (Fleet, Shop) {
    let fleet = Fleet::start_with(FleetOptions::networked(&HOSTS));
    let shop = Shop::start(&fleet);
    eventually("every agent has found its service", SOON, || {
        let lines = fleet.ps();
        let services: Vec<&str> =
            lines.iter().filter(|line| line["type"] == "process").filter_map(|line| line["service"].as_str()).collect();
        SERVICES.iter().all(|service| services.contains(service)).then_some(())
    });
    (fleet, shop)
}

/// Ends a trace as Ctrl-C does; returns what it printed from here on. The last line is the summary.
pub(crate) fn interrupt(mut trace: Program) -> Vec<Value> {
    trace.signal(Signal::SIGINT);
    let lines = trace.json_to_end(SOON);
    trace.wait_for_code(0, SOON);
    assert_eq!(lines.last().map(|line| line["type"].clone()), Some("summary".into()), "{}", trace.story());
    lines
}

/// Waits until no tracepoint is left in the fleet.
pub(crate) fn nothing_is_traced(fleet: &Fleet) {
    eventually("no probe is left", SOON, || fleet.ps().iter().all(|line| line["type"] != "status").then_some(()));
}

#[test]
fn hits_of_four_hosts_come_in_one_order() {
    let (fleet, mut shop) = four_hosts();
    let markers = ["gateway-checkout", "cart-add", "price-quote", "stock-reserve"];
    let spots = markers.map(|marker| shop.spot(marker).location());
    let arguments: Vec<&str> = spots.iter().map(String::as_str).chain(["--rate", "none"]).collect();
    // Each of the four services is asked for each of the four lines; three of four do not have it.
    let mut trace = fleet.trace(&arguments, 16);

    let orders = 10;
    let summary = shop.buy(orders);
    let lines = summary["lines"].as_u64().expect("lines");
    let expected = u64::from(orders) * 2 + lines * 2;
    let hits: Vec<Value> = (0..expected).map(|_| trace.json_of("hit", SOON)).collect();

    // In one strict order, without gaps, whose times do not run backwards.
    for (hit, seq) in hits.iter().zip(1..) {
        assert_eq!(hit["seq"], seq);
        assert_eq!(hit["late"], false);
    }
    assert!(hits.windows(2).all(|pair| pair[0]["time_ns"].as_i64() <= pair[1]["time_ns"].as_i64()));
    // Orders were sent one by one: the gateway first, then each line into the cart, its quote, its reservations.
    let services: Vec<&str> = hits.iter().map(|hit| hit["service"].as_str().expect("a service")).collect();
    let mut at = 0;
    for order in 0..orders {
        let count = 1 + order as usize % 4;
        assert_eq!(services[at], "gateway", "order {order}: {services:?}");
        assert!(services[at + 1..=at + count].iter().all(|&service| service == "cart"), "order {order}: {services:?}");
        assert_eq!(services[at + count + 1], "pricing", "order {order}: {services:?}");
        at += count + 2;
        assert!(services[at..at + count].iter().all(|&service| service == "stock"), "order {order}: {services:?}");
        at += count;
    }
    for hit in &hits {
        assert_eq!(hit["host"], format!("h-{}", hit["service"].as_str().unwrap()));
        assert!(hit["goroutine"].as_u64().is_some_and(|id| id > 0), "{hit}");
        let facts = &hit["goroutine_facts"];
        assert_eq!((&facts["id"], &facts["problem"]), (&hit["goroutine"], &Value::Null), "{hit}");
        let by = facts["created_by"].as_str().unwrap_or_default();
        assert!(by.starts_with("http.(*Server).Serve at server.go:"), "{by}");
        assert!(hit["stack"].as_array().is_some_and(|stack| stack.len() > 2), "{hit}");
        let file = hit["file"].as_str().expect("a file");
        assert!(spots.iter().any(|spot| *spot == format!("{file}:{}", hit["line"])), "{hit}");
    }
    let end = interrupt(trace);
    assert_eq!(end.last().unwrap()["hits"], expected);
    assert_eq!(end.last().unwrap()["dropped"], 0);
    shop.assert_running();
    nothing_is_traced(&fleet);
    shop.buy(3);
    shop.stop();
}

#[test]
fn conditions_hit_counts_and_messages_hold_in_the_target() {
    let (fleet, mut shop) = four_hosts();
    let spot = shop.spot("cart-add").location();
    let arguments = [
        &spot,
        "--when",
        "quantity >= 5 && quantity < 9",
        "--log",
        "{quantity} into the cart",
        "--where",
        "service=cart",
    ];
    let mut trace = fleet.trace(&arguments, 1);
    shop.buy(40);
    // The load generator's quantities, from its own rule: see orderFor in the fixture.
    let wanted: Vec<u64> = (0..40u64)
        .flat_map(|n| (0..=n % 4).map(move |i| 1 + (n * 5 + i * 7) % 12))
        .filter(|quantity| (5..9).contains(quantity))
        .collect();
    assert!(wanted.len() > 10);
    let seen: Vec<String> =
        wanted.iter().map(|_| trace.json_of("hit", SOON)["message"].as_str().expect("a message").to_owned()).collect();
    let told: Vec<String> = wanted.iter().map(|quantity| format!("{quantity} into the cart")).collect();
    assert_eq!(seen, told);
    let end = interrupt(trace);
    assert_eq!(end.last().unwrap()["hits"], wanted.len());
    shop.assert_running();
}

#[test]
fn a_process_that_appears_later_is_armed() {
    let mut fleet = Fleet::start_with(FleetOptions::hosts(&["late"]));
    let torture = crate::support::fixture::Fixture::go("torture", ".");
    let spot = torture.spot("counted").location();
    // Few: they are there before it is said where from, and it is said all the same.
    let mut made = fleet.riptrace(["trace", "--json", &spot, "--wait", "--count", "3"]);
    made.env("RUST_BACKTRACE", "1");
    let mut trace = Program::spawn_orderly("riptrace trace", made);
    let target = fleet.spawn_on("late", &torture.program, &["-forever", "-only", "counted"]);
    let lines = trace.json_to_end(LATER);
    let armed: Vec<_> = lines.iter().filter(|line| line["type"] == "status" && line["state"] == "armed").collect();
    let [status] = armed[..] else { panic!("armed once: {lines:?}") };
    assert_eq!(status["pid"], target.pid());
    assert!(status["mechanism"] == "jump" || status["mechanism"] == "trap", "inside the process: {status}");
    assert_eq!(lines.iter().filter(|line| line["type"] == "hit").count(), 3);
    assert_eq!(lines.last().unwrap()["hits"], 3);
    trace.wait_for_code(0, SOON);
    fleet.agent("late").assert_running();
}

#[test]
fn where_it_is_armed_is_said_before_the_first_hit_though_one_ends_the_trace() {
    let fleet = Fleet::start(&["busy"]);
    let torture = crate::support::fixture::Fixture::go("torture", ".");
    let spot = torture.spot("counted").location();
    let target = fleet.spawn_on("busy", &torture.program, &["-forever", "-only", "counted"]);
    let pid = target.pid();
    eventually("the agent has found the target", SOON, || {
        fleet.ps().iter().any(|line| line["type"] == "process" && line["pid"] == pid).then_some(())
    });
    for _ in 0..3 {
        let mut trace =
            Program::spawn_orderly("riptrace trace", fleet.riptrace(["trace", "--json", &spot, "--count", "1"]));
        let lines = trace.json_to_end(LATER);
        let told: Vec<&str> = lines
            .iter()
            .filter(|line| line["type"] != "status" || line["state"] == "armed")
            .filter_map(|line| line["type"].as_str())
            .collect();
        assert_eq!(told.first(), Some(&"status"), "{lines:?}");
        assert_eq!(told.iter().filter(|each| **each == "status").count(), 1, "{lines:?}");
        assert_eq!(told.last(), Some(&"summary"), "{lines:?}");
        assert_eq!(lines.last().unwrap()["hits"], 1);
        trace.wait_for_code(0, SOON);
    }
}

#[test]
fn a_line_that_no_build_has_says_so_and_exits_with_3() {
    let (fleet, shop) = four_hosts();
    let mut trace = Program::spawn(
        "riptrace trace",
        fleet.riptrace(["trace", "--json", "cart/cart.go:1", "--where", "service=cart"]),
    );
    let lines = trace.json_to_end(SOON);
    trace.wait_for_code(3, SOON);
    let absent = lines.iter().find(|line| line["state"] == "absent").expect("a status");
    assert!(absent["reason"].as_str().is_some_and(|why| why.contains("cart.go")), "{absent}");
    shop.stop();
}
