//! A process that is its own target: an island, a page of program text, and the handlers, in a child of the test.
//!
//! Scenarios run in a child by fork(2), so that handlers and dying stay there; a child that hangs is ended by SIGALRM.

use super::super::island::IslandMemory;
use super::super::tables::{KERNEL_ACTION_BYTES, KernelAction, Signal};
use super::super::{PadBody, PadImage, PadRequest, PatchKind, handlers};
use crate::engine::area::{CODE_BYTES, CONTROL_BYTES, Island, PROBE_ENABLED, PROBE_HELD, TABLES_BYTES};
use crate::engine::x86_64::codegen::{Body, CodegenError};
use iced_x86::code_asm::{CodeAssembler, CodeLabel};
use iced_x86::{BlockEncoderOptions, Code, IcedError, Instruction, MemoryOperand, Register};
use nix::sys::wait::{WaitStatus, waitpid};
use riptrace_protocol::ids::Avma;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Seconds that a scenario may take on a busy machine.
const PATIENCE_S: u32 = 120;
/// From a text page to the tables: the code of the island is from 0x06800000 on, with 0x06cc0000 in it, as the displacements
/// of punned jumps need.
const TABLES_FROM_TEXT: u64 = 0x0680_0000 - TABLES_BYTES as u64;
/// From the far data page to the text: in reach of the text, and not of the island.
const TEXT_FROM_FAR: u64 = 0x7f00_0000;
/// Text and data of the program.
const TEXT_BYTES: usize = 0x10000;
const RESERVED: u64 = TEXT_FROM_FAR + TABLES_FROM_TEXT + CODE_BYTES as u64 + 0x10000;
/// Data of the program begins here in its text's pages.
const DATA_AT: u64 = 0x8000;

pub(super) struct World {
    pub(super) island: Island,
    writable: *mut u8,
    /// First byte of the program's text.
    pub(super) text: u64,
    /// Data that the text reaches and the island does not.
    pub(super) far: u64,
    text_end: u64,
    go: bool,
}

/// Runs a scenario in a child.
pub(super) fn child(scenario: impl FnOnce()) -> WaitStatus {
    // SAFETY: the child allocates (which glibc allows after fork) and runs only the scenario.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Parent { child } => waitpid(child, None).unwrap(),
        nix::unistd::ForkResult::Child => {
            nix::unistd::alarm::set(PATIENCE_S);
            // What the test harness captures here nobody would see.
            std::panic::set_hook(Box::new(|panic| {
                let text = format!("{panic}\n");
                // SAFETY: the bytes are there.
                unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
            }));
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(scenario));
            // SAFETY: ends the child without running anything of the test's process.
            unsafe { libc::_exit(if ended.is_ok() { 0 } else { 1 }) }
        }
    }
}

/// Runs a scenario in a child, which must end well.
pub(super) fn succeeds(scenario: impl FnOnce()) {
    let status = child(scenario);
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "the child ended with {status:?}; its message is above");
}

fn map(at: u64, bytes: usize, protection: i32, flags: i32, file: i32, offset: i64) -> u64 {
    // SAFETY: either anywhere, or over the reservation that this file made.
    let mapped = unsafe { libc::mmap(at as *mut libc::c_void, bytes, protection, flags, file, offset) };
    assert_ne!(mapped, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
    mapped as u64
}

impl World {
    pub(super) fn new(go: bool) -> World {
        let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let far = map(0, RESERVED as usize, libc::PROT_NONE, anonymous, -1, 0);
        let text = far + TEXT_FROM_FAR;
        let island = Island { number: 0, control: Avma(text + TABLES_FROM_TEXT - CONTROL_BYTES as u64) };
        let fixed = anonymous | libc::MAP_FIXED;
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        map(far, 0x1000, rw, fixed, -1, 0);
        map(text, TEXT_BYTES, rw | libc::PROT_EXEC, fixed, -1, 0);
        map(island.control.0, CONTROL_BYTES, rw, fixed, -1, 0);
        // SAFETY: a plain system call.
        let file = unsafe { libc::memfd_create(c"island".as_ptr(), 0) };
        assert!(file >= 0);
        // SAFETY: the file was just made.
        assert_eq!(unsafe { libc::ftruncate(file, CODE_BYTES as i64) }, 0);
        let shared = libc::MAP_SHARED;
        let writable = map(0, CODE_BYTES, rw, shared, file, 0) as *mut u8;
        let executable = libc::PROT_READ | libc::PROT_EXEC;
        map(island.tables().0, CODE_BYTES, executable, shared | libc::MAP_FIXED, file, 0);
        write(island.alive().0, &1u32.to_ne_bytes());
        let mut world = World { island, writable, text, far, text_end: text, go };
        let island = world.island;
        let mut memory = IslandMemory::create(world.bytes(), island, go).unwrap();
        memory.set_islands(&[island.tables()]).unwrap();
        memory.install_handlers().unwrap();
        world
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping lives as long as the child; only this reference writes it, and what runs from the other
        // mapping reads what is complete.
        unsafe { std::slice::from_raw_parts_mut(self.writable, CODE_BYTES) }
    }

    pub(super) fn memory(&mut self) -> IslandMemory<'_> {
        IslandMemory::adopt(self.bytes()).unwrap()
    }

    /// Installs the engine's handlers over whatever is installed.
    pub(super) fn install(&mut self) {
        for signal in Signal::ALL {
            let old = kernel_action(signal.number(), None);
            let mut memory = self.memory();
            let all = memory.view().handlers().unwrap();
            memory.set_old_action(signal, &old);
            if let Some(new) = handlers::action(signal, &old, &all) {
                kernel_action(signal.number(), Some(new));
            }
        }
    }

    /// Places a function in the program's text; the marks it returns are its labels' addresses.
    pub(super) fn function(
        &mut self,
        write: impl FnOnce(&mut CodeAssembler) -> Result<Vec<CodeLabel>, IcedError>,
    ) -> (u64, Vec<u64>) {
        let mut asm = CodeAssembler::new(64).unwrap();
        let labels = write(&mut asm).unwrap();
        let at = self.text_end;
        let assembled = asm.assemble_options(at, BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS).unwrap();
        let code = &assembled.inner.code_buffer;
        assert!(at + (code.len() as u64) < self.text + DATA_AT);
        // SAFETY: the text is mapped writable, and nothing runs there yet.
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), at as *mut u8, code.len()) };
        self.text_end = (at + code.len() as u64).next_multiple_of(64);
        (at, labels.iter().map(|label| assembled.label_ip(label).unwrap()).collect())
    }

    /// Address of a word of the program's data.
    pub(super) fn word(&self, number: u64) -> u64 {
        self.text + DATA_AT + number * 8
    }

    /// Makes a pad for the `bytes` bytes of instructions at `site`, without patching.
    pub(super) fn pad(
        &mut self,
        site: u64,
        displaced: usize,
        patch: PatchKind,
        bodies: &[&dyn PadBody],
        red_zone: bool,
    ) -> PadImage {
        let original = read(site, displaced.max(patch.bytes()));
        for body in bodies {
            self.enable(body.probe(), true);
        }
        let request = PadRequest {
            island: self.island,
            site: Avma(site),
            original: &original,
            displaced,
            patch,
            bodies,
            red_zone,
            go: self.go,
            shadow_stack: false,
        };
        self.memory().add_pad(&request).unwrap()
    }

    /// Makes a pad and patches the site, with nothing running there.
    pub(super) fn arm(&mut self, site: u64, displaced: usize, patch: PatchKind, bodies: &[&dyn PadBody]) -> PadImage {
        let image = self.pad(site, displaced, patch, bodies, true);
        write(site, &image.patch);
        image
    }

    /// As [`World::arm`] with a jump, where the site is patched already: these are its own bytes.
    pub(super) fn arm_original(&mut self, site: u64, original: &[u8], bodies: &[&dyn PadBody]) {
        write(site, original);
        self.arm(site, original.len(), PatchKind::Jump, bodies);
    }

    pub(super) fn enable(&self, probe: u32, enabled: bool) {
        let word = self.island.probe_words(probe).0 + PROBE_ENABLED as u64;
        // SAFETY: in control, which is mapped and aligned.
        unsafe { AtomicU32::from_ptr(word as *mut u32) }.store(enabled.into(), Ordering::SeqCst);
    }

    /// What the bodies of a probe have counted.
    pub(super) fn hits(&self, probe: u32) -> u64 {
        let word = self.island.probe_words(probe).0 + PROBE_HELD as u64;
        // SAFETY: in control, which is mapped and aligned.
        unsafe { AtomicU64::from_ptr(word as *mut u64) }.load(Ordering::SeqCst)
    }

    /// Whether an address is in the island.
    pub(super) fn is_injected(&self, address: u64) -> bool {
        (self.island.tables().0..self.island.tables().0 + CODE_BYTES as u64).contains(&address)
    }
}

pub(super) fn read(at: u64, bytes: usize) -> Vec<u8> {
    // SAFETY: tests read only what they have mapped.
    unsafe { std::slice::from_raw_parts(at as *const u8, bytes) }.to_vec()
}

pub(super) fn write(at: u64, bytes: &[u8]) {
    // SAFETY: tests write only what they have mapped.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) };
}

pub(super) fn word_at(at: u64) -> u64 {
    // SAFETY: as in `read`; volatile, as machine code writes there.
    unsafe { std::ptr::read_volatile(at as *const u64) }
}

/// rt_sigaction(2) itself, without the C library's wrapper.
pub(super) fn kernel_action(signal: i32, new: Option<KernelAction>) -> KernelAction {
    let new = new.map(KernelAction::to_bytes);
    let mut old = [0u8; KERNEL_ACTION_BYTES];
    let new = new.as_ref().map_or(std::ptr::null(), |new| new.as_ptr());
    // SAFETY: both are as long as the kernel's structure.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, new, old.as_mut_ptr(), 8) };
    assert_eq!(result, 0);
    KernelAction::from_bytes(&old)
}

/// Installs a handler of the program, by the C library.
pub(super) fn program_handler(signal: i32, handler: usize, flags: i32) {
    // SAFETY: zeroes are a valid sigaction.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: the handler is a function of the test's, or SIG_DFL or SIG_IGN.
    assert_eq!(unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) }, 0);
}

/// General registers of a context.
pub(super) fn register(context: *mut libc::ucontext_t, number: i32) -> *mut u64 {
    // SAFETY: the kernel gave the context to a handler.
    unsafe { (&raw mut (*context).uc_mcontext.gregs[number as usize]).cast() }
}

/// What a body of the tests does, beside counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Also {
    Nothing,
    /// Reads the word that rdi points to, guarded.
    Load,
    /// Sends a signal to its own thread.
    Signal(Signal),
}

/// A body: counts in `PROBE_HELD`.
#[derive(Debug, Clone, Copy)]
pub(super) struct TestBody {
    pub(super) probe: u32,
    pub(super) island: Island,
    pub(super) also: Also,
}

impl PadBody for TestBody {
    fn probe(&self) -> u32 {
        self.probe
    }

    fn emit(&self, asm: &mut CodeAssembler) -> Result<Body, CodegenError> {
        self.assemble(asm).map_err(|error| CodegenError::Assembler(error.to_string()))
    }
}

impl TestBody {
    fn assemble(&self, asm: &mut CodeAssembler) -> Result<Body, IcedError> {
        use iced_x86::code_asm::*;
        let here = |asm: &CodeAssembler| asm.instructions().len();
        let mut body = Body { fixups: Vec::new(), depths: vec![(here(asm), 0)] };
        let held = self.island.probe_words(self.probe).0 + PROBE_HELD as u64;
        let held = MemoryOperand::with_base_displ(Register::RIP, held as i64);
        let mut count = Instruction::with1(Code::Inc_rm64, held)?;
        count.set_has_lock_prefix(true);
        asm.add_instruction(count)?;
        match self.also {
            Also::Nothing => {}
            Also::Load => {
                let mut recovery = asm.create_label();
                asm.push(rdx)?;
                body.depths.push((here(asm), 8));
                body.fixups.push((here(asm), recovery));
                asm.mov(rdx, qword_ptr(rdi))?;
                asm.xor(eax, eax)?;
                asm.set_label(&mut recovery)?;
                asm.pop(rdx)?;
                body.depths.push((here(asm), 0));
                asm.mov(eax, 7)?;
            }
            Also::Signal(signal) => {
                let saved = [rcx, rdx, rsi, rdi, r11];
                for (number, register) in saved.into_iter().enumerate() {
                    asm.push(register)?;
                    body.depths.push((here(asm), 8 * (number as u32 + 1)));
                }
                asm.mov(eax, libc::SYS_getpid as i32)?;
                asm.syscall()?;
                asm.push(rax)?;
                body.depths.push((here(asm), 48));
                asm.mov(eax, libc::SYS_gettid as i32)?;
                asm.syscall()?;
                asm.mov(esi, eax)?;
                asm.pop(rdi)?;
                body.depths.push((here(asm), 40));
                asm.mov(edx, signal.number())?;
                asm.mov(eax, libc::SYS_tgkill as i32)?;
                asm.syscall()?;
                for (number, register) in saved.into_iter().rev().enumerate() {
                    asm.pop(register)?;
                    body.depths.push((here(asm), 32 - 8 * number as u32));
                }
            }
        }
        Ok(body)
    }
}
