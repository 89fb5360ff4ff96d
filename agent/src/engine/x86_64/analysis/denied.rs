//! Functions and files in which nothing may be patched.
//!
//! A trap kills where SIGTRAP is blocked (`force_sig`, kernel/signal.c), and any patch is wrong in code that runs on no
//! thread of its own: between fork and exec, in the kernel's signal frames, before the first relocation.

use super::facts::Language;

/// A reason, and the beginnings of the names that it holds for; a name that ends in `$` must be met whole.
struct Rule {
    why: &'static str,
    names: &'static [&'static str],
}

const GO: &[Rule] = &[
    Rule {
        why: "it belongs to Go's runtime, which must not be stopped",
        names: &[
            "runtime.",
            "internal/runtime/",
            "runtime/internal/",
            "runtime/cgo.",
            "runtime/cgo(",
            "gogo$",
            "gosave",
        ],
    },
    Rule {
        why: "Go's runtime calls it anywhere, signal handlers and stacks that cannot grow included",
        names: &[
            "internal/bytealg.",
            "internal/cpu.",
            "internal/chacha8rand.",
            "memeqbody$",
            "cmpbody$",
            "indexbytebody$",
            "countbody$",
            "indexbody$",
            "aeshashbody$",
            "callRet$",
            "setg_gcc",
            "_rt0_",
            "crosscall",
        ],
    },
    Rule {
        why: "it runs between fork and exec or in a raw system call, where a trap would be fatal",
        names: &[
            "syscall.raw",
            "syscall.Raw",
            "syscall.forkAndExecInChild",
            "syscall.forkExec",
            "syscall.runtime_",
            "syscall.doCheckClonePidfd",
            "syscall.cgocaller",
            "syscall.AllThreadsSyscall",
        ],
    },
];

const NATIVE: &[Rule] = &[
    Rule {
        why: "the kernel returns through it from signal handlers",
        names: &["__restore_rt", "__restore$", "restore_rt", "__kernel_", "__vdso_", "sigreturn$", "rt_sigreturn$"],
    },
    Rule {
        why: "it makes processes or threads: its child runs in the memory or on the stack of another",
        names: &[
            "fork$",
            "__fork$",
            "_Fork$",
            "__libc_fork$",
            "__fork_",
            "vfork$",
            "__vfork$",
            "__libc_vfork$",
            "clone$",
            "__clone$",
            "clone3$",
            "__clone3$",
            "__clone_internal",
            "__clone_child$",
            "start_thread$",
            "start$",
            "__spawni",
            "__spawnix",
            "posix_spawn$",
            "__posix_spawn",
            "do_posix_spawn",
            "arch_fork",
            "__run_fork_handlers",
            "__run_prefork_handlers",
            "__run_postfork_handlers",
            "pthread_create",
            "__pthread_create",
            "thread_start$",
            "create_thread$",
            "do_system$",
        ],
    },
    Rule {
        why: "it blocks or rewrites signals, among them those of a trap",
        names: &[
            "__libc_signal_",
            "__block_all_sigs",
            "__block_app_sigs",
            "__restore_sigs",
            "abort$",
            "__abort",
            "raise$",
            "__pthread_kill_implementation",
            "__libc_sigaction",
            "__sigaction",
        ],
    },
    Rule {
        why: "it belongs to the dynamic loader or starts the program, before anything can be handled",
        names: &[
            "_dl_",
            "__dl_",
            "_start$",
            "_init$",
            "_fini$",
            "__libc_start_",
            "__libc_csu_",
            "_rtld_",
            "rtld_",
            "__tls_get_addr",
            "__tls_init_tp",
            "dlstart",
            "__dls",
        ],
    },
    Rule {
        why: "it belongs to Go's runtime, which calls it on threads that it is still making",
        names: &["x_cgo_", "_cgo_sys_thread_start", "_cgo_try_pthread_create", "threadentry", "crosscall"],
    },
];

/// The function of Go's runtime that every panic passes. It may be patched: it runs on the goroutine's own stack, checks
/// it for room, holds no lock and blocks no signal; where it is called on a system stack or while the runtime allocates,
/// it only ends the program (Go 1.21 to 1.27, `src/runtime/panic.go`, `gopanic`). Like all of the runtime it is never
/// preempted asynchronously, so that no goroutine is parked inside an instruction sequence of it.
const GO_PANIC: &str = "runtime.gopanic";

/// Why nothing may be patched in a function; `None` when it may.
pub fn denied_function(name: &str, language: Language) -> Option<&'static str> {
    if language == Language::Go && name == GO_PANIC {
        return None;
    }
    let rules = match language {
        Language::Go => GO,
        Language::Native => NATIVE,
    };
    // Symbols of shared libraries carry a version; local copies of a function a suffix.
    let plain = if language == Language::Native { name.split(['@', '.']).next().unwrap_or(name) } else { name };
    rules.iter().find(|rule| rule.names.iter().any(|pattern| meets(plain, pattern))).map(|rule| rule.why)
}

fn meets(name: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('$') {
        Some(whole) => name == whole,
        None => name.starts_with(pattern),
    }
}

/// Why nothing may be patched in a mapped file; `None` when it may. `path`: as `/proc/PID/maps` names it.
pub fn denied_image(path: &str) -> Option<&'static str> {
    if path.starts_with('[') {
        return Some("it is the kernel's code, or nobody's, and is shared with every process");
    }
    let file = path.rsplit('/').next().unwrap_or(path);
    // glibc's loader. musl's is its C library as well, whose functions are denied one by one.
    (file.starts_with("ld-linux") || file.starts_with("ld-2.") || file == "ld.so")
        .then_some("it is the dynamic loader, which runs before anything can be handled")
}
