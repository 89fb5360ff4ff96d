//! Values of optimised Go, as the program itself knows them: what is shown as exact is right.

use crate::shop::interrupt;
use crate::support::{SOON, eventually, fixture::Fixture, fleet::Fleet, values};

#[test]
fn no_value_that_is_shown_as_exact_is_wrong() {
    let fleet = Fleet::start(&["h"]);
    let fixture = Fixture::go("values", ".");
    let mut target = fleet.spawn_on("h", &fixture.program, &[]);
    target.json_of("ready", SOON);
    let pid = target.pid();
    eventually("the agent has found the target", SOON, || {
        fleet.ps().iter().any(|line| line["type"] == "process" && line["pid"] == pid).then_some(())
    });
    target.write_line("truth");
    let truth = target.json_of("truth", SOON)["truth"].take();
    let truth = truth.as_object().expect("markers");
    let (mut right, mut withheld) = (0, 0);
    for (marker, wanted) in truth {
        let spot = fixture.spot(marker).location();
        let mut trace = fleet.trace(&[&spot], 1);
        target.write_line(&format!("pass {marker}"));
        let hit = trace.json_of("hit", SOON);
        target.json_of("passed", SOON);
        let seen = values::check(&hit["values"], wanted);
        eprintln!("{marker}: {} right, withheld {:?}", seen.right.len(), seen.withheld);
        right += seen.right.len();
        withheld += seen.withheld.len();
        interrupt(trace);
    }
    eprintln!("{right} values shown and right, {withheld} withheld with a reason, none wrong");
    assert!(right > withheld, "more is shown than withheld");
}
