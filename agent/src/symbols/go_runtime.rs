//! Where Go's runtime keeps its goroutines, for the engine: the places of `runtime.g` and `runtime.m` and of the array of
//! all `g`s, as the debug information of the build states them.

use super::debug_info::{Die, View};
use super::landmarks::Landmarks;
use super::types::{self, Shape};
use super::{Build, ResolveError, Svma};
use crate::engine::GoRuntime;
use riptrace_protocol::fleet::Language;
use riptrace_protocol::ids::Avma;

impl Build {
    /// Where the runtime keeps its goroutines in a process whose executable was moved by `bias`. `None` outside Go, and
    /// where the build does not tell: it was stripped, or its runtime is another one than Go 1.21 to 1.27 have.
    pub fn go_runtime(&self, bias: u64) -> Option<GoRuntime> {
        if self.facts.language != Language::Go {
            return None;
        }
        let found = self.go_runtime.get_or_init(|| {
            self.view().and_then(|view| find(self, &view)).unwrap_or_else(|error| {
                tracing::debug!(%error, "the runtime's goroutines cannot be found");
                None
            })
        });
        let moved = |at: Avma| Svma(at.0).in_process(bias);
        found.as_ref().map(|of_file| GoRuntime {
            allglen: moved(of_file.allglen),
            allgptr: moved(of_file.allgptr),
            ..*of_file
        })
    }
}

/// With the addresses of the file.
fn find(build: &Build, view: &View<'_>) -> Result<Option<GoRuntime>, ResolveError> {
    let Some(place) = build.goroutine(view) else { return Ok(None) };
    let &Landmarks { g: Some(g), m: Some(m), allglen: Some(allglen), allgptr: Some(allgptr), .. } =
        build.landmarks(view)?
    else {
        return Ok(None);
    };
    let g = |path: &[&str]| offset(view, g, path);
    let m = |path: &[&str]| offset(view, m, path);
    let runtime = || -> Result<Option<GoRuntime>, ResolveError> {
        let all = [
            g(&["stack", "lo"])?,
            g(&["stack", "hi"])?,
            g(&["m"])?,
            g(&["sched", "sp"])?,
            g(&["sched", "pc"])?,
            g(&["atomicstatus"])?,
            g(&["asyncSafePoint"])?,
            m(&["g0"])?,
            m(&["gsignal"])?,
            m(&["curg"])?,
            m(&["procid"])?,
        ];
        if all.contains(&None) {
            return Ok(None);
        }
        let [lo, hi, g_m, sp, pc, status, safe_point, g0, gsignal, curg, procid] = all.map(Option::unwrap_or_default);
        Ok(Some(GoRuntime {
            allglen: Avma(allglen),
            allgptr: Avma(allgptr),
            g_tls: place.g_offset,
            g_stack_lo: lo,
            g_stack_hi: hi,
            g_m,
            g_sched_sp: sp,
            g_sched_pc: pc,
            g_status: status,
            g_goid: place.goid_offset,
            g_async_safe_point: safe_point,
            m_g0: g0,
            m_gsignal: gsignal,
            m_curg: curg,
            m_procid: procid,
        }))
    };
    runtime()
}

/// Offset of a field, or of a field in a field.
fn offset(view: &View<'_>, mut structure: Die, path: &[&str]) -> Result<Option<u32>, ResolveError> {
    let mut offset = 0;
    for (n, name) in path.iter().enumerate() {
        let Shape::Struct(members) = types::read(view, structure)?.shape else { return Ok(None) };
        let Some(member) = members.iter().find(|member| member.name == *name) else { return Ok(None) };
        offset += member.offset;
        match member.ty {
            Some(ty) => structure = ty,
            None if n + 1 == path.len() => {}
            None => return Ok(None),
        }
    }
    Ok(u32::try_from(offset).ok())
}
