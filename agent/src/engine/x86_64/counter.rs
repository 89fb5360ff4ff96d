//! The time stamp counter: reading it, and whether a machine's may be trusted.
//!
//! A pad stamps a passage with this counter, because reading it is the only clock that needs no function of the process.
//! It is a clock only where it runs at one rate, in every sleep state, and alike on all CPUs. The kernel checks the last
//! (Documentation/virt/kvm/x86/timekeeping.rst, arch/x86/kernel/tsc_sync.c) and shows its verdict by its clock source.

use std::arch::x86_64::{_mm_lfence, _rdtsc};

/// Clock sources of the kernel that are the counter, or computed from it with one rate for all CPUs.
const SOURCES: [&str; 3] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page"];
const FLAGS: [&str; 2] = ["constant_tsc", "nonstop_tsc"];
const CPUINFO: &str = "/proc/cpuinfo";
const SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// Why this machine's time stamp counter is no clock.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::engine) enum NoClock {
    /// The processor does not promise it.
    #[error("this machine's processor lacks `{0}`: its time stamp counter is no clock")]
    Flag(&'static str),
    /// The kernel does not use it.
    #[error(
        "this machine's kernel keeps time by `{0}`, not by the time stamp counter: the counters of its CPUs differ"
    )]
    Source(String),
    /// It cannot be told.
    #[error("cannot tell whether this machine's time stamp counter is a clock: {path}: {why}")]
    Unknown {
        /// The file that would tell.
        path: &'static str,
        /// What the system says.
        why: String,
    },
}

/// The counter now: not before what is above it in the program, nor after what is below.
pub(in crate::engine) fn now() -> u64 {
    // SAFETY: every x86-64 processor has both instructions; neither touches memory.
    unsafe {
        _mm_lfence();
        let now = _rdtsc();
        _mm_lfence();
        now
    }
}

/// Whether this machine's counter is a clock.
pub(in crate::engine) fn check() -> Result<(), NoClock> {
    let read = |path: &'static str| {
        std::fs::read_to_string(path).map_err(|error| NoClock::Unknown { path, why: error.to_string() })
    };
    judge(&read(CPUINFO)?, read(SOURCE)?.trim())
}

/// Whether the processor has `rdpid` (Intel SDM volume 2, CPUID leaf 7, ECX bit 22).
pub(in crate::engine) fn has_rdpid() -> bool {
    std::arch::x86_64::__cpuid_count(7, 0).ecx >> 22 & 1 == 1
}

fn judge(cpuinfo: &str, source: &str) -> Result<(), NoClock> {
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    match FLAGS.into_iter().find(|flag| !flags.split_whitespace().any(|has| has == *flag)) {
        Some(flag) => Err(NoClock::Flag(flag)),
        None if SOURCES.contains(&source) => Ok(()),
        None => Err(NoClock::Source(source.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_steady_counter_is_a_clock() {
        let cpuinfo = |flags: &str| format!("processor\t: 0\nflags\t\t: fpu {flags} rdtscp\nbugs\t\t: none\n");
        let steady = cpuinfo("constant_tsc nonstop_tsc");
        assert_eq!(judge(&steady, "tsc"), Ok(()));
        assert_eq!(judge(&steady, "kvm-clock"), Ok(()));
        assert_eq!(judge(&steady, "hpet"), Err(NoClock::Source("hpet".to_owned())));
        assert_eq!(judge(&cpuinfo("constant_tsc"), "tsc"), Err(NoClock::Flag("nonstop_tsc")));
        assert_eq!(judge(&cpuinfo("constant_tsc_not nonstop_tsc"), "tsc"), Err(NoClock::Flag("constant_tsc")));
        assert_eq!(judge("", "tsc"), Err(NoClock::Flag("constant_tsc")));
    }

    #[test]
    fn the_counter_never_goes_back() {
        let mut last = now();
        for _ in 0..10_000 {
            let next = now();
            assert!(next >= last);
            last = next;
        }
    }
}
