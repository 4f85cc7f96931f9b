//! A process that must not outlive the one that started it.

use std::io;

/// Has the kernel kill this process when its parent ends, however that comes about. `parent` is the
/// process that started this one; fails when it has ended already. The kernel counts the parent's
/// *thread* that started this process, and keeps the wish when another program takes it over.
#[cfg(target_os = "linux")]
pub fn die_with(parent: u32) -> io::Result<()> {
    use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before that.
    let now = getppid().map(Pid::as_raw_pid);
    match now.and_then(|now| u32::try_from(now).ok()) == Some(parent) {
        true => Ok(()),
        false => Err(io::Error::other(format!("process {parent} has ended"))),
    }
}

/// Elsewhere it runs untied.
#[cfg(not(target_os = "linux"))]
pub fn die_with(_: u32) -> io::Result<()> {
    Ok(())
}
