//! This host's monotonic clock: the one that stamps hits, and the name of the domain in which it is exact.
//!
//! Domain time is CLOCK_MONOTONIC in nanoseconds. The kernel makes it one clock for all CPUs of a machine, so two
//! stamps of one domain are ordered as the events were. A time namespace shifts it (`time_namespaces(7)`), so the
//! domain is named by boot and time namespace together. This is the only place of the agent that reads the clock.

use nix::time::{ClockId, clock_gettime};
use riptrace_protocol::time::ClockDomain;
use std::os::unix::fs::MetadataExt;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const TIME_NAMESPACE: &str = "/proc/self/ns/time";

/// Why the clock domain of this host cannot be named.
#[derive(Debug, thiserror::Error)]
#[error("cannot tell which clock stamps this host's hits: {path}: {source}; mount /proc where the agent runs")]
pub struct ClockDomainError {
    /// The file that could not be read.
    path: &'static str,
    /// What the system says.
    source: std::io::Error,
}

/// Domain time now, in nanoseconds.
pub fn domain_now_ns() -> u64 {
    match clock_gettime(ClockId::CLOCK_MONOTONIC) {
        // The monotonic clock starts at boot, so both parts are positive; u64 nanoseconds last for 584 years.
        Ok(now) => now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64,
        // clock_gettime(2) fails only for a clock or a pointer that is none: not for these.
        Err(errno) => unreachable!("CLOCK_MONOTONIC: {errno}"),
    }
}

/// The clock that [`domain_now_ns`] reads: boot id and time namespace (`0` where the kernel has none).
pub fn clock_domain() -> Result<ClockDomain, ClockDomainError> {
    let boot = std::fs::read_to_string(BOOT_ID).map_err(|source| ClockDomainError { path: BOOT_ID, source })?;
    let namespace = match std::fs::metadata(TIME_NAMESPACE) {
        Ok(metadata) => metadata.ino(),
        // Before Linux 5.6 there was one time namespace only.
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => 0,
        Err(source) => return Err(ClockDomainError { path: TIME_NAMESPACE, source }),
    };
    Ok(ClockDomain(format!("{}:{namespace}", boot.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_goes_back() {
        let mut last = domain_now_ns();
        for _ in 0..10_000 {
            let now = domain_now_ns();
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
    }

    #[test]
    fn the_domain_names_boot_and_namespace_and_stays_the_same() {
        let domain = clock_domain().unwrap();
        let (boot, namespace) = domain.0.split_once(':').unwrap();
        assert_eq!(boot.len(), 36, "{domain:?}");
        assert!(namespace.parse::<u64>().is_ok(), "{domain:?}");
        assert_eq!(clock_domain().unwrap(), domain);
    }
}
