//! Processes that nothing may be injected into: each says why, and goes on.

use super::support::{Agent, Target, c_program, eventually, getppid};
use crate::engine::inject::{InjectError, Injection};
use crate::target::{self, TargetError};
use std::process::Command;

fn refusal(target: &Target) -> InjectError {
    Injection::open(target.key()).err().expect("it is refused")
}

#[test]
fn a_filter_that_kills_is_never_asked() {
    let mut target = Target::c(&["integers", "sleep"]);
    target.ask("strict", "filtered");
    let refused = refusal(&target);
    assert!(matches!(refused, InjectError::SeccompFilter), "{refused}");
    target.check();
    assert_eq!(target.pieces(), 0);
}

#[test]
fn a_thread_that_blocks_faults_is_one_too_many() {
    let mut target = Target::c(&["integers", "blocked"]);
    let refused = eventually("the thread has blocked it", || Injection::open(target.key()).err());
    assert!(matches!(refused, InjectError::BlocksSignal { signal: libc::SIGSEGV, .. }), "{refused}");
    target.check();
}

#[test]
fn another_tracer_is_named() {
    let mut target = Target::c(&["integers"]);
    let pid = target.pid() as i32;
    let tracer = Agent::start(|| {
        crate::engine::sys::seize(pid).unwrap();
        loop {
            std::thread::park();
        }
    });
    eventually("it is traced", || target::status(target.pid()).is_ok_and(|s| s.tracer != 0).then_some(()));
    let refused = refusal(&target);
    let tracer_pid = tracer.0.as_raw() as u32;
    assert!(
        matches!(&refused, InjectError::Target(TargetError::ForeignTracer { tracer, .. }) if *tracer == tracer_pid),
        "{refused}"
    );
    tracer.kill();
    target.assert_free();
    drop(Injection::open(target.key()).unwrap());
    target.check();
}

#[test]
fn a_process_that_is_gone_says_so() {
    let mut target = Target::c(&["integers"]);
    let key = target.key();
    let mut injection = Injection::open(key).unwrap();
    target.send("exit");
    assert_eq!(target.line(), "exited 0");
    let gone = injection.call(&[getppid()]).err().unwrap();
    assert!(matches!(gone, InjectError::Gone | InjectError::Target(TargetError::Gone { .. })), "{gone}");
    assert!(Injection::open(key).is_err());
}

#[test]
fn a_stopped_process_stays_stopped_and_is_injected_into() {
    let mut target = Target::c(&["integers", "sleep"]);
    // All threads have begun: none is stopped in the middle of being made.
    target.check();
    let pid = nix::unistd::Pid::from_raw(target.pid() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let all_in = |state: char| {
        target::tasks(target.pid()).unwrap().iter().all(|&tid| target::status(tid).is_ok_and(|s| s.state == state))
    };
    eventually("it is stopped", || all_in('T').then_some(()));
    let mut injection = Injection::open(target.key()).unwrap();
    assert_eq!(injection.call(&[getppid()]).unwrap()[0], Ok(u64::from(target.shell())));
    eventually("it is stopped again", || all_in('T').then_some(()));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    assert_eq!(target.check(), 0);
}

#[test]
fn without_address_space_nothing_is_left_behind() {
    // 90 MB in all: less than an island.
    let mut shell = Command::new("prlimit");
    shell.args(["--as=90000000", "/bin/sh"]);
    let mut target = Target::start(&mut shell, c_program(), &["integers"]);
    let refused = refusal(&target);
    assert!(matches!(refused, InjectError::Call { what: "mmap", errno: libc::ENOMEM }), "{refused}");
    target.check();
    target.assert_free();
}
