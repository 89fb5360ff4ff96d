//! What can be traced in a file: its lines with code and, where asked for, what is recoverable on each.
//!
//! It plans nothing: it tells an editor beforehand what a plan would find.

use super::secrets::is_secret;
use crate::symbols::scope::{self, Local, Presence};
use crate::symbols::{Build, ResolveError, View, at_return, types};
use riptrace_protocol::agent_api::{LineFacts, LinesGet, LinesReply, VariableFacts};
use riptrace_protocol::layout::Moment;
use riptrace_protocol::limits::{LAYOUT_VARIABLES_MAX, LINES_MAX, LINES_WITH_VARIABLES_MAX};
use riptrace_protocol::location::Location;

/// Answers a question about the lines of a file.
///
/// # Errors
/// [`ResolveError`], when the build has no such file, or its debug information cannot be read.
pub fn lines(build: &Build, asked: &LinesGet) -> Result<LinesReply, ResolveError> {
    let (file, found) = build.code_lines(&asked.file, asked.first..=asked.last)?;
    let most = if asked.variables { LINES_WITH_VARIABLES_MAX } else { LINES_MAX };
    let more = found.len() > most;
    let facts = |line| {
        let plain = LineFacts { line, function: String::new(), refused: None, variables: Vec::new() };
        if !asked.variables {
            return plain;
        }
        match variables(build, &file, line) {
            Ok((function, variables)) => LineFacts { function, variables, ..plain },
            Err(why) => LineFacts { refused: Some(why.to_string()), ..plain },
        }
    };
    let lines = found.into_iter().take(most).map(facts).collect();
    Ok(LinesReply { file, lines, more })
}

/// The function and the variables at the first address of a line.
fn variables(build: &Build, file: &str, line: u32) -> Result<(String, Vec<VariableFacts>), ResolveError> {
    let sites = build.resolve(&Location::Line { file: file.to_owned(), line })?;
    let view = build.view()?;
    let Some(site) = sites.first() else { return Ok((String::new(), Vec::new())) };
    let mut locals = scope::at_site(&view, site)?;
    if site.moment == Moment::Return {
        locals.extend(at_return(&view, site)?);
    }
    let variables = locals.iter().take(LAYOUT_VARIABLES_MAX).map(|local| variable(&view, local));
    Ok((site.function.clone(), variables.collect::<Result<_, _>>()?))
}

fn variable(view: &View<'_>, local: &Local) -> Result<VariableFacts, ResolveError> {
    let missing = match &local.presence {
        _ if is_secret(&local.name) => Some("named like a secret: never read".to_owned()),
        Presence::Here(_) => None,
        Presence::Partial { present, .. } => Some(format!("only a part of it is there: {present}")),
        Presence::Suspect(why) => Some(format!("not to be believed: {why}")),
        Presence::OptimisedOut => Some("optimised out".to_owned()),
        Presence::Unknown(why) => Some(why.clone()),
    };
    let type_name = match local.ty {
        Some(ty) => types::read(view, ty)?.name,
        None => String::new(),
    };
    Ok(VariableFacts { name: local.name.clone(), type_name, scope: local.scope, missing })
}
