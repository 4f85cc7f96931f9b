//! The description of the machine and its processor clocks.

use std::{fs, time::Duration};

/// Describes the machine in one line: processor, cores, memory, kernel and disk.
pub fn describe() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("an unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = read("/proc/meminfo");
    let kib = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
    let gib = kib.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) / (1 << 20) as f64;
    let kernel = read("/proc/sys/kernel/osrelease");
    let fsync = crate::fsync::p50_ms(200);
    format!(
        "{model}, {cores} cores, {gib:.0} GiB, Linux {}; 4 KiB appended and synced in {fsync:.2} ms; \
         the client shares the cores.",
        kernel.trim()
    )
}

/// Returns the processor time of the process `pid`.
pub fn cpu_time_of(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a live process");
    // The name in parentheses may contain any character.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum();
    // Linux reports hundredths of a second on every machine.
    Duration::from_millis(ticks * 10)
}

/// Returns the processor time of all threads of this process.
pub fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or_default(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    )
}
