//! Ties a process to the lifetime of its parent.

use std::io;

/// Has the kernel kill this process when `parent`, the process that started it, ends in any way.
/// Fails if the parent has ended already. The signal is bound to the parent's *thread* that started
/// this process, and survives `exec`.
#[cfg(target_os = "linux")]
pub fn die_with_parent(parent: u32) -> io::Result<()> {
    use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have ended before the signal was set.
    let current = getppid().map(Pid::as_raw_pid);
    if current.and_then(|id| u32::try_from(id).ok()) == Some(parent) {
        Ok(())
    } else {
        Err(io::Error::other(format!("process {parent} has ended")))
    }
}

/// Does nothing where the system has no such signal.
#[cfg(not(target_os = "linux"))]
pub fn die_with_parent(_: u32) -> io::Result<()> {
    Ok(())
}
