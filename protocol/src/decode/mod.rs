//! Raw hits to values: the bytes that the capture program copied, read as their layout says.
//!
//! Values are built where somebody looks at them: [`Decoder`] builds one variable, those of one scope, or all. A value
//! comes as a whole tree, so that an adapter pages over its children and a command line prints it; the tree is small
//! because a hit is ([`crate::limits::HIT_BYTES_MAX`]), and bounded where sharing could blow it up
//! ([`crate::limits::VALUE_NODES_MAX`], [`crate::limits::VALUE_DEPTH_MAX`], [`crate::limits::VALUE_CHILDREN_MAX`]).
//!
//! The texts are those that users of Go's debuggers know: `main.Item {SKU: "a", Qty: 3}`,
//! `[]int len: 3, cap: 4, [1,2,3]`, `*main.Item {...}`, `(*main.Item)(0xc000010000)`.
//!
//! Invariants
//! - Neither the layout nor the hit is believed: whatever does not fit becomes a value that says so. Nothing panics,
//!   and nothing is allocated in proportion to a number that was merely read.
//! - A value is `Exact` only when every byte of its own was there (its children speak for themselves).
//! - A pointer that leads back to what is being shown is not followed again.

mod build;
mod code;
mod go;
mod memory;
mod native;
mod pieces;
pub(crate) mod text;

pub use code::{CODE_ADDRESSES_MAX, CodeNames, CodeWords};
pub use go::GoroutineFacts;

use crate::expression;
use crate::hit::{RawHit, RootState};
use crate::layout::{Layout, Root, Scope, Variable};
use crate::limits;
use crate::value::{Status, Value};
use build::Builder;
use memory::{End, Place};
use std::borrow::Cow;

/// Every variable of a hit, in the order of its layout.
pub fn values(layout: &Layout, raw: &RawHit) -> Vec<Value> {
    Decoder::new(layout, raw).variables(None)
}

/// Reads the variables of one hit. As a [`expression::Scope`] it builds only what an expression names.
#[derive(Debug, Clone, Copy)]
pub struct Decoder<'a> {
    layout: &'a Layout,
    raw: &'a RawHit,
    names: Option<&'a dyn CodeNames>,
}

impl<'a> Decoder<'a> {
    /// A reader of `raw`, whose layout (`raw.layout`) must be the id of `layout`: another layout gives wrong names.
    pub fn new(layout: &'a Layout, raw: &'a RawHit) -> Decoder<'a> {
        Decoder { layout, raw, names: None }
    }

    /// The same, which knows names for addresses of code: without them, those are shown as addresses.
    pub fn with_names(self, names: &'a dyn CodeNames) -> Decoder<'a> {
        Decoder { names: Some(names), ..self }
    }

    fn builder(&self) -> Builder<'a> {
        Builder::new(self.layout, self.raw, self.names)
    }

    /// What is known of the goroutine that passed; `None` outside Go, and where the build does not tell.
    pub fn goroutine(&self) -> Option<GoroutineFacts> {
        let (index, variable) = self.known().find(|(_, variable)| variable.scope == Scope::Goroutine)?;
        Some(go::goroutine(self.raw.goroutine, &self.value(&mut self.builder(), index, variable)))
    }

    /// The variables of one scope, or all of the program's; in the order of the layout. A variable whose name is declared again
    /// further in has its name in parentheses.
    pub fn variables(&self, scope: Option<Scope>) -> Vec<Value> {
        let mut builder = self.builder();
        self.known()
            .filter(|(_, variable)| match scope {
                Some(scope) => variable.scope == scope,
                None => variable.scope != Scope::Goroutine,
            })
            .map(|(index, variable)| {
                let mut value = self.value(&mut builder, index, variable);
                if self.is_shadowed(index, variable) {
                    value.name = format!("({})", value.name);
                }
                value
            })
            .collect()
    }

    /// Whether the layout has a variable of this scope.
    pub fn has(&self, scope: Scope) -> bool {
        self.known().any(|(_, variable)| variable.scope == scope)
    }

    /// The variable of this name; the innermost where it is declared more than once.
    pub fn variable(&self, name: &str) -> Option<Value> {
        let (index, variable) = self.visible().filter(|(_, variable)| variable.name == name).last()?;
        Some(self.value(&mut self.builder(), index, variable))
    }

    fn known(&self) -> impl Iterator<Item = (usize, &'a Variable)> {
        self.layout.variables.iter().take(limits::LAYOUT_VARIABLES_MAX).enumerate()
    }

    /// The variables of the program.
    fn visible(&self) -> impl Iterator<Item = (usize, &'a Variable)> {
        self.known().filter(|(_, variable)| variable.scope != Scope::Goroutine)
    }

    fn is_shadowed(&self, index: usize, variable: &Variable) -> bool {
        let declares = |scope| matches!(scope, Scope::Argument | Scope::Local);
        declares(variable.scope)
            && self.known().skip(index + 1).any(|(_, later)| declares(later.scope) && later.name == variable.name)
    }

    fn value(&self, builder: &mut Builder<'a>, index: usize, variable: &'a Variable) -> Value {
        let mismatch = || memory::missing(End::Mismatch);
        let place = match (&variable.root, self.raw.root_states.get(index)) {
            (Root::Whole { offset, bytes } | Root::Pieces { offset, bytes, .. }, Some(RootState::Captured)) => {
                let start = *offset as usize;
                match start.checked_add(*bytes as usize).and_then(|end| self.raw.roots.get(start..end)) {
                    Some(bytes) => Ok(Place { bytes, end: End::Whole, address: None }),
                    None => Err(mismatch()),
                }
            }
            (Root::Whole { .. } | Root::Pieces { .. }, Some(RootState::Unreadable(address))) => {
                Err(Status::Unreadable { detail: format!("{:#x}", address.0) })
            }
            (Root::Whole { .. } | Root::Pieces { .. }, Some(RootState::OverBudget)) => {
                Err(Status::NotCaptured { detail: "the hit's budget of bytes was used up".to_owned() })
            }
            (Root::Whole { .. } | Root::Pieces { .. }, Some(RootState::Absent) | None) => Err(mismatch()),
            (Root::Partial { present }, _) => Err(Status::Partial { detail: present.clone() }),
            (Root::Suspect { why }, _) => Err(Status::Suspect { detail: why.clone() }),
            (Root::OptimisedOut, _) => Err(Status::OptimisedOut),
            (Root::NotCaptured { why }, _) => Err(Status::NotCaptured { detail: why.clone() }),
            (Root::Redacted, _) => Err(Status::Redacted),
        };
        match place {
            Ok(place) if let Root::Pieces { missing, present, .. } = &variable.root => {
                builder.pieces(&variable.name, variable.ty, place, (missing, present))
            }
            Ok(place) => builder.variable(&variable.name, variable.ty, place),
            Err(status) => Value::missing(variable.name.clone(), builder.type_name(variable.ty), status),
        }
    }
}

impl expression::Scope for Decoder<'_> {
    fn lookup(&self, name: &str) -> Option<Cow<'_, Value>> {
        self.variable(name).map(Cow::Owned)
    }

    fn names(&self) -> Vec<&str> {
        self.visible().map(|(_, variable)| variable.name.as_str()).collect()
    }
}

#[cfg(test)]
mod native_tests;
#[cfg(test)]
mod tests;
