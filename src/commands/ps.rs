//! `riptrace ps`: the fleet as it is now.

use crate::args;
use crate::connect::connect;
use crate::failure::Failure;
use crate::output;
use riptrace_dap_adapter::fleet::FleetClient;
use riptrace_protocol::fleet::{FleetView, HostView, ProbeStatus, ProcessFacts};
use riptrace_protocol::ids::HostName;
use riptrace_protocol::selector::Selector;
use serde_json::{Value, json};

/// Prints hosts, processes and tracepoints.
pub(super) async fn run(args: args::Ps) -> Result<(), Failure> {
    let selector = Selector::parse(&args.selector).map_err(|e| Failure::Usage(format!("--where: {e}")))?;
    let bus = connect(&args.bus.target(), "riptrace ps").await?;
    let fleet = FleetClient::new(bus).fleet().await?;
    let processes: Vec<(&HostView, &ProcessFacts)> = fleet
        .hosts
        .iter()
        .flat_map(|view| view.profile.processes.iter().map(move |process| (view, process)))
        .filter(|(view, process)| selector.matches(&view.profile.host, process))
        .collect();
    let printed = if args.json { print_json(&fleet, &processes) } else { print_text(&fleet, &processes) };
    match printed {
        Ok(()) if processes.is_empty() => Err(nothing(&fleet, &args.selector)),
        // A reader that went away has what it wanted.
        _ => Ok(()),
    }
}

fn nothing(fleet: &FleetView, selector: &str) -> Failure {
    Failure::NothingMatched(match fleet.hosts.iter().filter(|view| view.alive).count() {
        0 => "no host has an agent: run `riptrace agent --nats URL` on each".to_owned(),
        n if selector.is_empty() => format!("{n} hosts, and none runs a process that can be traced"),
        n => format!("{n} hosts, and none runs a process that {selector:?} means"),
    })
}

fn print_json(fleet: &FleetView, processes: &[(&HostView, &ProcessFacts)]) -> std::io::Result<()> {
    for view in &fleet.hosts {
        output::json_line(&json!({
            "type": "host", "host": view.profile.host, "alive": view.alive, "version": view.profile.version,
            "kernel": view.profile.kernel, "labels": view.profile.labels,
            "clock_uncertainty_ns": view.clock_uncertainty_ns, "processes": view.profile.processes.len(),
        }))?;
    }
    for (view, process) in processes {
        output::json_line(&json!({
            "type": "process", "host": view.profile.host, "pid": process.key.pid, "service": process.service,
            "exe": process.exe, "build": process.build, "container": process.container, "labels": process.labels,
            "refused": process.refused,
        }))?;
    }
    for tracepoint in &fleet.tracepoints {
        output::json_line(&json!({
            "type": "tracepoint", "tracepoint": tracepoint.tracepoint, "location": tracepoint.location.to_string(),
            "ended": tracepoint.ended,
        }))?;
        for probe in &tracepoint.probes {
            output::json_line(&probe_json(probe))?;
        }
    }
    Ok(())
}

/// The line of a status as `trace --json` has it, with what only a view of the whole fleet is asked for.
fn probe_json(probe: &ProbeStatus) -> Value {
    let mut line = riptrace_dap_adapter::render::json::status(probe);
    if let Some(fields) = line.as_object_mut() {
        fields.insert("service".to_owned(), json!(probe.service));
        fields.insert("build".to_owned(), json!(probe.build));
        fields.insert("places".to_owned(), json!(probe.sites));
        fields.insert("passages".to_owned(), json!(probe.passages));
        fields.insert("hits".to_owned(), json!(probe.hits));
        fields.insert("dropped".to_owned(), json!(probe.dropped));
        fields.insert("unfinished".to_owned(), json!(probe.unfinished));
    }
    line
}

fn print_text(fleet: &FleetView, processes: &[(&HostView, &ProcessFacts)]) -> std::io::Result<()> {
    let hosts: Vec<Vec<String>> = fleet
        .hosts
        .iter()
        .map(|view| {
            let clock = match view.clock_uncertainty_ns {
                Some(ns) => format!("±{} µs", ns.div_ceil(1000)),
                None => "not known yet".to_owned(),
            };
            let state = if view.alive { "up" } else { "silent" };
            vec![
                view.profile.host.to_string(),
                state.to_owned(),
                clock,
                view.profile.processes.len().to_string(),
                view.profile.kernel.clone(),
            ]
        })
        .collect();
    print_table(&["HOST", "STATE", "CLOCK", "PROCESSES", "KERNEL"], &hosts)?;
    let rows: Vec<Vec<String>> = processes.iter().map(|(view, process)| row(&view.profile.host, process)).collect();
    if !rows.is_empty() {
        output::line("")?;
        print_table(&["HOST", "PID", "SERVICE", "LANGUAGE", "MODULE", "REVISION", "EXECUTABLE"], &rows)?;
    }
    let mut probes = Vec::new();
    for tracepoint in &fleet.tracepoints {
        for probe in &tracepoint.probes {
            probes.push(vec![
                tracepoint.location.to_string(),
                probe.process.host.to_string(),
                probe.process.key.pid.to_string(),
                probe.service.clone(),
                probe_state(probe),
                probe.hits.to_string(),
                probe.dropped.to_string(),
                probe.reason.clone().or_else(|| probe.note.clone()).unwrap_or_default(),
            ]);
        }
    }
    if !probes.is_empty() {
        output::line("")?;
        let header = ["TRACEPOINT", "HOST", "PID", "SERVICE", "STATE", "HITS", "DROPPED", "REASON"];
        print_table(&header, &probes)?;
    }
    Ok(())
}

fn row(host: &HostName, process: &ProcessFacts) -> Vec<String> {
    let build = &process.build;
    let language = match (&build.go_version, build.dwarf) {
        (Some(version), true) => version.clone(),
        (Some(version), false) => format!("{version} (no DWARF)"),
        (None, _) => "native".to_owned(),
    };
    let revision = match (&build.vcs_revision, build.vcs_modified) {
        (Some(revision), modified) => {
            let short: String = revision.chars().take(12).collect();
            if modified == Some(true) { format!("{short}+changes") } else { short }
        }
        (None, _) => "-".to_owned(),
    };
    let exe = match &process.refused {
        Some(why) => format!("{} (cannot be traced: {why})", process.exe),
        None => process.exe.clone(),
    };
    let module = build.module.clone().unwrap_or_else(|| "-".to_owned());
    vec![host.to_string(), process.key.pid.to_string(), process.service.clone(), language, module, revision, exe]
}

fn probe_state(probe: &ProbeStatus) -> String {
    let state = riptrace_dap_adapter::render::json::state_word(probe.state);
    match probe.mechanism {
        Some(mechanism) => format!("{state} ({})", format!("{mechanism:?}").to_lowercase()),
        None => state.to_owned(),
    }
}

fn print_table(header: &[&str], rows: &[Vec<String>]) -> std::io::Result<()> {
    output::table(header, rows).iter().try_for_each(|line| output::line(line))
}
