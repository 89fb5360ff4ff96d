//! Function breakpoints: what their names say.
//!
//! A name is one as the command line takes it (`main.f`, `main.f:return`, `main.f:call`, `main.*`). The protocol gives a
//! function breakpoint no mode, so one may stand behind the name: `main.f count`. An editor that sends one all the same is
//! believed.

use super::super::types::FunctionBreakpoint;
use super::breakpoints::{At, Owner, Spec, meant};
use super::modes::HitMode;
use super::state::{Asked, State, Turn};
use riptrace_protocol::location::{FunctionPoint, Location};

impl State {
    /// `modes` are those that the editor sends with the breakpoints, in their order.
    pub(super) fn set_function_breakpoints(
        &mut self,
        turn: &mut Turn<'_>,
        asked: Asked,
        wanted: Vec<FunctionBreakpoint>,
        modes: Vec<Option<String>>,
    ) {
        let specs = wanted
            .into_iter()
            .zip(modes.into_iter().chain(std::iter::repeat(None)))
            .map(|(breakpoint, mode)| {
                let (name, behind) = name_and_mode(&breakpoint.name);
                Spec {
                    at: At::Functions(vec![name.to_owned()]),
                    mode: mode.or(behind.map(str::to_owned)),
                    condition: meant(breakpoint.condition),
                    hit_condition: meant(breakpoint.hit_condition),
                    log_message: None,
                    exception: None,
                    captures: Vec::new(),
                }
            })
            .collect();
        self.replace(turn, asked, Owner::Functions, None, specs);
    }
}

/// A name, and the mode that stands behind it.
fn name_and_mode(text: &str) -> (&str, Option<&str>) {
    // Names of C++ and Rust have spaces in them: only a mode's own word is one.
    match text.trim().rsplit_once(char::is_whitespace) {
        Some((name, mode)) if HitMode::is_known(mode) => (name.trim_end(), Some(mode)),
        _ => (text, None),
    }
}

/// A function as the command line names it.
pub(super) fn location(name: &str) -> Location {
    match Location::parse(name) {
        Ok(location @ Location::Function { .. }) => location,
        _ => Location::Function { name: name.to_owned(), at: FunctionPoint::Entry },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_stands_behind_the_name() {
        for (text, name, mode) in [
            ("main.f", "main.f", None),
            ("main.(*Cart).Add:return  count ", "main.(*Cart).Add:return", Some("count")),
            ("ns::f(int, char) const", "ns::f(int, char) const", None),
            ("ns::f(int, char) const log", "ns::f(int, char) const", Some("log")),
            ("count", "count", None),
            (" count", " count", None),
        ] {
            assert_eq!(name_and_mode(text), (name, mode), "{text:?}");
        }
    }
}
