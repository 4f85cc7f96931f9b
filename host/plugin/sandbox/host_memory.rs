//! The memory that the machine and its cgroups allow, and whether it can be swapped.

use std::path::{Path, PathBuf};

/// Whether no page of this process can be swapped out, because there is no swap or this process may
/// not use it. False if that is unknown.
pub fn memory_stays_in_place() -> bool {
    let swaps = std::fs::read_to_string("/proc/swaps");
    // The first line is a heading.
    swaps.is_ok_and(|text| text.lines().nth(1).is_none()) || cgroup_forbids_swap()
}

/// The memory that this process can use: the machine's, or the least of its cgroups' limits.
pub fn memory_bytes() -> Option<usize> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok();
    let machine = machine.as_deref().and_then(total_of_meminfo);
    cgroup_limits().chain(machine).min()
}

fn total_of_meminfo(text: &str) -> Option<usize> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1 << 10)
}

/// The limits of this process's cgroups and all their parents, in both versions of cgroups. In a
/// container the path may be the machine's and not exist; the root does.
fn cgroup_limits() -> impl Iterator<Item = usize> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit_files(&groups).into_iter().filter_map(|file| {
        // Without a limit: "max", or in version 1 a number larger than any machine.
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
    })
}

fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let group = Path::new(group.trim_start_matches('/'));
        files.extend(
            group
                .ancestors()
                .map(|at| Path::new(root).join(at).join(file)),
        );
    }
    files
}

fn cgroup_forbids_swap() -> bool {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(group) = groups.lines().find_map(|line| line.strip_prefix("0::")) else {
        return false;
    };
    let path = format!("/sys/fs/cgroup{}/memory.swap.max", group.trim());
    std::fs::read_to_string(path).is_ok_and(|max| max.trim() == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_the_machine_is_read() {
        assert!(memory_bytes().unwrap() > 64 << 20);
        let text = "MemTotal:       16384 kB\nMemFree:        1 kB\n";
        assert_eq!(total_of_meminfo(text), Some(16 << 20));
        assert_eq!(total_of_meminfo("MemFree: 1 kB"), None);
    }

    #[test]
    fn the_limits_of_all_parent_cgroups_are_read() {
        let files = |groups| {
            let files = limit_files(groups).into_iter();
            files
                .map(|file| file.display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            files("0::/a.slice/b\n"),
            [
                "/sys/fs/cgroup/a.slice/b/memory.max",
                "/sys/fs/cgroup/a.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        let old = "5:cpu,cpuacct:/x\n4:memory:/\n";
        assert_eq!(files(old), ["/sys/fs/cgroup/memory/memory.limit_in_bytes"]);
    }
}
