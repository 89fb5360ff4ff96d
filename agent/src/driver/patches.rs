//! What can be written at the sites of a tracepoint, as the analysis of the build's file says.

use crate::engine::analysis::{BinaryCode, FunctionAnalysis, Language};
use crate::engine::{SITE_BYTES, SitePatch};
use std::collections::BTreeMap;

/// Asks the analysis for one site after the other; each function is decoded once.
pub(super) struct Patches<'a> {
    code: &'a BinaryCode,
    /// By the function's first address.
    analysed: BTreeMap<u64, Result<FunctionAnalysis, String>>,
}

impl<'a> Patches<'a> {
    /// Of a file.
    pub(super) fn of(code: &'a BinaryCode) -> Patches<'a> {
        Patches { code, analysed: BTreeMap::new() }
    }

    /// What can be written at an address of the file; or why that is not known.
    pub(super) fn at(&mut self, address: u64) -> Result<SitePatch, String> {
        let function = self.code.function_at(address).ok_or_else(|| {
            format!("no function of the symbol table holds {address:#x}: what may be patched there is not known")
        })?;
        let analysed = self.analysed.entry(function.range.start);
        let analysis = analysed
            .or_insert_with(|| self.code.analyse(&function).map_err(|error| error.to_string()))
            .as_ref()
            .map_err(Clone::clone)?;
        let bytes = self.code.bytes_at(address);
        Ok(SitePatch {
            choice: analysis.site(address),
            original: bytes[..bytes.len().min(SITE_BYTES)].to_vec(),
            is_go: self.code.language(&function) == Language::Go,
        })
    }
}
