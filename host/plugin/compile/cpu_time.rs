//! The processor time of a running process, by which a slow file is told from a busy machine.

use std::{fs, path::Path, time::Duration};

/// The processor time of that thread of a process which has used most; `None` where the system does not
/// report it.
pub fn of_busiest_thread(pid: u32) -> Option<Duration> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let times = threads.flatten().filter_map(|thread| of(&thread.path()));
    times.max()
}

fn of(thread: &Path) -> Option<Duration> {
    let text = fs::read_to_string(thread.join("schedstat")).ok()?;
    // The time on a processor, the time in a queue, and how often it ran.
    let nanoseconds = text.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_busy_thread_uses_time() {
        let now = || of_busiest_thread(std::process::id()).unwrap();
        let before = now();
        while now() == before {}
        assert_eq!(of_busiest_thread(u32::MAX), None);
    }
}
