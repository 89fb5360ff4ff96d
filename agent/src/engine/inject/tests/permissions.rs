//! Whose processes can be injected into, and from where.

use super::support::{Agent, Target, c_program, eventually, getpid, getppid, key};
use crate::engine::inject::{InjectError, Injection};
use crate::target;
use std::fs;
use std::process::Command;

/// Another user, and another one again.
const USERS: [u32; 2] = [61_101, 61_102];
/// Linux/capability.h.
const CAP_SYS_PTRACE: u32 = 19;

/// This process becomes another user, with CAP_SYS_PTRACE or with nothing.
fn become_user(user: u32, keeps_ptrace: bool) {
    // linux/capability.h, struct __user_cap_header_struct (version 3) and two of struct __user_cap_data_struct
    let header = [0x2008_0522u32, 0];
    let set = if keeps_ptrace { 1 << CAP_SYS_PTRACE } else { 0u32 };
    let data = [set, set, 0, 0, 0, 0];
    // SAFETY: numbers, and pointers to memory of the size that capset(2) reads.
    let done = unsafe {
        libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0
            && libc::setgroups(0, std::ptr::null()) == 0
            && libc::setresgid(user, user, user) == 0
            && libc::setresuid(user, user, user) == 0
            && libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) == 0
    };
    assert!(done, "these tests become other users: run them as root ({})", std::io::Error::last_os_error());
}

fn as_user(user: u32, keeps_ptrace: bool, job: impl FnOnce() -> i32) -> Option<i32> {
    Agent::start(|| {
        become_user(user, keeps_ptrace);
        job()
    })
    .end()
}

fn target_of(user: u32) -> Target {
    let user = user.to_string();
    let mut shell = Command::new("setpriv");
    shell.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--inh-caps=-all", "/bin/sh"]);
    Target::start(&mut shell, c_program(), &[])
}

/// What an agent does with a process that it may inject into.
fn use_it(pid: u32) -> i32 {
    let mut injection = match Injection::open(key(pid)) {
        Ok(injection) => injection,
        Err(error) => {
            eprintln!("{error}");
            return 1;
        }
    };
    if injection.call(&[getppid()]).is_err() {
        return 2;
    }
    // The first byte of the ELF header, which nobody runs.
    let maps = target::mappings(pid).unwrap();
    let Some(header) = maps.iter().find(|map| map.path.ends_with("inject_target")) else { return 3 };
    let at = riptrace_protocol::ids::Avma(header.lo);
    if injection.write_text(at, &[0x7e]).is_err() || injection.write_text(at, &[0x7f]).is_err() {
        return 4;
    }
    0
}

#[test]
fn a_capability_is_enough_for_another_users_process() {
    let mut target = target_of(USERS[0]);
    let pid = target.pid();
    let refused = as_user(USERS[1], false, || match Injection::open(key(pid)) {
        Err(InjectError::Denied(_) | InjectError::Target(target::TargetError::Denied { .. })) => 7,
        Err(other) => panic!("{other}"),
        Ok(_) => 8,
    });
    assert_eq!(refused, Some(7));
    let is_closed =
        || fs::File::open(format!("/proc/{pid}/mem")).is_err() && fs::read_dir(format!("/proc/{pid}/fd")).is_err();
    let files = as_user(USERS[1], true, || if is_closed() { 9 } else { 1 });
    assert_eq!(files, Some(9), "the files that need more than the capability cannot be used");
    assert_eq!(as_user(USERS[1], true, || use_it(pid)), Some(0));
    assert_eq!(as_user(USERS[1], true, || use_it(pid)), Some(0), "and again, with what is there");
    target.check();
    target.assert_free();
}

#[test]
fn a_users_own_process_needs_no_capability() {
    let mut target = target_of(USERS[0]);
    let pid = target.pid();
    assert_eq!(as_user(USERS[0], false, || use_it(pid)), Some(0));
    target.check();
    target.assert_free();
}

#[test]
fn a_process_in_other_namespaces_is_injected_into_from_the_host() {
    for namespaces in
        [&["--pid", "--fork", "--mount"][..], &["--user", "--map-root-user", "--pid", "--fork", "--mount"]]
    {
        let mut shell = Command::new("unshare");
        shell.args(namespaces).args(["--kill-child", "/bin/sh"]);
        let mut target = Target::start(&mut shell, c_program(), &[]);
        let inside = u64::from(target.pid());
        assert!(inside < 10, "its pid is of its own namespace");
        // unshare forks the shell, which forks the program.
        let child = |of: u32| {
            eventually("a child", || {
                let children = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
                children.split_whitespace().next().and_then(|pid| pid.parse::<u32>().ok())
            })
        };
        let host = child(child(target.shell()));
        target.known_as(host);
        let mut injection = Injection::open(target.key()).unwrap();
        assert_eq!(getpid(&mut injection), inside);
        drop(injection);
        target.check();
        assert!(Injection::open(target.key()).unwrap().facts().is_adopted);
    }
}
