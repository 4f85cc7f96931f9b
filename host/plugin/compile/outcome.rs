//! The diagnostic of a file, from the exit of its compile process. A file that reaches a limit of its
//! process is refused for good: the same content would reach it again. What another has done to the
//! process, or the load of the machine, is not the file's fault, and the file is tried again.

use super::{hints, limits::Limits, protocol::CompileError};
use crate::diagnostic::Diagnostic;
use rustix::process::Signal;
use std::{os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

/// The exit code of a panic.
const PANICKED: i32 = 101;

/// What the standard library prints when a thread overflows its stack, and when it is out of memory.
const STACK: &str = "has overflowed its stack";
const MEMORY: [&str; 3] = [
    "memory allocation of",
    "out of memory",
    "Cannot allocate memory",
];

/// The diagnostic of the file; `None` if the process has succeeded.
pub fn diagnostic(status: ExitStatus, stderr: &str, limits: &Limits) -> Option<Diagnostic> {
    if status.success() {
        return None;
    }
    if let Some(error) = reported_error(stderr) {
        return Some(refused(error, limits));
    }
    if stderr.contains(STACK) {
        return Some(Diagnostic::new(
            "overflows the compiler's stack: its types or its code are nested too deep",
        ));
    }
    if ran_out(stderr) {
        return Some(out_of_memory(limits));
    }
    let ended_by = |signal: Signal| status.signal() == Some(signal.as_raw());
    if ended_by(Signal::XCPU) {
        return Some(too_slow(limits));
    }
    if ended_by(Signal::XFSZ) {
        return Some(Diagnostic::new("is too large when it is compiled"));
    }
    if ended_by(Signal::KILL) {
        // The kernel chooses it first, whatever has taken the memory (`confine.rs`).
        return Some(Diagnostic::passing(
            "the process that compiled it was killed, most likely by the kernel for want of \
             memory, and it is compiled again later: give the machine more, or set \
             plugins.max_compile_memory_bytes below what it has",
        ));
    }
    if status.code() == Some(PANICKED) {
        return Some(Diagnostic::new(format!(
            "makes the compiler panic: report it, and build the plugin with other compiler options \
             meanwhile: {stderr}"
        )));
    }
    Some(Diagnostic::new(format!(
        "the process that compiled it failed ({status}): {stderr}"
    )))
}

/// The diagnostic of a file that reached the time limit, when the busiest thread of its process had used
/// `cpu_time`, if that is known. It may pass unless the file alone has taken most of the time.
pub fn timed_out(cpu_time: Option<Duration>, limits: &Limits) -> Diagnostic {
    if cpu_time.is_some_and(|used| used >= limits.timeout * 3 / 4) {
        return too_slow(limits);
    }
    let used = cpu_time.map_or_else(String::new, |used| {
        format!(" and got {} ms of processor time", used.as_millis())
    });
    Diagnostic::passing(format!(
        "compiling took longer than {} ms (plugins.compile_timeout_ms){used}, and it is compiled \
         again later: the machine is busy",
        limits.timeout.as_millis()
    ))
}

/// The diagnostic of a file that took all of its processor time.
fn too_slow(limits: &Limits) -> Diagnostic {
    Diagnostic::new(format!(
        "compiling took longer than {} ms (plugins.compile_timeout_ms)",
        limits.timeout.as_millis()
    ))
}

fn out_of_memory(limits: &Limits) -> Diagnostic {
    Diagnostic::new(format!(
        "compiling needs more than {} bytes of memory (plugins.max_compile_memory_bytes)",
        limits.max_memory_bytes
    ))
}

fn ran_out(stderr: &str) -> bool {
    MEMORY.iter().any(|sign| stderr.contains(sign))
}

/// The error in the last line, if the process has written one.
fn reported_error(stderr: &str) -> Option<CompileError> {
    serde_json::from_str(stderr.lines().last()?).ok()
}

fn refused(error: CompileError, limits: &Limits) -> Diagnostic {
    match error {
        CompileError::Invalid(why) if ran_out(&why) => out_of_memory(limits),
        CompileError::Invalid(why) => Diagnostic::new(hints::invalid(&why)),
        CompileError::Changed => Diagnostic::passing("changed while it was read"),
        CompileError::OtherVersion => Diagnostic::passing(
            "cannot be compiled: plugins.compiler is another version of hostel than this node",
        ),
        CompileError::Unable(why) => Diagnostic::passing(format!(
            "cannot be compiled: the compile process could not begin: {why}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_exit_has_its_fault() {
        let limits = Limits {
            max_memory_bytes: 1 << 30,
            timeout: Duration::from_secs(60),
            max_cpu_seconds: 60,
        };
        let invalid = serde_json::to_string(&CompileError::Invalid("bad".into())).unwrap();
        let (abort, killed, cpu, size) = (6, 9, 24, 25);
        let exit = |code: i32| code << 8;
        let ends = [
            (
                exit(1),
                &*format!("a word before\n{invalid}\n"),
                "is not a valid component: bad",
            ),
            (
                abort,
                "thread 'x' has overflowed its stack\nfatal",
                "nested too deep",
            ),
            (
                abort,
                "memory allocation of 9 bytes failed",
                "max_compile_memory_bytes",
            ),
            (cpu, "", "plugins.compile_timeout_ms"),
            (size, "", "too large when it is compiled"),
            (exit(101), "panicked at x.rs:1:1: why", "x.rs:1:1: why"),
            (exit(3), "no idea", "failed (exit status: 3): no idea"),
        ];
        for (status, stderr, reason) in ends {
            let diagnostic = diagnostic(ExitStatus::from_raw(status), stderr, &limits).unwrap();
            assert!(diagnostic.to_string().contains(reason), "{diagnostic}");
            assert!(!diagnostic.may_pass(), "{diagnostic}");
        }
        assert_eq!(diagnostic(ExitStatus::from_raw(0), "", &limits), None);
        let killed = diagnostic(ExitStatus::from_raw(killed), "", &limits).unwrap();
        assert!(killed.to_string().contains("want of memory"), "{killed}");
        assert!(killed.may_pass(), "another has done it: {killed}");
        for (used, may_pass) in [(Some(50), false), (Some(40), true), (None, true)] {
            let slow = timed_out(used.map(Duration::from_secs), &limits);
            assert_eq!(slow.may_pass(), may_pass, "{slow}");
            let named = "60000 ms (plugins.compile_timeout_ms)";
            assert!(slow.to_string().contains(named), "{slow}");
        }
    }
}
