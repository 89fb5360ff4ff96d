//! How many statements of large Go programs need a trap: the analysis alone, no process.

use super::figure::{Bound, Figure, Report};
use super::target::go;
use crate::failure::Failure;
use crate::output;
use crate::provision::BuildFlags;
use riptrace_agent::engine::analysis::{BinaryCode, classify, statements};
use std::time::Instant;

/// The programs, by name and package.
const PROGRAMS: [(&str, &str); 2] = [("compile", "cmd/compile"), ("gofmt", "cmd/gofmt")];

pub(super) fn measure(report: &mut Report) -> Result<(), Failure> {
    let (cache, go) = go()?;
    let root = go.program().parent().and_then(|bin| bin.parent()).map(|root| root.join("src"));
    let root = root.ok_or_else(|| Failure::Failed("the Go toolchain has no folder".to_owned()))?;
    for (name, package) in PROGRAMS {
        // As shipped they have no line table.
        let program = cache.root().join(format!("bench-{name}-{}", go.version()));
        if !program.is_file() {
            output::note(&format!("building the Go {name} with its debug information, once"));
            let half = program.with_extension("half");
            go.build(&root.join("cmd"), package, &half, &BuildFlags::default())
                .map_err(|e| Failure::Failed(e.to_string()))?;
            std::fs::rename(&half, &program).map_err(super::target::failed(name))?;
        }
        let failed = |e: &dyn std::fmt::Display| Failure::Failed(format!("{}: {e}", program.display()));
        let from = Instant::now();
        let binary = BinaryCode::open(&program).map_err(|e| failed(&e))?;
        let statements = statements(&program).map_err(|e| failed(&e))?;
        let summary = classify(&binary, &statements);
        let note = format!("of {} statements, in {:.1} s", statements.len(), from.elapsed().as_secs_f64());
        let figure = Figure::new(format!("traps-{name}"), summary.trap_percent(), "%", Bound::AtMost(4.0));
        report.add(figure.note(note));
    }
    Ok(())
}
