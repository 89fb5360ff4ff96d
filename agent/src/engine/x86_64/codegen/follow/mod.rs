//! Following: the work list of the record, gone through by a small loop over tables.
//!
//! The code is the same for all programs; what is followed is in tables behind it. The variables are the first work items,
//! described by a table; the chunks of the record are the rest, in the order in which they were reached. The headers of
//! chunks lie in memory that the process can write, so each value from there is bounded before it leads anywhere: items
//! only lead to bytes of this record, walks only to steps of the table.
//!
//! Registers: rbx record, r8 the value at hand and r9 the end of its bytes (offsets in the record), r10 the step, r11 the
//! end of the record so far (offset), r12 the item (a table's or the record's), r13 values left in it, r14 bytes left, r15
//! steps left.

mod tables;

use super::emitter::{Emitter, Label};
use super::reads::Spot;
use super::{BodyContext, CodegenError};
use crate::capture::walk::STEPS_MAX;
use crate::engine::record::{
    HEADER_BYTES, ITEM_ADDRESS, ITEM_ALIAS, ITEM_BYTES, ITEM_COUNT, ITEM_DATA, ITEM_DEPTH, ITEM_DEPTH_MASK, ITEM_FAULT,
    ITEM_GOT, ITEM_STRIDE, ITEM_WALK, ITEM_WANTED, ITEM_WINDOW,
};
use iced_x86::code_asm::{
    AsmMemoryOperand, byte_ptr, dword_ptr, gpr8::*, gpr16::*, gpr32::*, gpr64::*, ptr, qword_ptr, word_ptr,
};
use riptrace_protocol::layout::COUNTS_BYTES;
use riptrace_protocol::limits::HIT_BYTES_MAX;
use tables::{
    CASE_SHIFT, HOW_BEHIND, HOW_BELOW, HOW_MASK, HOW_POWER, HOW_THROUGH, NONE, OP_END, OP_INSIDE, OP_POINTER, OP_SLICE,
    OP_SWITCH, OP_SWITCH_CASES, STEP_AT, STEP_BYTES, STEP_BYTES_AT, STEP_COUNT, STEP_HOW, STEP_MOST, STEP_OP, STEP_TO,
    Tables, VARIABLES_END,
};

/// An item at least this far behind the record's beginning is none of it: it is a table's.
const RECORD_REACH: i32 = 512 * 1024;

/// Variables on the stack, from the first that is free.
const CHUNKS_AT: u32 = 0;
const ITEMS_LEFT: u32 = 8;
/// Where a walk goes on after a case; 0 for nowhere.
const RESUME: u32 = 16;
/// Bytes of them.
pub(super) const FOLLOW_LOCALS: u32 = 24;

/// Whether there is anything to follow.
pub(super) fn has_any(context: &BodyContext<'_>) -> bool {
    context.record.items_max > 0
}

/// Jumps to a label by an instruction.
macro_rules! go {
    ($follow:ident, $jump:ident, $label:ident) => {{
        let to = $follow.e.at($follow.labels.$label);
        $follow.e.a.$jump(to)?;
    }};
}

/// Places in the code.
struct Labels {
    item: Label,
    start: Label,
    element: Label,
    next_element: Label,
    next_item: Label,
    variables_end: Label,
    step: Label,
    next_step: Label,
    skip_switch: Label,
    end_of_walk: Label,
    slice: Label,
    run: Label,
    inside: Label,
    switch: Label,
    through: Label,
    through_key: Label,
    have_key: Label,
    elements: Label,
    chunk: Label,
    chunk_done: Label,
    finish: Label,
}

impl Labels {
    fn new(e: &mut Emitter<'_>) -> Labels {
        Labels {
            item: e.label(),
            start: e.label(),
            element: e.label(),
            next_element: e.label(),
            next_item: e.label(),
            variables_end: e.label(),
            step: e.label(),
            next_step: e.label(),
            skip_switch: e.label(),
            end_of_walk: e.label(),
            slice: e.label(),
            run: e.label(),
            inside: e.label(),
            switch: e.label(),
            through: e.label(),
            through_key: e.label(),
            have_key: e.label(),
            elements: e.label(),
            chunk: e.label(),
            chunk_done: e.label(),
            finish: e.label(),
        }
    }
}

struct Follow<'e, 'a, 'c> {
    e: &'e mut Emitter<'a>,
    context: &'c BodyContext<'c>,
    labels: Labels,
    /// Offset of the first variable on the stack.
    locals: u32,
    steps_bytes: u32,
    variables: Label,
    steps: Label,
    cases: Label,
}

/// Follows what the variables point to. rdi is behind the call stack; r11 is the record's end then.
pub(super) fn follow(e: &mut Emitter<'_>, context: &BodyContext<'_>, locals: u32) -> Result<(), CodegenError> {
    let tables = Tables::of(context);
    let steps_bytes = tables.steps.len() as u32;
    let [variables, steps, cases] = [tables.variables, tables.steps, tables.cases].map(|table| e.data(&table));
    let labels = Labels::new(e);
    let mut follow = Follow { e, context, labels, locals, steps_bytes, variables, steps, cases };
    follow.begin()?;
    follow.items()?;
    follow.dispatch()?;
    follow.slices()?;
    follow.inside()?;
    follow.switch()?;
    follow.chunk()?;
    follow.end()
}

impl Follow<'_, '_, '_> {
    fn local(&self, offset: u32) -> AsmMemoryOperand {
        qword_ptr(rsp + self.e.local(self.locals + offset))
    }

    /// A field of the header that the next item will have.
    fn field(offset: usize) -> AsmMemoryOperand {
        rbx + r11 + offset as i32
    }

    fn begin(&mut self) -> Result<(), CodegenError> {
        let record = self.context.record;
        let (chunks_at, items_left) = (self.local(CHUNKS_AT), self.local(ITEMS_LEFT));
        self.e.a.sub(rdi, rbx)?;
        self.e.a.mov(r11, rdi)?;
        self.e.a.mov(chunks_at, r11)?;
        self.e.a.mov(items_left, record.items_max as i32)?;
        self.e.a.mov(r14d, record.chunk_bytes_max)?;
        self.e.a.mov(r15d, STEPS_MAX as u32)?;
        let table = self.e.at(self.variables);
        Ok(self.e.a.lea(r12, ptr(table))?)
    }

    /// Work item by work item, value by value.
    fn items(&mut self) -> Result<(), CodegenError> {
        let record = self.context.record;
        let (chunks_at, resume) = (self.local(CHUNKS_AT), self.local(RESUME));
        self.e.bind(self.labels.item)?;
        self.e.a.mov(rax, r12)?;
        self.e.a.sub(rax, rbx)?;
        self.e.a.cmp(rax, r11)?;
        go!(self, jb, start);
        self.e.a.cmp(rax, RECORD_REACH)?;
        go!(self, jb, finish);
        self.e.a.cmp(dword_ptr(r12 + ITEM_WALK), VARIABLES_END as i32)?;
        go!(self, je, variables_end);
        if record.failed_words > 0 {
            // A variable that could not be read leads nowhere.
            self.e.a.mov(rcx, qword_ptr(r12 + ITEM_ADDRESS))?;
            self.e.a.test(rcx, rcx)?;
            go!(self, je, start);
            self.e.a.dec(rcx)?;
            self.e.a.mov(rax, rcx)?;
            self.e.a.shr(eax, 6)?;
            self.e.a.mov(rax, qword_ptr(rbx + rax * 8 + HEADER_BYTES))?;
            self.e.a.bt(rax, rcx)?;
            go!(self, jc, next_item);
        }
        self.e.bind(self.labels.start)?;
        self.e.a.movzx(r13d, word_ptr(r12 + ITEM_COUNT))?;
        self.e.a.test(r13d, r13d)?;
        go!(self, je, next_item);
        self.e.a.mov(r8d, dword_ptr(r12 + ITEM_DATA))?;
        self.e.a.mov(r9d, dword_ptr(r12 + ITEM_WINDOW))?;
        self.e.a.add(r9, r8)?;
        self.e.a.cmp(r9, record.max_bytes as i32)?;
        go!(self, ja, next_item);

        self.e.bind(self.labels.element)?;
        self.e.a.cmp(r8, r9)?;
        go!(self, jae, next_item);
        self.e.a.sub(r15d, 1)?;
        go!(self, jb, finish);
        self.e.a.mov(eax, dword_ptr(r12 + ITEM_WALK))?;
        self.e.a.cmp(eax, self.steps_bytes as i32)?;
        go!(self, jae, next_item);
        self.e.a.and(eax, -(STEP_BYTES as i32))?;
        let steps = self.e.at(self.steps);
        self.e.a.lea(r10, ptr(steps))?;
        self.e.a.add(r10, rax)?;
        self.e.a.mov(resume, 0)?;
        go!(self, jmp, step);

        self.e.bind(self.labels.end_of_walk)?;
        self.e.a.mov(rax, resume)?;
        self.e.a.test(rax, rax)?;
        go!(self, je, next_element);
        self.e.a.mov(r10, rax)?;
        self.e.a.mov(resume, 0)?;
        go!(self, jmp, step);

        self.e.bind(self.labels.next_element)?;
        self.e.a.mov(eax, dword_ptr(r12 + ITEM_STRIDE))?;
        self.e.a.add(r8, rax)?;
        self.e.a.dec(r13d)?;
        go!(self, jne, element);

        self.e.bind(self.labels.next_item)?;
        self.e.a.mov(eax, dword_ptr(r12 + ITEM_GOT))?;
        self.e.a.cmp(eax, HIT_BYTES_MAX as i32)?;
        go!(self, ja, finish);
        self.e.a.add(eax, 7)?;
        self.e.a.and(eax, -8)?;
        self.e.a.lea(r12, ptr(r12 + rax + ITEM_BYTES))?;
        go!(self, jmp, item);

        self.e.bind(self.labels.variables_end)?;
        self.e.a.mov(r12, chunks_at)?;
        self.e.a.add(r12, rbx)?;
        go!(self, jmp, item);
        Ok(())
    }

    /// One step: rdx is its place, rsi its word (but for values inside and switches), edi the depth.
    fn dispatch(&mut self) -> Result<(), CodegenError> {
        self.e.bind(self.labels.next_step)?;
        self.e.a.add(r10, STEP_BYTES as i32)?;
        self.e.bind(self.labels.step)?;
        self.e.a.movzx(eax, byte_ptr(r10 + STEP_OP))?;
        self.e.a.cmp(eax, i32::from(OP_END))?;
        go!(self, je, end_of_walk);
        self.e.a.sub(r15d, 1)?;
        go!(self, jb, finish);
        self.e.a.mov(edx, dword_ptr(r10 + STEP_AT))?;
        self.e.a.add(rdx, r8)?;
        self.e.a.movzx(edi, word_ptr(r12 + ITEM_DEPTH))?;
        self.e.a.and(edi, i32::from(ITEM_DEPTH_MASK))?;
        self.e.a.cmp(eax, i32::from(OP_INSIDE))?;
        go!(self, je, inside);
        go!(self, ja, switch);
        self.e.a.lea(rcx, ptr(rdx + 8))?;
        self.e.a.cmp(rcx, r9)?;
        go!(self, ja, next_step);
        self.e.a.mov(rsi, qword_ptr(rbx + rdx))?;
        self.e.a.cmp(eax, i32::from(OP_SLICE))?;
        go!(self, je, slice);
        go!(self, ja, run);
        self.e.a.cmp(eax, i32::from(OP_POINTER))?;
        let text = self.e.label();
        let to = self.e.at(text);
        self.e.a.jne(to)?;
        self.e.a.movzx(eax, byte_ptr(r10 + STEP_HOW))?;
        self.e.a.sub(edi, eax)?;
        go!(self, jb, next_step);
        self.e.a.mov(rax, qword_ptr(r10 + STEP_BYTES_AT))?;
        self.e.a.mov(rcx, rax)?;
        self.e.a.mov(edx, 1)?;
        go!(self, jmp, chunk);

        self.e.bind(text)?;
        self.e.a.lea(rcx, ptr(rdx + 16))?;
        self.e.a.cmp(rcx, r9)?;
        go!(self, ja, next_step);
        self.e.a.mov(rax, qword_ptr(rbx + rdx + 8))?;
        self.e.a.test(rax, rax)?;
        go!(self, js, next_step);
        self.e.a.mov(rcx, qword_ptr(r10 + STEP_MOST))?;
        self.e.a.cmp(rax, rcx)?;
        self.e.a.cmovb(rcx, rax)?;
        self.e.a.xor(edx, edx)?;
        go!(self, jmp, chunk);
        Ok(())
    }

    /// Slices and runs: rax elements, of which rdi are taken.
    fn slices(&mut self) -> Result<(), CodegenError> {
        self.e.bind(self.labels.slice)?;
        self.e.a.lea(rcx, ptr(rdx + 24))?;
        self.e.a.cmp(rcx, r9)?;
        go!(self, ja, next_step);
        self.e.a.mov(rax, qword_ptr(rbx + rdx + 8))?;
        self.e.a.test(rax, rax)?;
        go!(self, js, next_step);
        self.e.a.mov(rcx, qword_ptr(rbx + rdx + 16))?;
        // A negative capacity is less than any length.
        self.e.a.cmp(rcx, rax)?;
        go!(self, jl, next_step);
        self.e.a.mov(rdi, qword_ptr(r10 + STEP_MOST))?;
        self.e.a.cmp(rax, rdi)?;
        self.e.a.cmovb(rdi, rax)?;
        go!(self, jmp, elements);

        self.e.bind(self.labels.run)?;
        let [mask, power, end, counted, not_behind] = [(); 5].map(|()| self.e.label());
        self.e.a.mov(ecx, dword_ptr(r10 + STEP_COUNT))?;
        self.e.a.add(rcx, r8)?;
        self.e.a.lea(rax, ptr(rcx + 8))?;
        self.e.a.cmp(rax, r9)?;
        go!(self, ja, next_step);
        self.e.a.mov(rax, qword_ptr(rbx + rcx))?;
        self.e.a.movzx(ecx, byte_ptr(r10 + STEP_HOW))?;
        self.e.a.cmp(ecx, i32::from(HOW_MASK))?;
        let to = self.e.at(mask);
        self.e.a.je(to)?;
        let to = self.e.at(power);
        self.e.a.ja(to)?;
        self.e.a.test(rax, rax)?;
        go!(self, js, next_step);
        let to = self.e.at(counted);
        self.e.a.jmp(to)?;
        self.e.bind(mask)?;
        self.e.a.add(rax, 1)?;
        go!(self, jc, next_step);
        self.e.a.jmp(to)?;
        self.e.bind(end)?;
        self.e.a.sub(rax, rsi)?;
        go!(self, jb, next_step);
        self.e.a.mov(rcx, qword_ptr(r10 + STEP_BYTES_AT))?;
        self.e.a.test(rcx, rcx)?;
        go!(self, je, next_step);
        self.e.a.xor(edx, edx)?;
        self.e.a.div(rcx)?;
        self.e.a.test(rdx, rdx)?;
        go!(self, jne, next_step);
        self.e.a.jmp(to)?;
        self.e.bind(power)?;
        self.e.a.cmp(ecx, i32::from(HOW_BEHIND))?;
        let to_not_behind = self.e.at(not_behind);
        self.e.a.jne(to_not_behind)?;
        self.e.a.test(rax, rax)?;
        go!(self, js, next_step);
        self.e.a.add(rsi, COUNTS_BYTES as i32)?;
        self.e.a.jmp(to)?;
        self.e.bind(not_behind)?;
        self.e.a.cmp(ecx, i32::from(HOW_BELOW))?;
        let to_mask = self.e.at(mask);
        self.e.a.je(to_mask)?;
        self.e.a.cmp(ecx, i32::from(HOW_POWER))?;
        let to_end = self.e.at(end);
        self.e.a.jne(to_end)?;
        self.e.a.movzx(ecx, al)?;
        self.e.a.cmp(ecx, 62)?;
        go!(self, ja, next_step);
        self.e.a.mov(eax, 1)?;
        self.e.a.shl(rax, cl)?;
        self.e.bind(counted)?;
        self.e.a.mov(rdi, qword_ptr(r10 + STEP_MOST))?;
        self.e.a.cmp(rax, rdi)?;
        self.e.a.cmovb(rdi, rax)?;

        self.e.bind(self.labels.elements)?;
        self.e.a.mov(rcx, rax)?;
        for count in [rcx, rdi] {
            // The carry is all ones where the product has more than 64 bits.
            self.e.a.mov(rax, qword_ptr(r10 + STEP_BYTES_AT))?;
            self.e.a.mul(count)?;
            self.e.a.sbb(rdx, rdx)?;
            self.e.a.or(rax, rdx)?;
            if count == rcx {
                self.e.a.mov(rcx, rax)?;
            }
        }
        self.e.a.xchg(rax, rcx)?;
        // A slice's step says nothing there, which is the first way.
        let forwards = self.e.label();
        self.e.a.cmp(byte_ptr(r10 + STEP_HOW), i32::from(HOW_BELOW))?;
        let to = self.e.at(forwards);
        self.e.a.jne(to)?;
        self.e.a.sub(rsi, rcx)?;
        self.e.a.mov(rax, rcx)?;
        self.e.bind(forwards)?;
        self.e.a.mov(edx, STEPS_MAX as u32)?;
        self.e.a.cmp(rdi, rdx)?;
        self.e.a.cmovb(rdx, rdi)?;
        self.e.a.movzx(edi, word_ptr(r12 + ITEM_DEPTH))?;
        self.e.a.and(edi, i32::from(ITEM_DEPTH_MASK))?;
        go!(self, jmp, chunk);
        Ok(())
    }

    /// Values that are there already: an item without bytes of its own.
    fn inside(&mut self) -> Result<(), CodegenError> {
        let items_left = self.local(ITEMS_LEFT);
        self.e.bind(self.labels.inside)?;
        self.e.a.mov(rcx, r9)?;
        self.e.a.sub(rcx, rdx)?;
        go!(self, jbe, next_step);
        self.e.a.cmp(items_left, 0)?;
        go!(self, je, next_step);
        self.e.a.dec(items_left)?;
        self.e.a.xor(eax, eax)?;
        self.e.a.mov(qword_ptr(Self::field(ITEM_ADDRESS)), rax)?;
        self.e.a.mov(qword_ptr(Self::field(ITEM_WANTED)), rax)?;
        self.e.a.mov(dword_ptr(Self::field(ITEM_GOT)), eax)?;
        self.e.a.mov(dword_ptr(Self::field(ITEM_DATA)), edx)?;
        self.e.a.mov(dword_ptr(Self::field(ITEM_WINDOW)), ecx)?;
        self.e.a.mov(eax, dword_ptr(r10 + STEP_TO))?;
        self.e.a.mov(dword_ptr(Self::field(ITEM_WALK)), eax)?;
        self.e.a.mov(eax, dword_ptr(r10 + STEP_COUNT))?;
        self.e.a.mov(word_ptr(Self::field(ITEM_COUNT)), ax)?;
        self.e.a.or(edi, i32::from(ITEM_ALIAS))?;
        self.e.a.mov(word_ptr(Self::field(ITEM_DEPTH)), di)?;
        self.stride()?;
        self.e.a.add(r11, ITEM_BYTES as i32)?;
        go!(self, jmp, next_step);
        Ok(())
    }

    /// Writes the distance of values: beyond a hit's bytes all distances are the same. Uses rax and rdx.
    fn stride(&mut self) -> Result<(), CodegenError> {
        self.e.a.mov(rax, qword_ptr(r10 + STEP_BYTES_AT))?;
        self.e.a.mov(edx, HIT_BYTES_MAX as u32)?;
        self.e.a.cmp(rax, rdx)?;
        self.e.a.cmova(rax, rdx)?;
        Ok(self.e.a.mov(dword_ptr(Self::field(ITEM_STRIDE)), eax)?)
    }

    fn switch(&mut self) -> Result<(), CodegenError> {
        let resume = self.local(RESUME);
        let [again, upper, found, otherwise, chosen] = [(); 5].map(|()| self.e.label());
        let second = STEP_BYTES;
        self.e.bind(self.labels.switch)?;
        // The second half of a switch is no step: only garbage leads here.
        self.e.a.cmp(eax, i32::from(OP_SWITCH_CASES))?;
        go!(self, je, next_step);
        self.e.a.movzx(ecx, byte_ptr(r10 + STEP_HOW))?;
        self.e.a.cmp(ecx, i32::from(HOW_THROUGH))?;
        go!(self, je, through);
        self.e.a.lea(rax, ptr(rdx + rcx))?;
        self.e.a.cmp(rax, r9)?;
        go!(self, ja, skip_switch);
        // What lies behind a short key is the record's own, and shifted out.
        self.e.a.xor(eax, eax)?;
        self.e.a.test(ecx, ecx)?;
        go!(self, je, have_key);
        self.e.a.mov(rax, qword_ptr(rbx + rdx))?;
        self.e.a.neg(ecx)?;
        self.e.a.lea(ecx, ptr(rcx * 8 + 64))?;
        self.e.a.shl(rax, cl)?;
        self.e.a.shr(rax, cl)?;

        // Binary search for rax: ecx to edx of the cases at rdi.
        self.e.bind(self.labels.have_key)?;
        let cases = self.e.at(self.cases);
        self.e.a.lea(rdi, ptr(cases))?;
        self.e.a.add(rdi, qword_ptr(r10 + (second + STEP_BYTES_AT)))?;
        self.e.a.xor(ecx, ecx)?;
        self.e.a.mov(edx, dword_ptr(r10 + (second + STEP_COUNT)))?;
        self.e.bind(again)?;
        self.e.a.cmp(ecx, edx)?;
        let to = self.e.at(otherwise);
        self.e.a.jae(to)?;
        self.e.a.lea(esi, ptr(rcx + rdx))?;
        self.e.a.shr(esi, 1)?;
        self.e.a.shl(rsi, CASE_SHIFT)?;
        self.e.a.cmp(rax, qword_ptr(rdi + rsi))?;
        let to = self.e.at(found);
        self.e.a.je(to)?;
        let to = self.e.at(upper);
        self.e.a.ja(to)?;
        let to = self.e.at(again);
        self.e.a.shr(esi, CASE_SHIFT)?;
        self.e.a.mov(edx, esi)?;
        self.e.a.jmp(to)?;
        self.e.bind(upper)?;
        self.e.a.shr(esi, CASE_SHIFT)?;
        self.e.a.lea(ecx, ptr(rsi + 1))?;
        self.e.a.jmp(to)?;
        self.e.bind(found)?;
        self.e.a.mov(eax, dword_ptr(rdi + rsi + 8))?;
        let to = self.e.at(chosen);
        self.e.a.jmp(to)?;
        self.e.bind(otherwise)?;
        self.e.a.mov(eax, dword_ptr(r10 + (second + STEP_TO)))?;
        self.e.bind(chosen)?;
        self.e.a.cmp(eax, NONE as i32)?;
        go!(self, je, skip_switch);
        self.e.a.add(r10, 2 * second as i32)?;
        self.e.a.mov(resume, r10)?;
        let steps = self.e.at(self.steps);
        self.e.a.lea(r10, ptr(steps))?;
        self.e.a.add(r10, rax)?;
        go!(self, jmp, step);

        self.e.bind(self.labels.skip_switch)?;
        self.e.a.add(r10, 2 * second as i32)?;
        go!(self, jmp, step);

        self.e.bind(self.labels.through)?;
        self.e.a.lea(rcx, ptr(rdx + 8))?;
        self.e.a.cmp(rcx, r9)?;
        go!(self, ja, skip_switch);
        self.e.a.mov(rsi, qword_ptr(rbx + rdx))?;
        self.e.a.test(rsi, rsi)?;
        go!(self, je, skip_switch);
        self.e.a.mov(rax, qword_ptr(r10 + STEP_BYTES_AT))?;
        self.e.a.mov(rcx, rax)?;
        self.e.a.xor(edx, edx)?;
        go!(self, jmp, chunk);
        self.e.bind(self.labels.through_key)?;
        self.e.a.mov(edx, dword_ptr(r10 + STEP_AT))?;
        self.e.a.add(rdx, r8)?;
        self.e.a.mov(rsi, qword_ptr(rbx + rdx))?;
        self.e.a.add(rsi, qword_ptr(r10 + STEP_MOST))?;
        let skip = self.labels.skip_switch;
        self.e.guard(Spot { base: rsi, displacement: 0 }, 8, skip)?;
        self.e.may_fault(skip);
        self.e.a.mov(rax, qword_ptr(rsi))?;
        go!(self, jmp, have_key);
        Ok(())
    }

    /// rax bytes at rsi, of which rcx are taken; edx values in them, of depth edi.
    fn chunk(&mut self) -> Result<(), CodegenError> {
        let (chunks_at, items_left) = (self.local(CHUNKS_AT), self.local(ITEMS_LEFT));
        let field = Self::field;
        let [scan, differs, not_within, scanned, known] = [(); 5].map(|()| self.e.label());
        self.e.bind(self.labels.chunk)?;
        self.e.a.test(rsi, rsi)?;
        go!(self, je, chunk_done);
        self.e.a.test(rax, rax)?;
        go!(self, je, chunk_done);
        self.e.a.cmp(items_left, 0)?;
        go!(self, je, chunk_done);
        // The header, as far as it is known; it counts when the record's end moves behind it.
        self.e.a.mov(qword_ptr(field(ITEM_ADDRESS)), rsi)?;
        self.e.a.mov(qword_ptr(field(ITEM_WANTED)), rax)?;
        self.e.a.mov(word_ptr(field(ITEM_COUNT)), dx)?;
        self.e.a.mov(word_ptr(field(ITEM_DEPTH)), di)?;
        self.e.a.mov(eax, dword_ptr(r10 + STEP_TO))?;
        self.e.a.mov(dword_ptr(field(ITEM_WALK)), eax)?;
        self.stride()?;
        self.e.a.mov(dword_ptr(field(ITEM_DATA)), 0)?;
        // Was it followed before, or is it within a chunk? rdi goes through the items.
        self.e.a.mov(rdi, chunks_at)?;
        self.e.a.add(rdi, rbx)?;
        self.e.bind(scan)?;
        self.e.a.lea(rdx, ptr(rbx + r11))?;
        self.e.a.cmp(rdi, rdx)?;
        let to_scanned = self.e.at(scanned);
        self.e.a.jae(to_scanned)?;
        let to = self.e.at(differs);
        self.e.a.cmp(qword_ptr(rdi + ITEM_ADDRESS), rsi)?;
        self.e.a.jne(to)?;
        self.e.a.mov(rax, qword_ptr(rdi + ITEM_WANTED))?;
        self.e.a.cmp(rax, qword_ptr(rdx + ITEM_WANTED))?;
        self.e.a.jne(to)?;
        self.e.a.mov(eax, dword_ptr(rdi + ITEM_WALK))?;
        self.e.a.cmp(eax, dword_ptr(rdx + ITEM_WALK))?;
        go!(self, je, chunk_done);
        self.e.bind(differs)?;
        let to = self.e.at(not_within);
        self.e.a.mov(rdx, rsi)?;
        self.e.a.sub(rdx, qword_ptr(rdi + ITEM_ADDRESS))?;
        self.e.a.mov(eax, dword_ptr(rdi + ITEM_GOT))?;
        self.e.a.sub(rax, rdx)?;
        self.e.a.jbe(to)?;
        self.e.a.cmp(rcx, rax)?;
        self.e.a.ja(to)?;
        // The first chunk that holds it.
        self.e.a.cmp(dword_ptr(field(ITEM_DATA)), 0)?;
        self.e.a.jne(to)?;
        self.e.a.lea(rax, ptr(rdi + rdx + ITEM_BYTES))?;
        self.e.a.sub(rax, rbx)?;
        self.e.a.mov(dword_ptr(field(ITEM_DATA)), eax)?;
        self.e.bind(not_within)?;
        self.e.a.mov(eax, dword_ptr(rdi + ITEM_GOT))?;
        self.e.a.cmp(eax, HIT_BYTES_MAX as i32)?;
        self.e.a.ja(to_scanned)?;
        self.e.a.add(eax, 7)?;
        self.e.a.and(eax, -8)?;
        self.e.a.lea(rdi, ptr(rdi + rax + ITEM_BYTES))?;
        let to = self.e.at(scan);
        self.e.a.jmp(to)?;

        self.e.bind(scanned)?;
        self.e.a.cmp(dword_ptr(field(ITEM_DATA)), 0)?;
        let to = self.e.at(known);
        self.e.a.jne(to)?;
        self.copy()?;
        self.e.a.dec(items_left)?;
        go!(self, jmp, chunk_done);

        self.e.bind(known)?;
        self.e.a.cmp(dword_ptr(field(ITEM_WALK)), NONE as i32)?;
        go!(self, je, chunk_done);
        self.e.a.cmp(word_ptr(field(ITEM_COUNT)), 0)?;
        go!(self, je, chunk_done);
        self.e.a.mov(dword_ptr(field(ITEM_WINDOW)), ecx)?;
        self.e.a.mov(dword_ptr(field(ITEM_GOT)), 0)?;
        self.e.a.or(word_ptr(field(ITEM_DEPTH)), i32::from(ITEM_ALIAS))?;
        self.e.a.add(r11, ITEM_BYTES as i32)?;
        self.e.a.dec(items_left)?;

        self.e.bind(self.labels.chunk_done)?;
        self.e.a.cmp(byte_ptr(r10 + STEP_OP), i32::from(OP_SWITCH))?;
        go!(self, je, through_key);
        go!(self, jmp, next_step);
        Ok(())
    }

    /// Copies up to rcx bytes from rsi behind the new header, as many as are mapped, and completes it.
    fn copy(&mut self) -> Result<(), CodegenError> {
        let field = Self::field;
        let [blocks, words, bytes, faulted, copied] = [(); 5].map(|()| self.e.label());
        self.e.a.cmp(rcx, r14)?;
        self.e.a.cmova(rcx, r14)?;
        self.e.a.lea(rdi, ptr(field(ITEM_BYTES)))?;
        if self.e.is_guarded() {
            let (cut, ready) = (self.e.label(), self.e.label());
            self.e.guard_as_many(cut)?;
            let to = self.e.at(ready);
            self.e.a.jmp(to)?;
            self.e.bind(cut)?;
            self.e.a.or(word_ptr(field(ITEM_DEPTH)), i32::from(ITEM_FAULT))?;
            self.e.bind(ready)?;
        }
        self.e.bind(blocks)?;
        self.e.a.cmp(rcx, 32)?;
        let to = self.e.at(words);
        self.e.a.jb(to)?;
        for word in 0..4 {
            // What was stored of a block that faults is stored again.
            self.e.may_fault(words);
            self.e.a.mov(rax, qword_ptr(rsi + word * 8))?;
            self.e.a.mov(qword_ptr(rdi + word * 8), rax)?;
        }
        self.e.a.add(rsi, 32)?;
        self.e.a.add(rdi, 32)?;
        self.e.a.sub(rcx, 32)?;
        let to = self.e.at(blocks);
        self.e.a.jmp(to)?;
        self.e.bind(words)?;
        self.e.a.cmp(rcx, 8)?;
        let to = self.e.at(bytes);
        self.e.a.jb(to)?;
        self.e.may_fault(bytes);
        self.e.a.mov(rax, qword_ptr(rsi))?;
        self.e.a.mov(qword_ptr(rdi), rax)?;
        self.e.a.add(rsi, 8)?;
        self.e.a.add(rdi, 8)?;
        self.e.a.sub(rcx, 8)?;
        let to = self.e.at(words);
        self.e.a.jmp(to)?;
        self.e.bind(bytes)?;
        self.e.a.test(rcx, rcx)?;
        let to = self.e.at(copied);
        self.e.a.je(to)?;
        self.e.may_fault(faulted);
        self.e.a.movzx(eax, byte_ptr(rsi))?;
        self.e.a.mov(byte_ptr(rdi), al)?;
        self.e.a.inc(rsi)?;
        self.e.a.inc(rdi)?;
        self.e.a.dec(rcx)?;
        let to = self.e.at(bytes);
        self.e.a.jmp(to)?;
        self.e.bind(faulted)?;
        self.e.a.or(word_ptr(field(ITEM_DEPTH)), i32::from(ITEM_FAULT))?;
        self.e.bind(copied)?;
        self.e.a.lea(rax, ptr(field(ITEM_BYTES)))?;
        self.e.a.sub(rdi, rax)?;
        self.e.a.mov(dword_ptr(field(ITEM_GOT)), edi)?;
        self.e.a.mov(dword_ptr(field(ITEM_WINDOW)), edi)?;
        self.e.a.lea(eax, ptr(r11 + ITEM_BYTES))?;
        self.e.a.mov(dword_ptr(field(ITEM_DATA)), eax)?;
        self.e.a.sub(r14, rdi)?;
        self.e.a.add(edi, 7)?;
        self.e.a.and(edi, -8)?;
        Ok(self.e.a.lea(r11, ptr(r11 + rdi + ITEM_BYTES))?)
    }

    /// What was written of a header that does not count is zero again, as the ring is where no record is.
    fn end(&mut self) -> Result<(), CodegenError> {
        let items_left = self.local(ITEMS_LEFT);
        let clean = self.e.label();
        self.e.bind(self.labels.finish)?;
        self.e.a.cmp(items_left, 0)?;
        let to = self.e.at(clean);
        self.e.a.je(to)?;
        self.e.a.xor(eax, eax)?;
        for word in (0..ITEM_BYTES).step_by(8) {
            self.e.a.mov(qword_ptr(Self::field(word)), rax)?;
        }
        self.e.bind(clean)
    }
}
