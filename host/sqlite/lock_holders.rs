//! Other processes that read a database, by the kernel's list of locks, to name what keeps the
//! write-ahead log from shrinking.

use super::file;
use std::{fs, os::unix::fs::MetadataExt, path::Path, process};

/// Describes the other processes that hold locks on the index of the log.
pub(super) fn readers(database: &Path) -> String {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let index = fs::metadata(file::with_suffix(database, "-shm"));
    let inode = index.map_or(0, |index| index.ino());
    let mut names: Vec<String> = holders(&locks, inode)
        .into_iter()
        .filter(|&pid| pid != process::id())
        .map(describe)
        .collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return "another program".into();
    }
    names.join(" and ")
}

/// Returns the processes with locks on a file, from lines like
/// `N: POSIX ADVISORY READ PID MAJOR:MINOR:INODE START END`.
fn holders(locks: &str, inode: u64) -> Vec<u32> {
    let holder = |line: &str| {
        let mut words = line.split_whitespace().skip(4);
        let pid = words.next()?.parse().ok()?;
        let (_, held) = words.next()?.rsplit_once(':')?;
        (held.parse() == Ok(inode)).then_some(pid)
    };
    locks.lines().filter_map(holder).collect()
}

fn describe(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    // A process can choose any name.
    let name: String = name.chars().filter(|c| c.is_ascii_graphic()).collect();
    format!("process {pid} ({name})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_of_one_file_are_found_among_all_locks() {
        let locks = "1: POSIX  ADVISORY  READ 4711 08:02:99 124 124\n\
                     2: FLOCK  ADVISORY  WRITE 12 00:1a:99 0 EOF\n\
                     3: POSIX  ADVISORY  WRITE 13 08:02:98 0 EOF\n\
                     4: -> POSIX\nnonsense\n";
        assert_eq!(holders(locks, 99), [4711, 12]);
        assert!(holders(locks, 1).is_empty());
    }
}
