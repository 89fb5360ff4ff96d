//! A passage, from its first instruction to its last: the parts of a body, in their order.

use super::admission::{ADMISSION_LOCALS, Aside, POSITION, RING, admit, stack_room};
use super::condition::{Exits, USES_RBX, emit as emit_condition, need};
use super::emitter::{Emitter, Frame, SAVED};
use super::follow::{FOLLOW_LOCALS, follow, has_any};
use super::roots::{Failures, roots};
use super::stack::{frames, identity};
use super::truth::{Truth, lower};
use super::{Body, BodyContext, CodegenError};
use crate::engine::area::{COUNTER_CONDITION, COUNTER_STACK, RING_HEAD};
use crate::engine::record::{COMMIT, LENGTH, USED};
use iced_x86::code_asm::{CodeAssembler, dword_ptr, gpr32::*, gpr64::*, ptr, qword_ptr};

/// Writes a body, and says how deep it makes the stack. `depth` is what it looks for in the goroutine's stack.
pub(super) fn write(
    asm: &mut CodeAssembler,
    context: &BodyContext<'_>,
    depth: u32,
) -> Result<(Body, u32), CodegenError> {
    let mut emitter = Emitter::new(asm, context.record.site, context.red_zone, context.guard.as_ref());
    let e = &mut emitter;
    let mut aside = Aside::default();
    let end = e.label();
    let truth = context.program.condition.as_ref().map_or(Truth::Known(true), lower);
    let need = need(&truth)?;
    // A condition that needs nothing but rax comes before everything else: when it is false, that was all.
    let is_light = need.frame() == Frame::NONE;
    if !is_light {
        room(e, context, &mut aside, depth)?;
    }
    let holds = e.label();
    let mut aside_of_condition = None;
    if truth != Truth::Known(true) {
        e.save(need.frame().saved)?;
        e.reserve(need.frame().locals)?;
        let frame = e.frame();
        let no = if frame == Frame::NONE { end } else { e.label() };
        let exits = Exits { yes: holds, no, unknown: aside.exit(e, COUNTER_CONDITION) };
        emit_condition(e, &truth, need, exits)?;
        aside_of_condition = Some((no, frame));
    }
    e.bind(holds)?;
    e.unwind(Frame { saved: need.frame().saved, locals: 0 })?;
    if is_light {
        room(e, context, &mut aside, depth)?;
    }
    let mut failures = Failures::default();
    if context.program.count_only {
        admit(e, context, &mut aside, 0, 0)?;
    } else {
        capture(e, context, &mut aside, &mut failures)?;
    }
    let frame = e.frame();
    e.unwind(Frame::NONE)?;
    let to = e.at(end);
    e.a.jmp(to)?;
    e.stack_is(frame);
    failures.write(e)?;
    if let Some((no, frame)) = aside_of_condition.filter(|&(no, _)| no != end) {
        e.stack_is(frame);
        e.bind(no)?;
        e.unwind(Frame::NONE)?;
        e.a.jmp(to)?;
    }
    aside.write(e, context, end)?;
    e.write_guards()?;
    e.stack_is(Frame::NONE);
    e.write_data()?;
    e.bind(end)?;
    let depth = e.depth_max();
    Ok((emitter.finish(), depth))
}

fn room(e: &mut Emitter<'_>, context: &BodyContext<'_>, aside: &mut Aside, depth: u32) -> Result<(), CodegenError> {
    match context.goroutine {
        Some(g) => {
            let none = aside.exit(e, COUNTER_STACK);
            stack_room(e, g, depth, none)
        }
        None if context.guard.is_some() => {
            let none = aside.exit(e, COUNTER_STACK);
            e.guard_stack(depth, none)
        }
        None => Ok(()),
    }
}

/// The hit: admission, and everything that is copied.
fn capture(
    e: &mut Emitter<'_>,
    context: &BodyContext<'_>,
    aside: &mut Aside,
    failures: &mut Failures,
) -> Result<(), CodegenError> {
    let follows = has_any(context);
    let (saved, locals) = if follows { (SAVED.len(), FOLLOW_LOCALS) } else { (USES_RBX, 0) };
    admit(e, context, aside, saved, locals)?;
    identity(e, context)?;
    roots(e, context, failures)?;
    if follows || context.record.frames_max > 0 || context.program.stack_frames_max > 0 {
        frames(e, context)?;
    }
    if follows {
        follow(e, context, ADMISSION_LOCALS)?;
        e.a.mov(edx, r11d)?;
    } else if context.record.frames_max > 0 {
        e.a.mov(rdx, rdi)?;
        e.a.sub(rdx, rbx)?;
    }
    let bytes = context.record.max_bytes;
    let position = qword_ptr(rsp + e.local(POSITION));
    e.a.mov(rax, position)?;
    if follows || context.record.frames_max > 0 {
        // What was not needed is given back, unless the next record lies behind it already.
        let (whole, kept) = (e.label(), e.label());
        let ring = qword_ptr(rsp + e.local(RING));
        let to = e.at(whole);
        e.a.mov(dword_ptr(rbx + USED), edx)?;
        e.a.cmp(edx, bytes)?;
        e.a.jae(to)?;
        e.a.mov(rsi, ring)?;
        e.a.lea(rcx, ptr(rax + rdx))?;
        e.a.add(rax, bytes as i32)?;
        e.a.lock().cmpxchg(qword_ptr(rsi + RING_HEAD), rcx)?;
        let to = e.at(kept);
        e.a.jne(to)?;
        e.a.mov(dword_ptr(rbx + LENGTH), edx)?;
        e.bind(kept)?;
        e.a.mov(rax, position)?;
        e.bind(whole)?;
    } else {
        e.a.mov(dword_ptr(rbx + USED), bytes)?;
    }
    e.a.inc(rax)?;
    // Stored last: x86-64 keeps the order of stores.
    Ok(e.a.mov(qword_ptr(rbx + COMMIT), rax)?)
}
