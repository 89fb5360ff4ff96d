//! A Go program that checks its own results, patched in the middle of a tight loop while goroutines are preempted there,
//! garbage is collected and stacks grow.

use super::super::{How, Inside, Patch, PatchError, Patcher, Runtime};
use super::support::{PAD_BYTES, Site, Target, Unneeded, apply_all, eventually};
use crate::engine::x86_64::text::JUMP_BYTES;
use crate::symbols::Build;
use iced_x86::{Decoder, DecoderOptions, FlowControl};
use nix::sys::signal::Signal;
use riptrace_protocol::ids::Avma;
use riptrace_provision::{BuildFlags, Cache, GoVersion, go};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Built once, with the pinned toolchain of the user's cache.
fn program() -> &'static Path {
    static BUILT: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, program) = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("patch_go");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/patch_go");
        let cache = Cache::from_env().unwrap_or_else(|error| panic!("{error}"));
        go(&cache, GoVersion::newest(), &mut |_| {})
            .and_then(|go| go.build(&source, ".", &program, &BuildFlags::default()))
            .unwrap_or_else(|error| panic!("{error}"));
        (folder, program)
    });
    program
}

/// Where the program maps memory for pads.
const PADS: Avma = Avma(0x2000_0000);

/// Sites in the loop of `main.tight`: at its head, and behind it, each over two instructions at least.
fn sites(target: &Target) -> Vec<Site> {
    let function = target.symbol("main.tight");
    let code: [u8; 96] = target.read(function);
    let decoded: Vec<_> = Decoder::with_ip(64, &code, function.0, DecoderOptions::NONE).into_iter().collect();
    let back =
        decoded.iter().find(|i| i.flow_control() == FlowControl::ConditionalBranch && i.near_branch64() < i.ip());
    let (head, end) = back.map(|branch| (branch.near_branch64(), branch.ip())).expect("a loop");
    let starts: Vec<u64> = decoded.iter().map(|i| i.ip()).filter(|ip| (head..=end).contains(ip)).collect();
    let site = |n: usize, at: u64| {
        let length = starts.iter().map(|next| next.wrapping_sub(at)).find(|l| (JUMP_BYTES as u64..16).contains(l))?;
        let inside = starts.iter().filter(|&&start| start > at && start < at + JUMP_BYTES as u64);
        let boundaries: Vec<usize> = inside.map(|start| (start - at) as usize).collect();
        let pad = Avma(PADS.0 + n as u64 * PAD_BYTES);
        (!boundaries.is_empty()).then(|| Site::new(target, Avma(at), pad, length as usize, &boundaries))
    };
    // The comparison at the end of the loop is a target of the jump into it.
    let usable = starts.iter().filter(|&&start| start < end - 8);
    usable.enumerate().filter_map(|(n, &at)| site(n, at)).collect()
}

fn runtime(target: &Target) -> Runtime {
    let build = Build::open(Path::new(&format!("/proc/{}/exe", target.pid()))).unwrap();
    Runtime::Go(build.go_runtime(0).expect("a Go program with debug information"))
}

fn patcher(target: &Target, runtime: Runtime, sites: &[Site]) -> Patcher {
    let mut patcher = Patcher::open(target.key(), runtime, target.witness(target.symbol("main.deep")));
    // The sites overlap: a thread in the pad of one may come back in the middle of another that is patched by then.
    sites.iter().for_each(|site| patcher.add_way(site.way()));
    patcher
}

fn out(patch: &Patch) -> Patch {
    // The program has no trap map.
    Patch { how: How::AllStop, ..patch.reversed() }
}

#[test]
fn a_tight_loop_is_patched_while_goroutines_are_preempted_in_it() {
    const CYCLES: usize = 300;
    let mut target = Target::start(program());
    let sites = sites(&target);
    assert!(sites.len() >= 3, "{sites:?}");
    let patcher = patcher(&target, runtime(&target), &sites);
    let (mut retries, mut busy, mut threads, mut stops) = (0, 0, 0, Vec::new());
    for cycle in 0..CYCLES {
        let patch = sites[cycle % sites.len()].jump(How::AllStop);
        match apply_all(&patcher, std::slice::from_ref(&patch), &mut Unneeded) {
            Ok(report) => {
                retries += report.retries;
                threads = threads.max(report.threads);
                stops.push(report.longest_stop_ns / 1000);
                let report = apply_all(&patcher, &[out(&patch)], &mut Unneeded).unwrap();
                assert_eq!(report.retries, 0, "inside of a jump is nothing");
            }
            Err(PatchError::Busy { .. }) => busy += 1,
            Err(error) => panic!("{error}"),
        }
        target.assert_silent();
    }
    stops.sort_unstable();
    let median = stops[stops.len() / 2];
    eprintln!("{CYCLES} cycles, {threads} threads: {retries} retries, {busy} busy, stops of {median} us at the median");
    assert!(retries > 0, "goroutines are met inside of a site");
    assert!(busy < CYCLES / 10);
    target.assert_goes_on();
    target.assert_free();
}

#[test]
fn a_goroutine_that_is_parked_inside_is_found_on_its_own_stack() {
    let target = Target::start(program());
    let sites = sites(&target);
    let patcher = patcher(&target, runtime(&target), &sites);
    eventually("a parked goroutine is inside of a site", || {
        sites.iter().find_map(|site| {
            let look = Patch { new: site.old.clone(), ..site.jump(How::AllStop) };
            matches!(patcher.look(&look), Ok(Some((at, Inside::Goroutine(_)))) if at == site.at).then_some(())
        })
    });
    target.assert_silent();
}

#[test]
fn goroutines_that_cannot_be_looked_at_refuse_an_all_stop() {
    let target = Target::start(program());
    let sites = sites(&target);
    let opaque = patcher(&target, Runtime::OpaqueGo, &sites);
    let refused = opaque.apply(&[sites[0].jump(How::AllStop)], &mut Unneeded).unwrap_err();
    assert!(matches!(refused, PatchError::Goroutines { .. }), "{refused}");
    let Runtime::Go(go) = runtime(&target) else { panic!("Go") };
    let elsewhere = crate::engine::GoRuntime { allgptr: Avma(8), ..go };
    let patcher = patcher(&target, Runtime::Go(elsewhere), &sites);
    let refused = loop {
        match patcher.apply(&[sites[0].jump(How::AllStop)], &mut Unneeded) {
            // Something else was found first.
            Err(PatchError::Busy { .. }) => {}
            other => break other.unwrap_err(),
        }
    };
    assert!(matches!(refused, PatchError::Goroutines { .. }), "{refused}");
    assert_eq!(target.read::<5>(sites[0].at).to_vec(), sites[0].old);
    target.signal(Signal::SIGKILL);
}
