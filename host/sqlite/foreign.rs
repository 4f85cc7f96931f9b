//! Other processes that read a database, as far as the kernel tells: what keeps a log of changes
//! from shrinking is named by it.

use super::file;
use std::{fs, os::unix::fs::MetadataExt, path::Path, process};

/// The processes, other than this one, that hold locks on the index of the log; in words.
pub(super) fn readers(database: &Path) -> String {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let index = fs::metadata(file::with_suffix(database, "-shm"));
    let inode = index.map_or(0, |index| index.ino());
    let mut names: Vec<String> = holders(&locks, inode)
        .into_iter()
        .filter(|&pid| pid != process::id())
        .map(described)
        .collect();
    names.sort_unstable();
    names.dedup();
    match names.is_empty() {
        true => "another program".into(),
        false => names.join(" and "),
    }
}

/// `N: POSIX ADVISORY READ PID MAJOR:MINOR:INODE START END`, a line for each lock.
fn holders(locks: &str, inode: u64) -> Vec<u32> {
    let holder = |line: &str| {
        let mut words = line.split_whitespace().skip(4);
        let pid = words.next()?.parse().ok()?;
        let (_, held) = words.next()?.rsplit_once(':')?;
        (held.parse() == Ok(inode)).then_some(pid)
    };
    locks.lines().filter_map(holder).collect()
}

fn described(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    // A process may call itself anything.
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
