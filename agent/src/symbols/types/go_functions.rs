//! Which functions a Go function value may call: those of one package, and what its closures capture.
//!
//! A function value is the address of an object that begins with the address of the code. What a closure captured lies in
//! the same object, at the offsets that the debug information of the closure states (`DW_AT_go_closure_offset`, since Go
//! 1.22; Delve: `pkg/proc/bininfo.go`, `closureStructType`).

use super::{Member, unsigned};
use crate::symbols::debug_info::{Die, View};
use crate::symbols::functions::Functions;
use crate::symbols::{ResolveError, Site, Svma};
use gimli::DwAt;

const DW_AT_GO_CLOSURE_OFFSET: DwAt = DwAt(0x2907);

/// Bytes of an object that are believed, at most: a closure that captures more holds arrays by value.
const OBJECT_BYTES_MAX: u64 = 64 * 1024;

/// A function that a value may call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Callable {
    /// Where its code begins.
    pub(crate) address: Svma,
    pub(crate) name: String,
    /// Captured variables, at their offsets in the object.
    pub(crate) captured: Vec<Member>,
}

/// The functions of the package that holds a site: closures first, then those that the site's function is nearest to by
/// name; `most` at most.
pub(crate) fn callable(view: &View<'_>, site: &Site, most: usize) -> Result<Vec<Callable>, ResolveError> {
    let unit = site.body().unit;
    let functions = Functions::of_unit(view, unit)?;
    // A method value calls a trampoline.
    let is_meant = |name: &str, is_trampoline: bool| !is_trampoline || name.ends_with("-fm");
    let all = functions.concrete.iter();
    let mut found: Vec<_> = all.filter(|function| is_meant(&function.name, function.is_trampoline)).collect();
    // `F.func1` and `F.gowrap1` are closures within `F`, `(*T).M-fm` is a method with its receiver.
    let is_closure = |name: &str| name.contains(".func") || name.contains(".gowrap") || name.ends_with("-fm");
    let outer = site.function.split(".func").next().unwrap_or(&site.function);
    found.sort_by_key(|function| (!function.name.starts_with(outer), !is_closure(&function.name)));
    found.truncate(most);
    found
        .into_iter()
        .map(|function| {
            let captured = captured(view, function.die)?;
            Ok(Callable { address: Svma(function.entry), name: function.name.clone(), captured })
        })
        .collect()
}

fn captured(view: &View<'_>, die: Die) -> Result<Vec<Member>, ResolveError> {
    let unit = view.unit(die.unit)?;
    let mut found = Vec::new();
    super::for_children(&unit, die, |entry| {
        let Some(offset) = unsigned(entry, DW_AT_GO_CLOSURE_OFFSET) else { return };
        // The word at 0 is the address of the code.
        let believed = (8..OBJECT_BYTES_MAX).contains(&offset) && found.len() < super::MEMBERS_MAX;
        if let (true, Some(name)) = (believed, view.name_of(&unit, entry)) {
            let ty = view.target(die.unit, entry.attr_value(gimli::DW_AT_type));
            found.push(Member { name, ty, bits: None, offset, embedded: false });
        }
    })?;
    Ok(found)
}
