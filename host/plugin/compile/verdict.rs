//! From the end of a compile process to what is said of the file. A process that dies of its file
//! refuses it for good: the same content would kill the next one too.

use super::{Refusal, process::Limits};
use crate::{Fault, advice};
use rustix::process::Signal;
use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

/// The exit code of a panic.
const PANICKED: i32 = 101;

/// What the standard library says when a thread runs out of stack, and out of memory.
const STACK: &str = "has overflowed its stack";
const MEMORY: [&str; 3] = [
    "memory allocation of",
    "out of memory",
    "Cannot allocate memory",
];

/// The fault of the file, unless the process did its work.
pub fn fault(status: ExitStatus, words: &str, limits: &Limits) -> Option<Fault> {
    if status.success() {
        return None;
    }
    if let Some(refusal) = refusal(words) {
        return Some(refused(refusal, limits));
    }
    if words.contains(STACK) {
        return Some(Fault::new(
            "overflows the compiler's stack: its types or its code are nested too deep",
        ));
    }
    if ran_out(words) {
        return Some(out_of_memory(limits));
    }
    let ended_by = |signal: Signal| status.signal() == Some(signal.as_raw());
    if ended_by(Signal::XCPU) {
        return Some(late(limits));
    }
    if ended_by(Signal::XFSZ) {
        return Some(Fault::new("is too large when it is compiled"));
    }
    if ended_by(Signal::KILL) {
        return Some(Fault::new(
            "the process that compiled it was killed, most likely by the kernel for want of \
             memory: give the machine more, or set plugins.max_compile_memory_bytes below what it \
             has",
        ));
    }
    if status.code() == Some(PANICKED) {
        return Some(Fault::new(format!(
            "makes the compiler panic: report it, and build the plugin with other compiler options \
             meanwhile: {words}"
        )));
    }
    Some(Fault::new(format!(
        "the process that compiled it failed ({status}): {words}"
    )))
}

/// The fault of a file that took all of its time.
pub fn late(limits: &Limits) -> Fault {
    Fault::new(format!(
        "compiling took longer than {} ms (plugins.compile_timeout_ms)",
        limits.timeout.as_millis()
    ))
}

fn out_of_memory(limits: &Limits) -> Fault {
    Fault::new(format!(
        "compiling needs more than {} bytes of memory (plugins.max_compile_memory_bytes)",
        limits.max_memory_bytes
    ))
}

fn ran_out(words: &str) -> bool {
    MEMORY.iter().any(|sign| words.contains(sign))
}

/// The last line, where the process put down why it made no artifact.
fn refusal(words: &str) -> Option<Refusal> {
    serde_json::from_str(words.lines().last()?).ok()
}

fn refused(refusal: Refusal, limits: &Limits) -> Fault {
    match refusal {
        Refusal::Invalid(why) if ran_out(&why) => out_of_memory(limits),
        Refusal::Invalid(why) => Fault::new(advice::invalid(&why)),
        Refusal::Changed => Fault::passing("changed while it was read"),
        Refusal::OtherVersion => Fault::passing(
            "cannot be compiled: plugins.compiler is another version of hostel than this node",
        ),
        Refusal::Unable(why) => Fault::passing(format!(
            "cannot be compiled: the compile process could not begin: {why}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_end_has_its_reason() {
        let limits = Limits {
            max_memory_bytes: 1 << 30,
            timeout: Duration::from_secs(60),
            max_cpu_seconds: 60,
        };
        let invalid = serde_json::to_string(&Refusal::Invalid("bad".into())).unwrap();
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
            (killed, "", "want of memory"),
            (exit(101), "panicked at x.rs:1:1: why", "x.rs:1:1: why"),
            (exit(3), "no idea", "failed (exit status: 3): no idea"),
        ];
        for (status, words, reason) in ends {
            let fault = fault(ExitStatus::from_raw(status), words, &limits).unwrap();
            assert!(fault.to_string().contains(reason), "{fault}");
            assert!(!fault.may_pass(), "{fault}");
        }
        assert_eq!(fault(ExitStatus::from_raw(0), "", &limits), None);
    }
}
