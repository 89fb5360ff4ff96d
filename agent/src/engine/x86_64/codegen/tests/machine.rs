//! A place to run bodies in: executable memory with an island's control and rings, a process's memory with holes, and a
//! trampoline that gives a body all registers and takes them back. Faults go where the body's fixups say.

use super::super::{Body, BodyContext, CodegenError, ThreadPlace, emit};
use crate::capture::memory::{Image, Memory};
use crate::capture::program::{GoroutinePointer, Program};
use crate::capture::registers::Registers;
use crate::engine::area::{
    CODE_BYTES, CONTROL_BYTES, COUNTERS_BYTES, Island, PROBE_TOKENS, PROBES_MAX, RING_BYTES, RING_CONTROL_BYTES,
    RING_HEAD, RING_TAIL, TABLES_BYTES,
};
use crate::engine::record::{COMMIT, LENGTH, Record, RecordLayout, USED, decode};
use iced_x86::code_asm::{CodeAssembler, gpr8::*, gpr64::*, ptr};
use iced_x86::{BlockEncoderOptions, Code, Instruction, MemoryOperand, Register as Iced};
use riptrace_protocol::ids::Avma;
use std::cell::Cell;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, Once};

/// CPUs that have a ring: fewer than the machine may have, so that the clamp is exercised where there are more.
pub(super) const CPUS: u32 = 4;
pub(super) const PAGE: usize = 4096;
/// Pages of the process's memory; which of them can be read is the test's.
pub(super) const PAGES: usize = 12;
/// The stack's page: bodies push below its middle. The page before it cannot be read, so that nothing that is read from
/// elsewhere runs into what they push.
pub(super) const STACK_PAGE: usize = 1;
pub(super) const PROBE: u32 = 3;
pub(super) const KIND: u32 = 0x5151;
pub(super) const SITE: Avma = Avma(0x40_1234);
/// Where the process's memory is wanted: a seed gives the same case each time.
const MEMORY: u64 = 0x6a00_0000_0000;
/// Bytes below the stack pointer that no test's memory leads to.
pub(super) const BELOW: usize = 1024;

/// State of the processor, as the trampoline loads and stores it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Processor {
    /// By hardware number.
    pub(super) gpr: [u64; 16],
    pub(super) flags: u64,
    pub(super) host: u64,
    pub(super) xmm: [[u8; 16]; 16],
}

/// Hardware numbers of DWARF's registers.
pub(super) const HARDWARE: [usize; 16] = [0, 2, 1, 3, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15];
const GPRS: [Iced; 16] = [
    Iced::RAX,
    Iced::RCX,
    Iced::RDX,
    Iced::RBX,
    Iced::RSP,
    Iced::RBP,
    Iced::RSI,
    Iced::RDI,
    Iced::R8,
    Iced::R9,
    Iced::R10,
    Iced::R11,
    Iced::R12,
    Iced::R13,
    Iced::R14,
    Iced::R15,
];
const RSP: usize = 4;
/// Carry, parity, adjust, zero, sign, overflow: what a pad keeps by itself.
pub(super) const STATUS_FLAGS: u64 = 0x8d5;
const DIRECTION_FLAG: u64 = 0x400;

/// Where faults may happen, and where to go on: addresses, in order.
static FIXUPS: AtomicPtr<Vec<(u64, u64)>> = AtomicPtr::new(std::ptr::null_mut());
/// Faults that were recovered from.
pub(super) static FAULTS: AtomicUsize = AtomicUsize::new(0);
/// One body runs at a time: the fixups are one.
static RUNNING: Mutex<()> = Mutex::new(());

thread_local! {
    /// Where the bodies find the address of their `g`.
    pub(super) static G: Cell<u64> = const { Cell::new(0) };
    /// Where they find their thread id.
    pub(super) static THREAD_ID: Cell<u64> = const { Cell::new(0x1234) };
}

/// Base of the FS segment of this thread: the C library keeps it in the first word there.
pub(super) fn fs_base() -> u64 {
    let base;
    // SAFETY: reads the first word of the thread control block (x86-64 TLS ABI: it holds its own address).
    unsafe { std::arch::asm!("mov {}, fs:0", out(reg) base, options(nostack, readonly)) };
    base
}

extern "C" fn on_fault(signal: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a ucontext_t to handlers with SA_SIGINFO.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let rip = &mut registers[libc::REG_RIP as usize];
    let fixups = FIXUPS.load(Ordering::Acquire);
    // SAFETY: it is null, or lives until it is taken back after the body has ended.
    let fixups = unsafe { fixups.as_ref() };
    let found =
        fixups.and_then(|fixups| fixups.binary_search_by_key(&(*rip as u64), |&(at, _)| at).ok().map(|i| fixups[i].1));
    match found {
        Some(recovery) => {
            FAULTS.fetch_add(1, Ordering::Relaxed);
            *rip = recovery as i64;
        }
        // Not ours: the access is made again, and ends the process.
        // SAFETY: resets a signal's action.
        None => unsafe {
            libc::signal(signal, libc::SIG_DFL);
        },
    }
}

fn handle_faults() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: installs a handler that only looks at its own table; all fields of sigaction are set.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut());
            libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
        }
    });
}

/// Memory of this process that is unmapped again.
struct Mapping {
    at: u64,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize, protection: i32) -> Mapping {
        Mapping::at(0, bytes, protection)
    }

    /// Between two pages that nobody can touch; they stay.
    fn guarded(bytes: usize, protection: i32) -> Mapping {
        let around = std::mem::ManuallyDrop::new(Mapping::new(bytes + 2 * PAGE, protection));
        around.protect(0, PAGE, libc::PROT_NONE);
        around.protect(PAGE + bytes, PAGE, libc::PROT_NONE);
        Mapping { at: around.at + PAGE as u64, bytes }
    }

    /// Where it is asked for, if there is room.
    fn at(hint: u64, bytes: usize, protection: i32) -> Mapping {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping where the kernel finds room.
        let at = unsafe { libc::mmap(hint as *mut libc::c_void, bytes, protection, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED, "no memory for the test");
        Mapping { at: at as u64, bytes }
    }

    #[expect(clippy::mut_from_ref, reason = "the memory is not the mapping's value")]
    fn slice(&self, offset: usize, bytes: usize) -> &mut [u8] {
        assert!(offset + bytes <= self.bytes);
        // SAFETY: inside of the mapping, which lives as long; one test at a time has it, and no two slices overlap in use.
        unsafe { std::slice::from_raw_parts_mut((self.at as usize + offset) as *mut u8, bytes) }
    }

    fn word(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.slice(offset, 8).try_into().expect("eight bytes"))
    }

    fn set_word(&self, offset: usize, word: u64) {
        self.slice(offset, 8).copy_from_slice(&word.to_le_bytes());
    }

    fn protect(&self, offset: usize, bytes: usize, protection: i32) {
        // SAFETY: changes pages of this mapping only.
        let result = unsafe { libc::mprotect((self.at as usize + offset) as *mut libc::c_void, bytes, protection) };
        assert_eq!(result, 0, "mprotect failed");
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nothing refers to it any more.
        unsafe { libc::munmap(self.at as *mut libc::c_void, self.bytes) };
    }
}

/// The machine; there is one at a time.
pub(super) struct Machine {
    island: Mapping,
    rings: Mapping,
    memory: Mapping,
    readable: [bool; PAGES],
    _alone: MutexGuard<'static, ()>,
}

/// A body, ready to run.
pub(super) struct Loaded {
    entry: u64,
    fixups: Vec<(u64, u64)>,
    pub(super) depth: u32,
    pub(super) code_bytes: usize,
}

/// What a passage did.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Passed {
    pub(super) records: Vec<Record>,
    /// By counter, over all CPUs.
    pub(super) counters: [u64; 8],
}

impl Machine {
    pub(super) fn new() -> Machine {
        let alone = RUNNING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        handle_faults();
        let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        Machine {
            island: Mapping::new(CONTROL_BYTES + CODE_BYTES, all),
            rings: Mapping::guarded(CPUS as usize * 2 * RING_BYTES, libc::PROT_READ | libc::PROT_WRITE),
            memory: Mapping::at(MEMORY, PAGES * PAGE, libc::PROT_READ | libc::PROT_WRITE),
            readable: [true; PAGES],
            _alone: alone,
        }
    }

    /// Address of the process's memory.
    pub(super) fn base(&self) -> u64 {
        self.memory.at
    }

    /// The stack pointer.
    pub(super) fn rsp(&self) -> u64 {
        self.memory.at + (STACK_PAGE * PAGE + PAGE / 2) as u64
    }

    pub(super) fn island(&self) -> Island {
        Island { number: 0, control: Avma(self.island.at) }
    }

    pub(super) fn rings(&self) -> Avma {
        Avma(self.rings.at)
    }

    /// Fills the memory; `readable` says which pages may be read. The stack's always may.
    pub(super) fn fill(&mut self, bytes: &[u8], readable: [bool; PAGES]) {
        self.memory.protect(0, PAGES * PAGE, libc::PROT_READ | libc::PROT_WRITE);
        self.memory.slice(0, PAGES * PAGE).copy_from_slice(bytes);
        self.readable = readable;
        self.readable[STACK_PAGE] = true;
        self.readable[STACK_PAGE - 1] = false;
        for page in (0..PAGES).filter(|&page| !self.readable[page]) {
            self.memory.protect(page * PAGE, PAGE, libc::PROT_NONE);
        }
    }

    /// The memory as the interpreter sees it.
    pub(super) fn image(&self) -> Image {
        let mut image = Image::default();
        for page in (0..PAGES).filter(|&page| self.readable[page]) {
            let bytes = self.memory.slice(page * PAGE, PAGE).to_vec();
            image.map(Avma(self.memory.at + (page * PAGE) as u64), bytes);
        }
        let g = G.with(|g| (g.as_ptr() as u64, g.get()));
        image.map(Avma(g.0), g.1.to_le_bytes().to_vec());
        image
    }

    /// The word at an address, as a body would read it.
    pub(super) fn image_word(&self, at: u64) -> Option<u64> {
        let mut word = [0; 8];
        self.image().read(Avma(at), &mut word).ok().map(|()| u64::from_le_bytes(word))
    }

    /// Where the address of `g` is found.
    pub(super) fn g_place(&self) -> GoroutinePointer {
        let at = G.with(|g| g.as_ptr() as u64);
        GoroutinePointer::ThreadLocal { offset: at.wrapping_sub(fs_base()) as i64 }
    }

    pub(super) fn thread_place(&self) -> ThreadPlace {
        let at = THREAD_ID.with(|id| id.as_ptr() as u64);
        ThreadPlace::ThreadLocal { offset: at.wrapping_sub(fs_base()) as i64 as i32 }
    }

    pub(super) fn context<'a>(&self, program: &'a Program, record: &'a RecordLayout) -> BodyContext<'a> {
        BodyContext {
            program,
            record,
            kind: KIND,
            probe: PROBE,
            island: self.island(),
            rings: self.rings(),
            cpus: CPUS,
            has_budget: false,
            thread: self.thread_place(),
            goroutine: None,
            red_zone: false,
            guard: None,
            rdpid: true,
        }
    }

    /// The n-th page of the process's memory that can be read, or nothing.
    pub(super) fn image_range(&self, n: u64) -> std::ops::Range<Avma> {
        let page = (0..PAGES).filter(|&page| self.readable[page]).nth(n as usize);
        let start = self.base() + page.map_or(0, |page| page * PAGE) as u64;
        Avma(start)..Avma(start + page.map_or(0, |_| PAGE) as u64)
    }

    fn state_at(&self) -> u64 {
        self.island().tables().0
    }

    /// Assembles a body within a pad's frame and the trampoline.
    pub(super) fn load(&self, context: &BodyContext<'_>) -> Result<Loaded, CodegenError> {
        let mut a = CodeAssembler::new(64)?;
        let state =
            |offset: usize| MemoryOperand::with_base_displ_size(Iced::RIP, (self.state_at() + offset as u64) as i64, 8);
        let gpr = |number: usize| state(number * 8);
        let flags = std::mem::offset_of!(Processor, flags);
        let host = std::mem::offset_of!(Processor, host);
        let xmm = std::mem::offset_of!(Processor, xmm);
        for register in [rbx, rbp, r12, r13, r14, r15] {
            a.push(register)?;
        }
        a.add_instruction(Instruction::with2(Code::Mov_rm64_r64, state(host), Iced::RSP)?)?;
        for number in 0..16 {
            let vector = Iced::XMM0 + number as u32;
            a.add_instruction(Instruction::with2(Code::Movups_xmm_xmmm128, vector, state(xmm + number * 16))?)?;
        }
        a.add_instruction(Instruction::with1(Code::Push_rm64, state(flags))?)?;
        a.popfq()?;
        for (number, &register) in GPRS.iter().enumerate() {
            a.add_instruction(Instruction::with2(Code::Mov_r64_rm64, register, gpr(number))?)?;
        }
        if context.red_zone {
            a.lea(rsp, ptr(rsp - 128))?;
        }
        a.push(rax)?;
        a.lahf()?;
        a.seto(al)?;
        a.push(rax)?;
        let first = a.instructions().len();
        let Body { fixups, depths } = emit(&mut a, context)?;
        let behind = a.instructions().len();
        a.pop(rax)?;
        a.add(al, 127)?;
        a.sahf()?;
        a.pop(rax)?;
        if context.red_zone {
            a.lea(rsp, ptr(rsp + 128))?;
        }
        for (number, &register) in GPRS.iter().enumerate() {
            a.add_instruction(Instruction::with2(Code::Mov_rm64_r64, gpr(number), register)?)?;
        }
        a.add_instruction(Instruction::with2(Code::Mov_r64_rm64, Iced::RSP, state(host))?)?;
        a.pushfq()?;
        a.add_instruction(Instruction::with1(Code::Pop_rm64, state(flags))?)?;
        a.cld()?;
        for number in 0..16 {
            let vector = Iced::XMM0 + number as u32;
            a.add_instruction(Instruction::with2(Code::Movups_xmmm128_xmm, state(xmm + number * 16), vector)?)?;
        }
        for register in [r15, r14, r13, r12, rbp, rbx] {
            a.pop(register)?;
        }
        a.ret()?;
        let entry = self.state_at() + TABLES_BYTES as u64;
        let assembled = a.assemble_options(entry, BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
        let offsets = &assembled.inner.new_instruction_offsets;
        let mut found = Vec::with_capacity(fixups.len());
        for (index, label) in &fixups {
            assert!((first..behind).contains(index));
            found.push((entry + u64::from(offsets[*index]), assembled.label_ip(label)?));
        }
        assert!(found.is_sorted_by_key(|&(at, _)| at), "fixups are in order");
        assert_eq!(depths.first(), Some(&(first, 0)));
        assert!(depths.is_sorted_by_key(|&(index, _)| index));
        assert_eq!(depths.last().map(|&(_, depth)| depth), Some(0), "nothing stays pushed");
        let code = &assembled.inner.code_buffer;
        self.island.slice(CONTROL_BYTES + TABLES_BYTES, code.len()).copy_from_slice(code);
        let depth = depths.iter().map(|&(_, depth)| depth).max().unwrap_or(0);
        let code_bytes = (offsets[behind] - offsets[first]) as usize;
        Ok(Loaded { entry, fixups: found, depth, code_bytes })
    }

    /// Runs a body with registers; gives back what they are then.
    pub(super) fn run(&self, loaded: &Loaded, before: &Processor) -> Processor {
        let mut fixups = loaded.fixups.clone();
        let state = self.state_at() as *mut Processor;
        let mut alternate = vec![0u8; 1 << 16];
        // SAFETY: the body runs on memory of this test with all registers given to it and taken back by the trampoline,
        // which keeps what the calling convention wants; faults are recovered by the handler, on a stack of its own.
        unsafe {
            let stack = libc::stack_t { ss_sp: alternate.as_mut_ptr().cast(), ss_flags: 0, ss_size: alternate.len() };
            let mut old: libc::stack_t = std::mem::zeroed();
            assert_eq!(libc::sigaltstack(&stack, &mut old), 0);
            state.write(*before);
            FIXUPS.store(&mut fixups, Ordering::Release);
            let body: extern "C" fn() = std::mem::transmute(loaded.entry as *const ());
            body();
            FIXUPS.store(std::ptr::null_mut(), Ordering::Release);
            assert_eq!(libc::sigaltstack(&old, std::ptr::null_mut()), 0);
            state.read()
        }
    }

    /// Sets the word of a probe's words.
    pub(super) fn set_probe_word(&self, offset: usize, word: u64) {
        self.island.set_word(crate::engine::area::PROBE_WORDS + PROBE as usize * 256 + offset, word);
    }

    pub(super) fn probe_word(&self, offset: usize) -> u64 {
        self.island.word(crate::engine::area::PROBE_WORDS + PROBE as usize * 256 + offset)
    }

    pub(super) fn tokens(&self) -> i64 {
        self.probe_word(PROBE_TOKENS) as i64
    }

    fn ring_control(cpu: usize, offset: usize) -> usize {
        crate::engine::area::RING_CONTROL + cpu * RING_CONTROL_BYTES + offset
    }

    /// Sets head and tail of all rings.
    pub(super) fn set_rings(&self, head: u64, tail: u64) {
        for cpu in 0..CPUS as usize {
            self.island.set_word(Self::ring_control(cpu, RING_HEAD), head);
            self.island.set_word(Self::ring_control(cpu, RING_TAIL), tail);
        }
    }

    pub(super) fn heads(&self) -> Vec<u64> {
        (0..CPUS as usize).map(|cpu| self.island.word(Self::ring_control(cpu, RING_HEAD))).collect()
    }

    fn counter(cpu: usize, number: usize) -> usize {
        crate::engine::area::COUNTERS + (cpu * PROBES_MAX + PROBE as usize) * COUNTERS_BYTES + number * 8
    }

    /// Takes what passages left since the last time: reads the records, zeroes them, resets the counters.
    pub(super) fn take(&self, layout: &RecordLayout, program: &Program) -> Passed {
        let mut records = Vec::new();
        let mut counters = [0; 8];
        for cpu in 0..CPUS as usize {
            let head = self.island.word(Self::ring_control(cpu, RING_HEAD));
            let mut tail = self.island.word(Self::ring_control(cpu, RING_TAIL));
            while tail != head {
                let at = cpu * 2 * RING_BYTES + (tail as usize & (RING_BYTES - 1));
                let ring = self.rings.slice(at, layout.max_bytes as usize);
                let field = |at: usize| u32::from_le_bytes(ring[at..at + 4].try_into().expect("four bytes"));
                let (length, used) = (field(LENGTH) as usize, field(USED) as usize);
                assert_eq!(self.rings.word(at + COMMIT), tail + 1, "committed");
                assert!(length % 8 == 0 && used % 8 == 0 && used <= length && length <= layout.max_bytes as usize);
                let record = decode(layout, program, &ring[..length]);
                records.push(record.unwrap_or_else(|error| panic!("{error}: {:02x?}", &ring[..length.min(512)])));
                // What was reserved and given back is as it was, unless the next record lies there.
                let end = if tail + length as u64 == head { ring.len() } else { length };
                assert!(ring[used..end].iter().all(|&byte| byte == 0), "what is behind a record is zero");
                ring[..length].fill(0);
                tail += length as u64;
            }
            self.island.set_word(Self::ring_control(cpu, RING_TAIL), tail);
            for (number, counter) in counters.iter_mut().enumerate() {
                *counter += self.island.word(Self::counter(cpu, number));
                self.island.set_word(Self::counter(cpu, number), 0);
            }
        }
        Passed { records, counters }
    }

    /// Bytes of the rings that are not zero.
    pub(super) fn ring_bytes_in_use(&self) -> usize {
        self.rings.slice(0, self.rings.bytes).iter().filter(|&&byte| byte != 0).count()
    }

    /// The first words of all rings, to be written over by another thread.
    pub(super) fn ring_words(&self) -> RingWords {
        RingWords { rings: self.rings.at }
    }

    /// The first bytes of the first ring that has a record, or of the first.
    pub(super) fn ring_bytes(&self, bytes: usize) -> Vec<u8> {
        self.rings.slice(0, bytes).to_vec()
    }

    /// Whether the process's memory is still this, but for what is below the stack pointer.
    pub(super) fn memory_is(&self, bytes: &[u8], below: usize) -> bool {
        (0..PAGES).filter(|&page| self.readable[page]).all(|page| {
            let from = if page == STACK_PAGE { below } else { 0 };
            let range = page * PAGE + from..(page + 1) * PAGE;
            self.memory.slice(range.start, range.len()) == &bytes[range]
        })
    }

    /// The stack's bytes from its page's beginning to the stack pointer.
    pub(super) fn below_stack(&self) -> &mut [u8] {
        self.memory.slice(STACK_PAGE * PAGE, PAGE / 2)
    }
}

/// Words at the beginning of each ring.
#[derive(Clone, Copy)]
pub(super) struct RingWords {
    rings: u64,
}

impl RingWords {
    /// Stores a value in word `word` of all rings.
    pub(super) fn store(&self, word: usize, value: u64) {
        for cpu in 0..u64::from(CPUS) {
            let at = self.rings + cpu * 2 * RING_BYTES as u64 + word as u64 * 8;
            // SAFETY: within the rings, which live as long as the machine; other accesses are by bodies, which expect it.
            unsafe { (*(at as *const AtomicU64)).store(value, Ordering::Relaxed) };
        }
    }
}

impl Processor {
    /// Registers as the process has them.
    pub(super) fn of(registers: &Registers, flags: u64, backwards: bool) -> Processor {
        let mut gpr = [0; 16];
        for (dwarf, &number) in HARDWARE.iter().enumerate() {
            gpr[number] = registers.gpr[dwarf];
        }
        let direction = if backwards { DIRECTION_FLAG } else { 0 };
        // Bit 1 is always set; interrupts are enabled.
        let flags = flags & STATUS_FLAGS | direction | 0x202;
        Processor { gpr, flags, host: 0, xmm: registers.xmm }
    }

    /// What must not have changed.
    pub(super) fn unchanged(&self, before: &Processor) -> Result<(), String> {
        for (register, (was, is)) in GPRS.iter().zip(before.gpr.iter().zip(&self.gpr)) {
            if was != is {
                return Err(format!("{register:?}: {was:#x} became {is:#x}"));
            }
        }
        if (self.flags ^ before.flags) & (STATUS_FLAGS | DIRECTION_FLAG) != 0 {
            return Err(format!("flags: {:#x} became {:#x}", before.flags, self.flags));
        }
        if self.xmm != before.xmm { Err("vector registers changed".to_owned()) } else { Ok(()) }
    }
}

const _: () = assert!(RSP == HARDWARE[7]);
