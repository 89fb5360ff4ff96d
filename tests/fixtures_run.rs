//! The fixtures themselves, untraced: what the other tests build on must be sound on its own.

mod support;

use support::{
    LATER, SOON,
    fixture::{Fixture, line_of},
    process::{Program, command},
    shop::{Shop, finish_load},
};

#[test]
fn the_shop_answers_every_request_rightly() {
    let mut shop = Shop::start_alone();
    let mut load = shop.load(&["--count", "500"]);
    let summary = finish_load(&mut load);
    assert_eq!(summary["requests"], 500);
    assert_eq!(summary["lines"], 1250, "one to four lines by turns");
    shop.assert_running();
    shop.stop();
}

#[test]
fn torture_passes_every_marked_line_as_often_as_it_says() {
    let torture = Fixture::go("torture", ".");
    let mut made = command(&torture.program);
    made.args(["-passes", "1000"]);
    let mut program = Program::spawn("torture", made);
    let stats = program.json(LATER);
    program.wait_for_code(0, SOON);
    for marker in ["leaf", "loop", "locals", "recurse", "counted", "spawn", "nil", "panic"] {
        assert_eq!(stats["passages"][marker], 1000, "{marker}");
    }
    assert_eq!(stats["passages"]["thread"], 20);
}

#[test]
fn torture_takes_commands() {
    let torture = Fixture::go("torture", ".");
    let mut program = Program::spawn("torture", command(&torture.program));
    let ready = program.json_of("ready", SOON);
    assert_eq!(ready["pid"], program.pid());
    program.write_line("run 30 leaf loop");
    let run = program.json_of("run", LATER);
    assert_eq!(run["passages"]["leaf"], 30);
    assert_eq!(run["passages"]["loop"], 30);
    assert_eq!(run["passages"]["locals"], 0);
    program.write_line("fork");
    program.json_of("fork", SOON);
    program.write_line("run many");
    let refused = program.json_of("error", SOON);
    assert!(refused["error"].as_str().is_some_and(|text| text.contains("many")), "{refused}");
    program.write_line("exec");
    let again = program.json_of("ready", SOON);
    assert_eq!((&again["generation"], &again["pid"]), (&1.into(), &program.pid().into()));
    program.signal(nix::sys::signal::Signal::SIGUSR1);
    program.json_of("stats", SOON);
    program.write_line("exit");
    program.wait_for_code(0, SOON);
}

#[test]
fn markers_name_exactly_one_line() {
    let torture = Fixture::go("torture", ".");
    let spot = torture.spot("leaf");
    assert_eq!(line_of(&spot.file, "leaf"), spot.line);
    assert!(spot.file.ends_with("torture/work.go"));
}

#[test]
fn values_knows_every_value_and_every_marker_has_its_truth() {
    let values = Fixture::go("values", ".");
    let mut program = Program::spawn("values", command(&values.program));
    program.json_of("ready", SOON);
    program.write_line("truth");
    let truth = program.json_of("truth", SOON);
    let markers = truth["truth"].as_object().expect("an object");
    assert!(markers.len() > 20, "{truth}");
    for marker in markers.keys() {
        values.spot(marker);
        program.write_line(&format!("pass {marker} 3"));
        program.json_of("passed", SOON);
    }
    program.write_line("pass");
    program.json_of("passed", SOON);
    program.write_line("exit");
    program.wait_for_code(0, SOON);
}

#[test]
fn the_native_program_checks_itself_optimised_or_not() {
    for flags in [&["-g", "-O0"][..], &["-g", "-O2"], &["-g", "-O2", "-gdwarf-4", "-no-pie"]] {
        let native = Fixture::c("native", flags);
        native.spot("native-leaf");
        let mut program = Program::spawn("native", command(&native.program));
        program.json_of("ready", SOON);
        program.write_line("run 2000");
        assert_eq!(program.json_of("run", SOON)["total"], 2000);
        program.close_stdin();
        program.wait_for_code(0, SOON);
    }
}
