//! What the machine below has and allows.

use std::path::{Path, PathBuf};

/// Whether no page of this process can be swapped out: there is no swap, or this process may not
/// use it. When in doubt, no.
pub fn memory_stays_in_place() -> bool {
    let swaps = std::fs::read_to_string("/proc/swaps");
    // The first line is a heading.
    swaps.is_ok_and(|text| text.lines().nth(1).is_none()) || cgroup_forbids_swap()
}

/// The memory that this process can have: the machine's, or less if one of its cgroups has less.
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

/// Of this process's groups and all above them, in both versions of cgroups. In a container the
/// path can be one of the machine's that is not there; its end, the root, is.
fn cgroup_limits() -> impl Iterator<Item = usize> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit_files(&groups).into_iter().filter_map(|file| {
        // "max", or in version 1 a number beyond all machines, where there is no limit.
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
    fn the_machine_says_how_much_memory_it_has() {
        assert!(memory_bytes().unwrap() > 64 << 20);
        let text = "MemTotal:       16384 kB\nMemFree:        1 kB\n";
        assert_eq!(total_of_meminfo(text), Some(16 << 20));
        assert_eq!(total_of_meminfo("MemFree: 1 kB"), None);
    }

    #[test]
    fn limits_are_looked_for_all_the_way_up() {
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
