//! Who passes, and when.

use super::empty;
use super::machine::{self, Machine, Processor, SITE};
use crate::capture::program::{Goroutine, GoroutinePointer, Program};
use crate::capture::registers::Registers;
use crate::engine::record::{Record, RecordLayout};
use crate::engine::x86_64::codegen::ThreadPlace;

fn one(machine: &Machine, program: &Program, thread: ThreadPlace) -> Record {
    let layout = RecordLayout::of(program, SITE).unwrap();
    let mut context = machine.context(program, &layout);
    context.thread = thread;
    let loaded = machine.load(&context).unwrap();
    let mut registers = Registers::default();
    registers.gpr[7] = machine.rsp();
    let before = Processor::of(&registers, 0, true);
    machine.run(&loaded, &before).unchanged(&before).unwrap();
    machine.take(&layout, program).records.remove(0)
}

#[test]
fn a_goroutine_and_its_thread_are_found_through_g() {
    let mut machine = Machine::new();
    let (g, m) = (machine.base() + 0x3000, machine.base() + 0x4000);
    let mut memory = vec![0; machine::PAGES * machine::PAGE];
    let mut put = |at: usize, word: u64| memory[at..at + 8].copy_from_slice(&word.to_le_bytes());
    put(0x3000 + 48, m);
    put(0x3000 + 152, 77);
    put(0x4000 + 72, 4711);
    machine.fill(&memory, [true; machine::PAGES]);
    machine::G.with(|cell| cell.set(g));
    let place = machine.g_place();
    let program = Program { goroutine: Some(Goroutine { g: place, goid_offset: 152 }), ..empty() };
    let go = |m_offset| ThreadPlace::Go { g: place, m_offset, procid_offset: 72 };
    let record = one(&machine, &program, go(48));
    assert_eq!((record.thread, record.captured.goroutine), (Some(4711), Some(77)));
    let record = one(&machine, &program, go(56));
    assert_eq!((record.thread, record.captured.goroutine), (None, Some(77)), "no m there");
    assert_eq!(one(&machine, &program, go(u32::MAX)).thread, None);
    assert_eq!(one(&machine, &program, ThreadPlace::Unknown).thread, None);
    assert_eq!(one(&machine, &program, machine.thread_place()).thread, Some(0x1234));
    machine::G.with(|cell| cell.set(0));
    let record = one(&machine, &program, go(48));
    assert_eq!((record.thread, record.captured.goroutine), (None, None), "a thread that is no goroutine's");
    let nowhere = GoroutinePointer::ThreadLocal { offset: i64::MIN + 8 };
    let program = Program { goroutine: Some(Goroutine { g: nowhere, goid_offset: 152 }), ..empty() };
    assert_eq!(one(&machine, &program, ThreadPlace::Unknown).captured.goroutine, None);
}

#[test]
fn a_thread_that_may_not_read_the_clock_leaves_a_record_without_a_time() {
    let machine = Machine::new();
    let allow = |how: libc::c_int| {
        // SAFETY: changes whether this thread may execute rdtsc.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_TSC, how) }, 0);
    };
    let program = empty();
    let layout = RecordLayout::of(&program, SITE).unwrap();
    let loaded = machine.load(&machine.context(&program, &layout)).unwrap();
    let mut registers = Registers::default();
    registers.gpr[7] = machine.rsp();
    let before = Processor::of(&registers, 0, false);
    allow(libc::PR_TSC_SIGSEGV);
    let after = machine.run(&loaded, &before);
    allow(libc::PR_TSC_ENABLE);
    after.unchanged(&before).unwrap();
    let records = machine.take(&layout, &program).records;
    assert_eq!(records.iter().map(|record| record.tsc).collect::<Vec<_>>(), [0]);
}
