//! Whole programs, held against what `objdump` says of them: where instructions begin, where branches lead, and that
//! every piece of code is reached.

use super::*;
use riptrace_provision::{BuildFlags, Cache, GoVersion, go};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `objdump` says.
struct Listing {
    boundaries: BTreeSet<u64>,
    /// Where direct branches and calls lead.
    targets: BTreeSet<u64>,
}

impl Listing {
    fn of(program: &Path) -> Listing {
        let output = Command::new("objdump")
            .args(["-d", "-w", "--no-show-raw-insn", "-M", "intel"])
            .arg(program)
            .output()
            .expect("objdump is needed; it comes with the C compiler's binutils");
        assert!(output.status.success(), "{output:?}");
        let mut listing = Listing { boundaries: BTreeSet::new(), targets: BTreeSet::new() };
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Some((address, text)) = line.split_once(":\t") else { continue };
            let Ok(address) = u64::from_str_radix(address.trim(), 16) else { continue };
            listing.boundaries.insert(address);
            let mut words = text.split_whitespace();
            let is_branch = |word: &&str| word.starts_with('j') || word.starts_with("loop") || word.starts_with("call");
            if words.by_ref().any(|word| is_branch(&word))
                && let Some(target) = words.next().and_then(|word| u64::from_str_radix(word, 16).ok())
            {
                listing.targets.insert(target);
            }
        }
        assert!(listing.boundaries.len() > 100, "no listing of {}", program.display());
        listing
    }
}

/// Holds every answer about every instruction of a program against its listing; returns the functions by name.
/// `unreached_max`: pieces of code that the compiler left behind though nothing leads to them.
fn check(program: &Path, unreached_max: usize) -> (BinaryCode, BTreeMap<String, Function>) {
    let listing = Listing::of(program);
    let binary = BinaryCode::open(program).unwrap();
    let mut choices = BTreeMap::<&str, usize>::new();
    let mut unreached = Vec::new();
    for function in binary.functions() {
        let analysis = binary.analyse(&function).unwrap();
        let name = &function.name;
        assert_eq!(analysis.undecoded(), None, "{name}");
        let boundaries: Vec<u64> = analysis.boundaries().collect();
        let listed: Vec<u64> = listing.boundaries.range(function.range.clone()).copied().collect();
        assert_eq!(boundaries, listed, "{name}");
        for &address in &boundaries {
            let choice = analysis.site(address);
            let inner = listing.targets.range(address + 1..address + 5);
            let kind = match &choice {
                SiteChoice::Jump { .. } => {
                    assert_eq!(inner.count(), 0, "{name} at {address:#x}: {choice:?}");
                    "jump"
                }
                SiteChoice::PunnedJump { slow_entries, .. } => {
                    assert!(inner.copied().all(|target| slow_entries.contains(&target)), "{name}: {choice:?}");
                    "punned"
                }
                SiteChoice::Trap { .. } => "trap",
                SiteChoice::Refused { .. } => "refused",
            };
            *choices.entry(kind).or_default() += 1;
        }
        // The assembly of Go's runtime has code that nothing leads to, on purpose.
        if !analysis.has_unknown_targets() && denied_function(name, binary.language(&function)).is_none() {
            unreached.extend(first_unreached(&analysis).map(|address| format!("{name} at {address:#x}")));
        }
    }
    assert!(unreached.len() <= unreached_max, "nothing leads to {unreached:?}");
    assert!(choices.get("jump") > choices.get("trap"), "{choices:?}");
    let functions = binary.functions().map(|function| (function.name.clone(), function)).collect();
    (binary, functions)
}

/// The first piece of code that nothing leads to. Code behind the end of a path is there because something leads to it:
/// tables and landing pads that were not found would leave it unreached. (Fillers between the two may be what is led to.)
fn first_unreached(analysis: &FunctionAnalysis) -> Option<u64> {
    let targets: BTreeSet<u64> = analysis.targets().collect();
    let mut is_unreached = false;
    analysis.boundaries().find(|&address| {
        let kind = analysis.sweep.cells[(address - analysis.start) as usize].kind;
        is_unreached &= !targets.contains(&address);
        let is_filler =
            matches!(kind, instruction::Kind::Nop | instruction::Kind::Breakpoint | instruction::Kind::Raises);
        let found = is_unreached && !is_filler;
        is_unreached |= kind.ends_block();
        found
    })
}

/// Builds a fixture; the folder is the caller's.
fn built(folder: &Path, compiler: &str, source: &str, flags: &[&str]) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/analysis").join(source);
    let program = folder.join(format!("program{}", flags.concat()));
    let status = Command::new(compiler).args(flags).arg("-o").arg(&program).arg(source).status();
    assert!(status.unwrap_or_else(|error| panic!("{compiler} is needed: {error}")).success());
    program
}

#[test]
fn c_programs_with_switches_are_understood_however_they_are_built() {
    let folder = tempfile::tempdir().unwrap();
    let ways: [&[&str]; 4] = [
        &["-O2", "-fPIE", "-pie"],
        &["-O2", "-fno-pie", "-no-pie"],
        &["-O2", "-fPIC", "-shared", "-fcf-protection=none"],
        &["-O1", "-fno-pie", "-static"],
    ];
    for flags in ways.iter().take(3) {
        let (binary, functions) = check(&built(folder.path(), "cc", "switches.c", flags), 0);
        for (name, least) in [("dense", 9), ("interpreted", 8), ("threaded", 4)] {
            let analysis = binary.analyse(&functions[name]).unwrap();
            assert!(!analysis.has_unknown_targets(), "{name} {flags:?}");
            assert!(analysis.targets().count() >= least, "{name} {flags:?}");
        }
    }
    // libc as well, with its hand-written assembly: what is not known there is only said to be.
    let program = built(folder.path(), "cc", "switches.c", ways[3]);
    let binary = BinaryCode::open(&program).unwrap();
    let listing = Listing::of(&program);
    let known = binary.functions().filter(|function| {
        let analysis = binary.analyse(function).unwrap();
        for address in analysis.boundaries() {
            if let SiteChoice::Jump { .. } = analysis.site(address) {
                assert_eq!(listing.targets.range(address + 1..address + 5).next(), None, "{function:?} {address:#x}");
            }
        }
        !analysis.has_unknown_targets()
    });
    assert!(known.count() * 100 > binary.functions().len() * 95);
}

#[test]
fn a_cold_part_leads_back_into_the_middle_of_its_function() {
    let folder = tempfile::tempdir().unwrap();
    let program = built(folder.path(), "cc", "switches.c", &["-O2", "-fPIE", "-pie"]);
    let (binary, functions) = check(&program, 0);
    let rare = functions["rare"].range.clone();
    let cold = binary.analyse(&functions["rare.cold"]).unwrap();
    let back = cold.outgoing().iter().find(|entry| rare.contains(&entry.address) && entry.address != rare.start);
    let back = back.expect("gcc splits it").address;
    assert!(binary.analyse_at(rare.start).unwrap().targets().any(|target| target == back));
}

#[test]
fn landing_pads_are_ways_in() {
    let folder = tempfile::tempdir().unwrap();
    for flags in [&["-O2", "-fPIE", "-pie"][..], &["-O1", "-fno-pie", "-no-pie"]] {
        let (binary, functions) = check(&built(folder.path(), "c++", "exceptions.cpp", flags), 0);
        let parts = functions.iter().filter(|(name, _)| name.starts_with("_Z7catcheri"));
        let pads = parts.map(|(_, function)| {
            let entries = binary.entries_of(function);
            entries.iter().filter(|entry| entry.kind == EntryKind::LandingPad).count()
        });
        // Two catches, which share a pad or not, and the cleanup of the vector under construction.
        assert!(pads.sum::<usize>() >= 2, "{flags:?}");
    }
}

#[test]
fn a_go_program_is_understood_and_few_of_its_statements_need_a_trap() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("torture");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/torture");
    let cache = Cache::from_env().unwrap_or_else(|error| panic!("{error}"));
    go(&cache, GoVersion::newest(), &mut |_| {})
        .and_then(|go| go.build(&source, ".", &program, &BuildFlags::default()))
        .unwrap_or_else(|error| panic!("{error}"));
    let (binary, functions) = check(&program, 2);
    let of_name = |name: &str| binary.language(&functions[name]);
    assert_eq!((of_name("main.main"), of_name("runtime.mallocgc")), (Language::Go, Language::Go));
    let addresses = statements(&program).unwrap();
    let summary = classify(&binary, &addresses);
    assert_eq!(summary.statements, addresses.len());
    let counted = summary.single + summary.several + summary.punned + summary.trap + summary.refused;
    assert_eq!(counted, summary.statements);
    assert!(summary.trap_percent() <= 4.0, "{summary:?}");
    assert!(summary.refused * 500 < summary.statements, "{summary:?}");
    assert!(summary.denied > 0 && summary.traps_allowed < summary.trap, "{summary:?}");
    assert_eq!(summary.reasons.values().sum::<usize>() + summary.single, summary.statements, "{summary:?}");
    // recover() goes on at the calls of deferreturn.
    let recovers = |function: &Function| {
        let analysis = binary.analyse(function).unwrap();
        analysis.boundaries().any(|address| analysis.sweep.cells[(address - analysis.start) as usize].is_recovery())
    };
    assert!(binary.functions().any(|function| function.name.starts_with("main.") && recovers(&function)));
    let native = binary.functions().filter(|function| binary.language(function) == Language::Native);
    assert_eq!(native.map(|function| function.name).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn files_that_are_no_programs_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    assert!(matches!(BinaryCode::open(&path), Err(BinaryError::Open { .. })));
    std::fs::write(&path, "text").unwrap();
    assert!(matches!(BinaryCode::open(&path), Err(BinaryError::BadElf { .. })));
    // Every beginning of a program, and one with each of its headers' bytes damaged.
    let program = built(folder.path(), "cc", "switches.c", &["-O2", "-fPIE", "-pie"]);
    let whole = std::fs::read(&program).unwrap();
    for bytes in (0..whole.len()).step_by(whole.len() / 97) {
        std::fs::write(&path, &whole[..bytes]).unwrap();
        let Ok(binary) = BinaryCode::open(&path) else { continue };
        binary.functions().for_each(|function| drop(binary.analyse(&function)));
    }
    let sections_at = usize::try_from(u64::from_le_bytes(whole[40..48].try_into().unwrap())).unwrap();
    for at in (0..64).chain((sections_at..whole.len()).step_by(13)) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xff;
        std::fs::write(&path, &damaged).unwrap();
        let Ok(binary) = BinaryCode::open(&path) else { continue };
        binary.functions().for_each(|function| drop(binary.analyse(&function)));
    }
    let binary = BinaryCode::open(&program).unwrap();
    assert!(matches!(binary.analyse_at(0), Err(BinaryError::NoFunction { address: 0 })));
}
