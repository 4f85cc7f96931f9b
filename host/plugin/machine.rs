//! What the machine below allows.

/// Whether no page of this process can be swapped out: there is no swap, or this process may not
/// use it. When in doubt, no.
pub fn memory_stays_in_place() -> bool {
    let swaps = std::fs::read_to_string("/proc/swaps");
    // The first line is a heading.
    swaps.is_ok_and(|text| text.lines().nth(1).is_none()) || cgroup_forbids_swap()
}

fn cgroup_forbids_swap() -> bool {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(group) = groups.lines().find_map(|line| line.strip_prefix("0::")) else {
        return false;
    };
    let path = format!("/sys/fs/cgroup{}/memory.swap.max", group.trim());
    std::fs::read_to_string(path).is_ok_and(|max| max.trim() == "0")
}
