//! System calls that the process makes for the tracer: one thread is stopped for some tens of microseconds.

use super::left::Left;
use super::signals::all_but_raised;
use super::sites::room;
use super::tracer::Tracer;
use crate::capture::memory::{Memory, PAGE_BYTES};
use crate::clock::domain_now_ns;
use crate::engine::api::ArmError;
use crate::engine::inject::KernelAction;
use crate::engine::sys::{self, Change, Stop, Tid, Whose};
use crate::engine::x86_64::SYSTEM_CALL;
use crate::engine::x86_64::fallback::{self, ACTION_BYTES, POOL_BYTES};
use crate::engine::x86_64::registers::system_call;
use crate::target::{self, Mapping, Seccomp, proc_file};
use riptrace_protocol::ids::Avma;
use std::io;

/// How long one thread has to stop before another one is asked, in nanoseconds: a runnable thread on a busy machine gets
/// its turn within that.
const STOP_NS: u64 = 200_000_000;
/// Threads asked to stop before the engine gives up.
const STOP_TRIES_MAX: usize = 8;
/// A successful system call returns no value above this (syscall(2): errors are the last 4095 values).
const ERROR_MIN: u64 = (-4095_i64) as u64;

/// System calls in which a thread is stopped last: on some kernels even a stop without a signal is felt there.
const UNEASY: [i64; 4] = [libc::SYS_epoll_wait, libc::SYS_epoll_pwait, libc::SYS_semtimedop, libc::SYS_rt_sigtimedwait];

/// Which system call a thread sleeps in (/proc/TID/syscall); `None` while it runs or cannot be read.
pub(super) fn sleeps_in(tid: Tid) -> Option<i64> {
    let text = proc_file::read_text(format!("/proc/{tid}/syscall")).ok()?;
    // "running", "-1 sp pc" for a thread that sleeps outside of a call, or "number arguments.. sp pc".
    text.split_whitespace().next()?.parse().ok().filter(|&number| number >= 0)
}

impl Tracer {
    /// Stops one thread, and says which: `held`.
    pub(super) fn stop_one(&mut self) -> Result<Tid, ArmError> {
        if let Some(tid) = self.held {
            return Ok(tid);
        }
        let mut candidates: Vec<(u8, Tid)> = self
            .threads
            .iter()
            .map(|(&tid, thread)| {
                let unease = match sleeps_in(tid) {
                    _ if thread.listening => 3,
                    None => 0,
                    Some(call) if UNEASY.contains(&call) => 2,
                    Some(_) => 1,
                };
                (unease, tid)
            })
            .collect();
        candidates.sort_unstable();
        for (_, tid) in candidates.into_iter().take(STOP_TRIES_MAX) {
            if let Some(tid) = self.stop(tid)? {
                self.memory.read_by(tid);
                return Ok(tid);
            }
        }
        Err(ArmError::NoThread)
    }

    /// Stops this thread, if it can be stopped in time.
    fn stop(&mut self, tid: Tid) -> Result<Option<Tid>, ArmError> {
        let Some(thread) = self.threads.get_mut(&tid) else { return Ok(None) };
        thread.wanted = true;
        if sys::interrupt(tid).is_err() {
            thread.wanted = false;
            return Ok(None);
        }
        let deadline_ns = domain_now_ns() + STOP_NS;
        while self.threads.get(&tid).is_some_and(|thread| thread.wanted) && domain_now_ns() < deadline_ns {
            self.pump();
            if self.is_over() {
                return Err(ArmError::Gone);
            }
        }
        if self.held.is_none()
            && let Some(thread) = self.threads.get_mut(&tid)
        {
            thread.wanted = false;
        }
        Ok(self.held)
    }

    /// Returns when no thread is in a system call of this number any more that it was in before. Each that may be is
    /// stopped for a moment: a stopped thread is in none.
    pub(super) fn see_all_out_of(&mut self, call: i64) -> Result<(), ArmError> {
        let may_be_in = |tid: &Tid| sleeps_in(*tid).is_none_or(|sleeps_in| sleeps_in == call);
        let mut unseen: Vec<Tid> = self.threads.keys().copied().collect();
        for _ in 0..STOP_TRIES_MAX {
            unseen.retain(|tid| self.threads.contains_key(tid) && may_be_in(tid));
            let mut still = Vec::new();
            for tid in unseen {
                match self.stop(tid)? {
                    Some(_) => self.release_held(),
                    None => still.push(tid),
                }
            }
            if still.is_empty() {
                return Ok(());
            }
            unseen = still;
        }
        Err(ArmError::NoThread)
    }

    /// Lets the held thread go on.
    pub(super) fn release_held(&mut self) {
        let Some(tid) = self.held.take() else { return };
        if let Err(error) = self.go_on(tid, 0)
            && !sys::is_gone(&error)
        {
            tracing::error!(target: "engine", tid, %error, "a held thread cannot go on");
        }
    }

    /// Maps memory for slots near `at`.
    pub(super) fn map_pool(&mut self, at: Avma) -> Result<(), ArmError> {
        // A filter may answer an unknown call by killing the process.
        if target::status(self.key.pid).map_err(|_| ArmError::Gone)?.seccomp != Seccomp::Off {
            return Err(ArmError::Seccomp(at));
        }
        let maps = target::mappings(self.key.pid).map_err(|_| ArmError::Gone)?;
        let instruction = self.system_call_instruction(&maps).ok_or(ArmError::Map { errno: libc::ENOSYS })?;
        let base = room(&maps, at).ok_or(ArmError::NoRoom(at))?;
        let tid = self.stop_one()?;
        let mapped = self.map_pool_by(tid, instruction, base);
        self.release_held();
        match mapped {
            Ok(Ok(())) => Ok(()),
            Ok(Err(errno)) => Err(ArmError::Map { errno }),
            Err(error) if sys::is_gone(&error) => Err(ArmError::Gone),
            Err(error) => Err(ArmError::Map { errno: error.raw_os_error().unwrap_or(libc::EIO) }),
        }
    }

    /// The same by a thread that is held; the inner error is a system call's.
    fn map_pool_by(&mut self, tid: Tid, instruction: Avma, base: Avma) -> io::Result<Result<(), i32>> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        // Never writable for the process: the tracer writes it from outside.
        let protection = libc::PROT_READ | libc::PROT_EXEC;
        let args = [base.0, POOL_BYTES, protection as u64, flags as u64, u64::MAX, 0];
        match self.call(tid, instruction, libc::SYS_mmap, args)? {
            Ok(mapped) if mapped == base.0 => {}
            // A kernel that does not know MAP_FIXED_NOREPLACE takes the address for a hint; the pages stay unused.
            Ok(_) => return Ok(Err(libc::EEXIST)),
            Err(errno) => return Ok(Err(errno)),
        }
        self.write_held(tid, base, &fallback::header(base))?;
        let old = match self.exchange_action(tid, instruction, fallback::action_at(base))? {
            Ok(old) => old,
            Err(errno) => return Ok(Err(errno)),
        };
        self.write_held(tid, fallback::old_at(base), &old)?;
        if self.sites.pools().is_empty() {
            self.left = Left::behind(&self.memory, &KernelAction::from_bytes(&old));
        }
        self.sites.add_pool(base);
        Ok(Ok(()))
    }

    /// Has a held thread set the action for SIGTRAP to the one at `new`; the former one comes back. The kernel writes
    /// that into memory of the process, so a page is mapped for the time of it.
    fn exchange_action(
        &mut self,
        tid: Tid,
        instruction: Avma,
        new: Avma,
    ) -> io::Result<Result<[u8; ACTION_BYTES], i32>> {
        const SIGNAL_SET_BYTES: u64 = 8;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let args = [0, PAGE_BYTES, protection as u64, flags as u64, u64::MAX, 0];
        let page = match self.call(tid, instruction, libc::SYS_mmap, args)? {
            Ok(page) => page,
            Err(errno) => return Ok(Err(errno)),
        };
        let args = [libc::SIGTRAP as u64, new.0, page, SIGNAL_SET_BYTES, 0, 0];
        let exchanged = self.call(tid, instruction, libc::SYS_rt_sigaction, args)?;
        let mut old = [0; ACTION_BYTES];
        let read = self.memory.read(Avma(page), &mut old);
        // A page that stays mapped hurts nobody.
        let _ = self.call(tid, instruction, libc::SYS_munmap, [page, PAGE_BYTES, 0, 0, 0, 0])?;
        Ok(match (exchanged, read) {
            (Err(errno), _) => Err(errno),
            (Ok(_), Err(_)) => Err(libc::EFAULT),
            (Ok(_), Ok(())) => Ok(old),
        })
    }

    /// Writes into memory that the process cannot write, while a thread of it is held.
    fn write_held(&self, tid: Tid, at: Avma, bytes: &[u8]) -> io::Result<()> {
        self.memory.write(at, bytes).or_else(|_| self.memory.poke(tid, at, bytes))
    }

    /// Gives the memory for slots back; the held thread does it. No thread may be in one.
    pub(super) fn unmap_pools(&mut self, tid: Tid) -> io::Result<()> {
        let Ok(maps) = target::mappings(self.key.pid) else { return Ok(()) };
        let Some(instruction) = self.system_call_instruction(&maps) else { return Ok(()) };
        for (at, original) in std::mem::take(&mut self.superseded) {
            self.write_held(tid, at, &[original])?;
        }
        // The last one first: each handler has kept the one before it.
        for base in self.sites.pools().into_iter().rev() {
            let mut old = [0; ACTION_BYTES];
            if self.memory.read(fallback::old_at(base), &mut old).is_err() {
                continue;
            }
            self.write_held(tid, fallback::put_back_at(base), &old)?;
            match self.exchange_action(tid, instruction, fallback::put_back_at(base))? {
                Ok(was) if was[..8] == base.0.to_le_bytes() || was[..8] == [0; 8] => {}
                Ok(was) => {
                    // The program has a handler of its own since.
                    self.write_held(tid, fallback::put_back_at(base), &was)?;
                    let _ = self.exchange_action(tid, instruction, fallback::put_back_at(base))?;
                }
                Err(errno) => {
                    tracing::warn!(target: "engine", pid = self.pid, errno, "the handler and the slots stay");
                    continue;
                }
            }
            if let Err(errno) = self.call(tid, instruction, libc::SYS_munmap, [base.0, POOL_BYTES, 0, 0, 0, 0])? {
                tracing::warn!(target: "engine", pid = self.pid, ?base, errno, "a page of slots stays mapped");
            }
        }
        self.sites.forget_pools();
        Ok(())
    }

    /// A `syscall` instruction that every process has: in the vdso (vdso(7)).
    fn system_call_instruction(&self, maps: &[Mapping]) -> Option<Avma> {
        let vdso = maps.iter().find(|mapping| mapping.path == "[vdso]")?;
        let mut code = vec![0; (vdso.hi - vdso.lo) as usize];
        self.memory.read(Avma(vdso.lo), &mut code).ok()?;
        let at = code.windows(SYSTEM_CALL.len()).position(|bytes| bytes == SYSTEM_CALL)?;
        Some(Avma(vdso.lo + at as u64))
    }

    /// Has a held thread make a system call, and puts back all that it had: registers, also those by which the kernel
    /// restarts a call that the stop has interrupted, and the signals it has blocked. The inner result is the call's.
    fn call(&mut self, tid: Tid, instruction: Avma, call: i64, args: [u64; 6]) -> io::Result<Result<u64, i32>> {
        let saved = sys::registers(tid)?;
        let mask = sys::signal_mask(tid)?;
        sys::set_signal_mask(tid, all_but_raised())?;
        sys::set_registers(tid, &system_call(&saved, instruction, call, args))?;
        // Signals that cannot be blocked here and that somebody sent. What an instruction of the thread has raised is
        // raised again when the thread is back at it.
        let mut sent = Vec::new();
        let mut is_group_stopped = false;
        sys::step(tid, 0)?;
        let result = loop {
            let change = match sys::wait(Whose::Only(tid)) {
                Ok(Some(change)) => change,
                Ok(None) => continue,
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => continue,
                Err(error) => return Err(error),
            };
            match change {
                Change::Stopped(_, Stop::Signal(libc::SIGTRAP)) => {
                    let after = sys::registers(tid)?;
                    if after.rip != instruction.0 {
                        break after.rax;
                    }
                    if sys::signal_info(tid)?.code() <= 0 {
                        sent.push(libc::SIGTRAP);
                    }
                }
                Change::Stopped(_, Stop::Signal(signal)) => {
                    if sys::signal_info(tid)?.code() <= 0 {
                        sent.push(signal);
                    }
                }
                Change::Stopped(_, Stop::Group) => is_group_stopped = true,
                Change::Stopped(..) => {}
                Change::Ended(_) => return Err(io::Error::from_raw_os_error(libc::ESRCH)),
            }
            sys::step(tid, 0)?;
        };
        sys::set_registers(tid, &saved)?;
        sys::set_signal_mask(tid, mask)?;
        // The stop is the tracer's until the thread goes on.
        sys::take(tid)?;
        for signal in sent {
            sys::send(self.pid, tid, signal);
        }
        if is_group_stopped && let Some(thread) = self.threads.get_mut(&tid) {
            thread.listening = true;
        }
        Ok(if result >= ERROR_MIN { Err(-(result as i64) as i32) } else { Ok(result) })
    }
}
