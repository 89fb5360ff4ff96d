//! Function values: the address of an object that begins with the address of the code; what a closure captured lies
//! behind it.

use crate::decode::build::Builder;
use crate::decode::memory::Place;
use crate::decode::text;
use crate::layout::FunctionCase;
use crate::limits;
use crate::value::{Scalar, Status, Value};

impl<'a> Builder<'a> {
    /// Fills in a function value: its text is the function's name, its children are what it captured.
    pub(in crate::decode) fn func(
        &mut self,
        value: &mut Value,
        functions: &'a [FunctionCase],
        place: Place<'a>,
        depth: usize,
    ) -> Result<(), Status> {
        let address = place.word(0)?;
        if address == 0 {
            value.value = "nil".to_owned();
            value.scalar = Some(Scalar::Function { nil: true });
            return Ok(());
        }
        value.scalar = Some(Scalar::Function { nil: false });
        let code = self.owned("the function", address, 8)?.word(0)?;
        let Ok(found) = functions.binary_search_by_key(&code, |function| function.address) else {
            // Where the code begins, copies of other functions may lie: the function itself is around them.
            value.value = match self.frames(code).last() {
                Some(frame) => text::short_type(&frame.function),
                None => format!("{} at {code:#x}", text::short_type(&value.type_name)),
            };
            return Ok(());
        };
        let function = &functions[found];
        value.value = text::short_type(&function.name);
        if function.captured.is_empty() {
            return Ok(());
        }
        let object = self.owned("what it captured", address, u64::from(function.bytes))?;
        for captured in function.captured.iter().take(limits::VALUE_CHILDREN_MAX) {
            let bytes = self.bytes_of(captured.ty).unwrap_or(0);
            let part = object.part(captured.offset, bytes);
            // A variable that is captured by reference is a pointer to it, named `&x`.
            let by_reference = captured.name.strip_prefix('&');
            let mut child = self.value(by_reference.unwrap_or(&captured.name).to_owned(), captured.ty, part, depth + 1);
            if by_reference.is_some() && child.children.len() == 1 {
                let name = std::mem::take(&mut child.name);
                child = child.children.swap_remove(0);
                child.name = name;
            }
            value.children.push(child);
        }
        Ok(())
    }
}
