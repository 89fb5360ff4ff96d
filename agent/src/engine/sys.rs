//! The kernel's side of tracing: ptrace(2), waitid(2) and kcmp(2) with their own decoders.
//!
//! Raw system calls, for three reasons: nix cannot decode stops by realtime signals, the C libraries disagree on
//! ptrace's signature, and siginfo must pass through untouched.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use std::io;
use std::mem::{self, MaybeUninit};
use std::ptr;

/// A thread, as the kernel numbers it.
pub(super) type Tid = i32;

// include/uapi/linux/ptrace.h
const PTRACE_PEEKTEXT: u64 = 1;
const PTRACE_POKETEXT: u64 = 4;
const PTRACE_CONT: u64 = 7;
const PTRACE_SINGLESTEP: u64 = 9;
const PTRACE_GETREGS: u64 = 12;
const PTRACE_SETREGS: u64 = 13;
const PTRACE_GETFPREGS: u64 = 14;
const PTRACE_DETACH: u64 = 17;
const PTRACE_SYSCALL: u64 = 24;
const PTRACE_GETEVENTMSG: u64 = 0x4201;
const PTRACE_GETSIGINFO: u64 = 0x4202;
const PTRACE_SETSIGINFO: u64 = 0x4203;
const PTRACE_SEIZE: u64 = 0x4206;
const PTRACE_INTERRUPT: u64 = 0x4207;
const PTRACE_LISTEN: u64 = 0x4208;
const PTRACE_PEEKSIGINFO: u64 = 0x4209;
const PTRACE_GETSIGMASK: u64 = 0x420a;
const PTRACE_SETSIGMASK: u64 = 0x420b;
const PTRACE_GET_RSEQ_CONFIGURATION: u64 = 0x420f;
const PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG: u64 = 0x4211;

const PTRACE_EVENT_EXEC: i32 = 4;
const PTRACE_EVENT_STOP: i32 = 128;
const PTRACE_O_TRACESYSGOOD: u64 = 1;
const PTRACE_O_TRACEFORK: u64 = 1 << 1;
const PTRACE_O_TRACEVFORK: u64 = 1 << 2;
const PTRACE_O_TRACECLONE: u64 = 1 << 3;
const PTRACE_O_TRACEEXEC: u64 = 1 << 4;

/// Follow whatever shares or copies the patched text, and know when it is gone. Never EXITKILL: the agent's death must
/// not be the target's.
const OPTIONS: u64 = PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC;

/// si_code of a signal that an exception raised without telling more: what `int3` raises (uapi/asm-generic/siginfo.h).
pub(super) const SI_KERNEL: i32 = 0x80;
/// Size of the kernel's signal set, in bytes: 64 signals.
const SIGNAL_SET_BYTES: u64 = 8;

/// A siginfo as the kernel has it; only the fields that every signal has are looked at.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(super) struct SigInfo([u8; 128]);

impl SigInfo {
    const EMPTY: SigInfo = SigInfo([0; 128]);

    fn int(&self, at: usize) -> i32 {
        i32::from_ne_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    /// Which signal.
    pub(super) fn signal(&self) -> i32 {
        self.int(0)
    }

    /// si_code: positive if the kernel itself raised it.
    pub(super) fn code(&self) -> i32 {
        self.int(8)
    }

    /// si_addr, of signals that faults raise.
    pub(super) fn address(&self) -> u64 {
        self.int(16) as u32 as u64 | (self.int(20) as u32 as u64) << 32
    }

    /// The same with another si_addr.
    pub(super) fn with_address(mut self, address: u64) -> SigInfo {
        self.0[16..24].copy_from_slice(&address.to_ne_bytes());
        self
    }
}

/// General-purpose registers of a stopped thread.
pub(super) type UserRegisters = libc::user_regs_struct;

fn ptrace(request: u64, tid: Tid, address: u64, data: u64) -> io::Result<()> {
    // SAFETY: the raw call takes four words; the callers below pass for `data` (and `address`) either plain numbers or
    // pointers to memory of the size that the request reads or writes, alive for the call.
    let result = unsafe { libc::syscall(libc::SYS_ptrace, request, tid as i64, address, data) };
    #[cfg(test)]
    killed::after_a_request();
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Begins to trace a thread without stopping it.
pub(super) fn seize(tid: Tid) -> io::Result<()> {
    ptrace(PTRACE_SEIZE, tid, 0, OPTIONS)
}

/// The same for a thread that is let go before it can do anything that would have to be followed.
pub(super) fn seize_briefly(tid: Tid) -> io::Result<()> {
    ptrace(PTRACE_SEIZE, tid, 0, 0)
}

/// The same, and nothing that it makes is traced: for a thread that is held for a moment. Its system calls stop with
/// [`SYSTEM_CALL_STOP`] where that is asked for.
pub(super) fn seize_alone(tid: Tid) -> io::Result<()> {
    ptrace(PTRACE_SEIZE, tid, 0, PTRACE_O_TRACESYSGOOD)
}

/// What [`Stop::Signal`] has for the begin and for the end of a system call (PTRACE_O_TRACESYSGOOD).
pub(super) const SYSTEM_CALL_STOP: i32 = libc::SIGTRAP | 0x80;

/// Resumes a stopped thread up to the begin or the end of a system call.
pub(super) fn resume_to_call(tid: Tid, signal: i32) -> io::Result<()> {
    ptrace(PTRACE_SYSCALL, tid, 0, signal as u64)
}

/// Address of a stopped thread's `struct rseq`, 0 for none (rseq(2); since Linux 5.13 a tracer can ask).
pub(super) fn restartable_sequence(tid: Tid) -> io::Result<u64> {
    // struct ptrace_rseq_configuration, uapi/linux/ptrace.h: address, size and signature, flags and padding
    let mut words = [0u64; 3];
    ptrace(PTRACE_GET_RSEQ_CONFIGURATION, tid, size_of_val(&words) as u64, words.as_mut_ptr() as u64)?;
    Ok(words[0])
}

/// Whether a stopped thread has its system calls dispatched to itself (prctl(PR_SET_SYSCALL_USER_DISPATCH)): one from
/// another place than it expects raises SIGSYS. A kernel that cannot be asked (before 6.4) says EIO or EINVAL.
pub(super) fn dispatches_system_calls(tid: Tid) -> io::Result<bool> {
    // struct ptrace_sud_config, uapi/linux/ptrace.h: mode, selector, offset, length
    let mut words = [0u64; 4];
    ptrace(PTRACE_GET_SYSCALL_USER_DISPATCH_CONFIG, tid, size_of_val(&words) as u64, words.as_mut_ptr() as u64)?;
    Ok(words[0] != 0)
}

/// Asks a thread to stop soon.
pub(super) fn interrupt(tid: Tid) -> io::Result<()> {
    ptrace(PTRACE_INTERRUPT, tid, 0, 0)
}

/// Resumes a stopped thread and delivers `signal`, if it is not 0.
pub(super) fn resume(tid: Tid, signal: i32) -> io::Result<()> {
    ptrace(PTRACE_CONT, tid, 0, signal as u64)
}

/// The same for one instruction.
pub(super) fn step(tid: Tid, signal: i32) -> io::Result<()> {
    ptrace(PTRACE_SINGLESTEP, tid, 0, signal as u64)
}

/// Leaves a thread in its group stop, but lets it tell when that ends.
pub(super) fn listen(tid: Tid) -> io::Result<()> {
    ptrace(PTRACE_LISTEN, tid, 0, 0)
}

/// Lets go of a stopped thread and delivers `signal`, if it is not 0.
pub(super) fn detach(tid: Tid, signal: i32) -> io::Result<()> {
    ptrace(PTRACE_DETACH, tid, 0, signal as u64)
}

/// Registers of a stopped thread.
pub(super) fn registers(tid: Tid) -> io::Result<UserRegisters> {
    let mut registers = MaybeUninit::<UserRegisters>::zeroed();
    ptrace(PTRACE_GETREGS, tid, 0, registers.as_mut_ptr() as u64)?;
    // SAFETY: it was all zeroes, which is a valid value of a structure of integers, and the kernel filled it.
    Ok(unsafe { registers.assume_init() })
}

/// Changes the registers of a stopped thread.
pub(super) fn set_registers(tid: Tid, registers: &UserRegisters) -> io::Result<()> {
    ptrace(PTRACE_SETREGS, tid, 0, ptr::from_ref(registers) as u64)
}

/// xmm0 to xmm15 of a stopped thread.
pub(super) fn vectors(tid: Tid) -> io::Result<[[u8; 16]; 16]> {
    let mut registers = MaybeUninit::<libc::user_fpregs_struct>::zeroed();
    ptrace(PTRACE_GETFPREGS, tid, 0, registers.as_mut_ptr() as u64)?;
    // SAFETY: it was all zeroes, which is a valid value of a structure of integers, and the kernel filled it.
    let registers = unsafe { registers.assume_init() };
    let mut vectors = [[0; 16]; 16];
    for (vector, words) in vectors.iter_mut().zip(registers.xmm_space.chunks_exact(4)) {
        for (bytes, word) in vector.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
    }
    Ok(vectors)
}

/// The thread or process that a thread has made, when it has stopped for that.
pub(super) fn created(tid: Tid) -> io::Result<Tid> {
    let mut message = 0u64;
    ptrace(PTRACE_GETEVENTMSG, tid, 0, ptr::from_mut(&mut message) as u64)?;
    Ok(message as Tid)
}

/// The siginfo of the signal that a thread has stopped for.
pub(super) fn signal_info(tid: Tid) -> io::Result<SigInfo> {
    let mut info = SigInfo::EMPTY;
    ptrace(PTRACE_GETSIGINFO, tid, 0, ptr::from_mut(&mut info) as u64)?;
    Ok(info)
}

/// Changes the siginfo of the signal that a thread has stopped for.
pub(super) fn set_signal_info(tid: Tid, info: &SigInfo) -> io::Result<()> {
    ptrace(PTRACE_SETSIGINFO, tid, 0, ptr::from_ref(info) as u64)
}

/// The signals that a stopped thread has blocked: bit 0 is signal 1.
pub(super) fn signal_mask(tid: Tid) -> io::Result<u64> {
    let mut mask = 0u64;
    ptrace(PTRACE_GETSIGMASK, tid, SIGNAL_SET_BYTES, ptr::from_mut(&mut mask) as u64)?;
    Ok(mask)
}

/// Changes the signals that a stopped thread has blocked.
pub(super) fn set_signal_mask(tid: Tid, mask: u64) -> io::Result<()> {
    ptrace(PTRACE_SETSIGMASK, tid, SIGNAL_SET_BYTES, ptr::from_ref(&mask) as u64)
}

/// Writes a word into a stopped thread's memory, code included.
pub(super) fn poke(tid: Tid, address: u64, word: u64) -> io::Result<()> {
    ptrace(PTRACE_POKETEXT, tid, address, word)
}

/// Reads a word of a stopped thread's memory.
pub(super) fn peek(tid: Tid, address: u64) -> io::Result<u64> {
    let mut word = 0u64;
    // The raw call stores the word where `data` points to (ptrace(2), "C library/kernel differences").
    ptrace(PTRACE_PEEKTEXT, tid, address, ptr::from_mut(&mut word) as u64)?;
    Ok(word)
}

/// Ranges of memory that one call of [`read_ranges`] takes, at most (UIO_MAXIOV, include/uapi/linux/uio.h).
pub(super) const RANGES_MAX: usize = 1024;

/// Reads ranges (address, bytes) of another process, one behind the other into `into`, up to the first place that cannot
/// be read; says how many bytes were. EFAULT if there are none (process_vm_readv(2)).
pub(super) fn read_ranges(tid: Tid, ranges: &[(u64, usize)], into: &mut [u8]) -> io::Result<usize> {
    let iovec = |&(at, length): &(u64, usize)| libc::iovec { iov_base: at as *mut libc::c_void, iov_len: length };
    let remote: Vec<libc::iovec> = ranges.iter().take(RANGES_MAX).map(iovec).collect();
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: `local` describes `into`, which is exclusively borrowed for the call, and the kernel writes no more than
    // that; `remote` are addresses in the other process, which the kernel checks.
    let read = unsafe { libc::process_vm_readv(tid, &local, 1, remote.as_ptr(), remote.len() as u64, 0) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// Reads words of another process, up to the first place that cannot be read; says how many were.
pub(super) fn read_words(tid: Tid, at: u64, into: &mut [u64]) -> io::Result<usize> {
    // SAFETY: the same memory, seen as bytes; any bytes are words.
    let bytes = unsafe { std::slice::from_raw_parts_mut(into.as_mut_ptr().cast(), size_of_val(into)) };
    Ok(read_ranges(tid, &[(at, bytes.len())], bytes)? / size_of::<u64>())
}

/// Signals looked at in a thread's own queue: a trap is raised by the thread itself and is among the first.
const PENDING_MAX: usize = 64;

/// Whether an exception's SIGTRAP is pending for a stopped thread.
pub(super) fn has_pending_trap(tid: Tid) -> io::Result<bool> {
    Ok(pending(tid)?.iter().any(|info| info.signal() == libc::SIGTRAP && info.code() == SI_KERNEL))
}

/// Whether a signal is pending for a stopped thread that one of its own instructions has raised: it belongs to the
/// registers that the thread has now.
pub(super) fn has_pending_raised(tid: Tid) -> io::Result<bool> {
    const RAISED: [i32; 6] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGTRAP, libc::SIGILL, libc::SIGFPE, libc::SIGSYS];
    Ok(pending(tid)?.iter().any(|info| RAISED.contains(&info.signal()) && info.code() > 0))
}

/// Signals pending for a stopped thread itself; places that are not needed are empty.
fn pending(tid: Tid) -> io::Result<[SigInfo; PENDING_MAX]> {
    // struct ptrace_peeksiginfo_args, uapi/linux/ptrace.h
    #[repr(C)]
    struct Arguments {
        offset: u64,
        flags: u32,
        count: i32,
    }
    let arguments = Arguments { offset: 0, flags: 0, count: PENDING_MAX as i32 };
    let mut infos = [SigInfo::EMPTY; PENDING_MAX];
    // The call returns how many there are; the others stay empty.
    ptrace(PTRACE_PEEKSIGINFO, tid, ptr::from_ref(&arguments) as u64, infos.as_mut_ptr() as u64)?;
    Ok(infos)
}

/// Why a thread stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// A signal is about to be delivered.
    Signal(i32),
    /// The stop that was asked for, the first one of a new thread, or the end of a group stop.
    Event,
    /// The whole process is stopped by this signal.
    Group,
    /// Another program runs in its process now.
    Exec,
    /// It has made a thread or a process, which tells of itself.
    Created,
}

/// What a wait found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// A thread has stopped; the kernel keeps the stop until it is answered or [`take`]n.
    Stopped(Tid, Stop),
    /// A thread has ended; the kernel keeps it until it is [`take`]n.
    Ended(Tid),
}

/// Whose changes a wait is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Any thread that this thread traces.
    Any,
    /// This one.
    Only(Tid),
    /// This one, without waiting.
    Now(Tid),
}

/// Waits for a change and leaves it in the kernel. `None` if there is none (only for [`Whose::Now`]).
/// EINTR means that a signal came; ECHILD that nothing is traced.
pub(super) fn wait(whose: Whose) -> io::Result<Option<Change>> {
    let (kind, id, flags) = match whose {
        Whose::Any => (libc::P_ALL, 0, 0),
        Whose::Only(tid) => (libc::P_PID, tid, 0),
        Whose::Now(tid) => (libc::P_PID, tid, libc::WNOHANG),
    };
    let options = libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT | libc::__WALL | libc::__WNOTHREAD | flags;
    let mut info = SigInfo::EMPTY;
    // SAFETY: the kernel writes at most one siginfo (128 bytes) to `info`; the last argument, rusage, may be null.
    let result = unsafe { libc::syscall(libc::SYS_waitid, kind, id, ptr::from_mut(&mut info), options, 0usize) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    if info.signal() == 0 {
        return Ok(None);
    }
    // Of SIGCHLD: si_pid at 16, si_uid at 20, si_status at 24 (uapi/asm-generic/siginfo.h).
    let (tid, status) = (info.int(16), info.int(24));
    Ok(Some(match info.code() {
        libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED => Change::Ended(tid),
        _ => Change::Stopped(tid, decode(status)),
    }))
}

/// ptrace(2), "Stopped states": the low byte is the signal, the next one the event.
fn decode(status: i32) -> Stop {
    let (signal, event) = (status & 0xff, status >> 8 & 0xff);
    match event {
        0 => Stop::Signal(signal),
        PTRACE_EVENT_STOP if signal == libc::SIGTRAP => Stop::Event,
        PTRACE_EVENT_STOP => Stop::Group,
        PTRACE_EVENT_EXEC => Stop::Exec,
        _ => Stop::Created,
    }
}

/// Takes a change from the kernel: the wait status of an end, or a stop that stays for longer.
pub(super) fn take(tid: Tid) -> io::Result<i32> {
    let mut status = 0;
    let options = libc::__WALL | libc::__WNOTHREAD | libc::WNOHANG;
    // SAFETY: the kernel writes one int to `status`; rusage may be null.
    let result = unsafe { libc::wait4(tid, &mut status, options, ptr::null_mut()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(status) }
}

/// Whether two processes have one memory, by kcmp(2). A kernel without it says ENOSYS.
pub(super) fn shares_memory(one: Tid, other: Tid) -> io::Result<bool> {
    const KCMP_VM: u64 = 1;
    // SAFETY: five numbers, no pointers.
    let result = unsafe { libc::syscall(libc::SYS_kcmp, one as i64, other as i64, KCMP_VM, 0u64, 0u64) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result == 0) }
}

/// This thread, as the kernel numbers it.
pub(super) fn own_tid() -> Tid {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::gettid() }
}

/// The signal that interrupts a tracer's wait: a realtime signal that no library uses (the C library takes the first
/// ones). Its handler does nothing.
pub(super) fn wake_signal() -> i32 {
    libc::SIGRTMIN() + 9
}

/// Installs the handler of the wake signal in this process and lets it reach this thread.
pub(super) fn accept_wakes() -> io::Result<()> {
    extern "C" fn nothing(_signal: i32) {}
    // SAFETY: the structures are plain data, zeroed and filled as sigaction(2) wants it; the handler does nothing, so
    // it is safe at any time, and without SA_RESTART the wait ends with EINTR. The mask change affects this thread only.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        if libc::sigaction(wake_signal(), &action, ptr::null_mut()) == -1 {
            return Err(io::Error::last_os_error());
        }
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, wake_signal());
        match libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, ptr::null_mut()) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// A timer that interrupts the waits of the thread that has started it, again and again, until it is dropped.
pub(super) struct Alarm(libc::timer_t);

impl Alarm {
    /// The first time after `every_ns`, then as often. Wakes must be accepted ([`accept_wakes`]).
    ///
    /// Timers are limited by RLIMIT_SIGPENDING (getrlimit(2)), and those of all processes of a user count: a Go program
    /// keeps the timer of each thread that ends while a CPU profile is taken, some thirty a second under stress (Go 1.27).
    /// What holds is the limit of whoever makes one more, so the agent raises its own.
    pub(super) fn start(every_ns: u64) -> io::Result<Alarm> {
        match Alarm::try_start(every_ns) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && may_have_more_timers() => {
                Alarm::try_start(every_ns)
            }
            started => started,
        }
    }

    fn try_start(every_ns: u64) -> io::Result<Alarm> {
        let every =
            libc::timespec { tv_sec: (every_ns / 1_000_000_000) as i64, tv_nsec: (every_ns % 1_000_000_000) as i64 };
        let times = libc::itimerspec { it_interval: every, it_value: every };
        // SAFETY: the structures are plain data, zeroed and filled as timer_create(2) and timer_settime(2) want them, and
        // alive for the calls; the signal goes to this thread, and its handler does nothing.
        unsafe {
            let mut event: libc::sigevent = mem::zeroed();
            event.sigev_notify = libc::SIGEV_THREAD_ID;
            event.sigev_signo = wake_signal();
            event.sigev_notify_thread_id = own_tid();
            let mut timer: libc::timer_t = ptr::null_mut();
            if libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) == -1 {
                return Err(io::Error::last_os_error());
            }
            let alarm = Alarm(timer);
            if libc::timer_settime(timer, 0, &times, ptr::null_mut()) == -1 {
                return Err(io::Error::last_os_error());
            }
            Ok(alarm)
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // SAFETY: the timer was made by this value and is deleted once.
        unsafe { libc::timer_delete(self.0) };
    }
}

/// Raises this process's limit of timers and waiting signals as far as it may; says whether it is higher now.
fn may_have_more_timers() -> bool {
    let resource = Resource::RLIMIT_SIGPENDING;
    let Ok((soft, hard)) = getrlimit(resource) else { return false };
    // Without limit takes CAP_SYS_RESOURCE; up to the hard one, nothing.
    setrlimit(resource, RLIM_INFINITY, RLIM_INFINITY).is_ok() && soft != RLIM_INFINITY
        || soft < hard && setrlimit(resource, hard, hard).is_ok()
}

/// Has this thread take precedence over others, if the agent may (CAP_SYS_NICE): while it works a process stands still.
pub(super) fn hurry() {
    const FIRST: i32 = -20;
    // SAFETY: three numbers; 0 is this thread (setpriority(2), "C library/kernel differences"). It may be refused.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, FIRST) };
}

/// Moves this thread to a processor and keeps it there; it runs there when this returns (sched_setaffinity(2)).
pub(super) fn run_on(cpu: usize) -> io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the set is plain data, zeroed, and `cpu` is within it.
    let result = unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Processors that a thread may run on; 0 is this one.
#[cfg(test)]
pub(super) fn cpus_of(tid: Tid) -> io::Result<Vec<usize>> {
    // SAFETY: the set is plain data of the size that is said, and every index is within it.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        if libc::sched_getaffinity(tid, size_of::<libc::cpu_set_t>(), &mut set) == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok((0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &set)).collect())
    }
}

/// Interrupts the wait of a thread of this process. A thread that is gone does not matter.
pub(super) fn wake(tid: Tid) {
    // SAFETY: three numbers. If the number was given to another thread of this process since, the handler does nothing
    // there, too.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, wake_signal()) };
}

/// Sends a signal to a thread.
pub(super) fn send(process: Tid, tid: Tid, signal: i32) {
    // SAFETY: three numbers. A thread that is gone needs no signal.
    unsafe { libc::syscall(libc::SYS_tgkill, process, tid, signal) };
}

/// Whether an error says that the thread is gone, or has been killed and is not stopped any more.
pub(super) fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}

/// Death of a test's agent at an exact request.
#[cfg(test)]
pub(super) mod killed {
    use std::sync::atomic::{AtomicI64, Ordering};

    static REQUESTS_LEFT: AtomicI64 = AtomicI64::new(i64::MAX);

    /// This process kills itself after so many more ptrace requests.
    pub(in crate::engine) fn after(requests: i64) {
        REQUESTS_LEFT.store(requests, Ordering::SeqCst);
    }

    pub(super) fn after_a_request() {
        if REQUESTS_LEFT.fetch_sub(1, Ordering::SeqCst) == 1 {
            // SAFETY: two numbers; the process is this one, and nothing of it runs after that.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_are_decoded_realtime_signals_included() {
        for (status, want) in [
            (libc::SIGTRAP, Stop::Signal(libc::SIGTRAP)),
            (libc::SIGRTMAX(), Stop::Signal(64)),
            (libc::SIGTRAP | 128 << 8, Stop::Event),
            (libc::SIGSTOP | 128 << 8, Stop::Group),
            (libc::SIGTSTP | 128 << 8, Stop::Group),
            (libc::SIGTRAP | 4 << 8, Stop::Exec),
            (libc::SIGTRAP | 3 << 8, Stop::Created),
        ] {
            assert_eq!(decode(status), want, "{status:#x}");
        }
    }

    #[test]
    fn others_cannot_take_all_timers() {
        let resource = Resource::RLIMIT_SIGPENDING;
        let (_, hard) = getrlimit(resource).unwrap();
        accept_wakes().unwrap();
        // As if processes of the same user had as many as this one may have.
        setrlimit(resource, 0, hard).unwrap();
        let alarm = Alarm::start(1_000_000_000);
        assert!(alarm.is_ok(), "{:?}", alarm.err());
        assert!(getrlimit(resource).unwrap().0 >= hard);
    }

    #[test]
    fn a_process_shares_its_memory_with_itself_only() {
        let own = std::process::id() as Tid;
        assert!(shares_memory(own, own).unwrap());
        let mut child = std::process::Command::new("/bin/cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        assert!(!shares_memory(own, child.id() as Tid).unwrap());
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
