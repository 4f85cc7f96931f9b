//! What can be wrong with a configuration and where it was said: collected, never the first alone.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The file as a whole.
    File,
    /// A place in the file, both counted from 1; columns are characters.
    Line { line: usize, column: usize },
    /// The environment variable of that name.
    Variable(Arc<str>),
    /// `default.toml`.
    Default,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    pub origin: Origin,
    /// The setting's path, such as `limits.max_wait_ms`; empty when the fault is no setting's.
    pub setting: String,
    /// What is wrong and what is allowed.
    pub problem: String,
}

/// Everything that is wrong, in the order of the file, then of the environment. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    pub list: Vec<Fault>,
}

impl Faults {
    pub(super) fn new(file: Option<&Path>, mut list: Vec<Fault>) -> Self {
        list.sort();
        let file = file.map(Path::to_owned);
        Self { file, list }
    }
}

impl std::error::Error for Faults {}

/// `2 faults in hostel.toml:` and a line for each.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = match &self.file {
            Some(path) => path.display().to_string(),
            None => "the configuration".to_owned(),
        };
        let from_environment = |fault: &Fault| matches!(fault.origin, Origin::Variable(_));
        let place = match self.list.iter().filter(|x| from_environment(x)).count() {
            0 => file.clone(),
            all if all == self.list.len() => "the environment".to_owned(),
            _ => format!("{file} and the environment"),
        };
        let count = self.list.len();
        let noun = if count == 1 { "fault" } else { "faults" };
        write!(f, "{count} {noun} in {place}:")?;
        for fault in &self.list {
            match &fault.origin {
                Origin::File => write!(f, "\n  {file}: ")?,
                Origin::Line { line, column } => write!(f, "\n  {file}:{line}:{column}: ")?,
                Origin::Variable(name) => write!(f, "\n  {name}: ")?,
                Origin::Default => write!(f, "\n  default: ")?,
            }
            if !fault.setting.is_empty() {
                write!(f, "{}: ", fault.setting)?;
            }
            f.write_str(&fault.problem)?;
        }
        Ok(())
    }
}

/// The one of `known` that `given` was probably meant to be.
pub(super) fn suggest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    let folded = given.to_ascii_lowercase().replace('-', "_");
    // A unit that was forgotten or made up is no small slip by its letters, but the commonest one.
    let stem = |key: &str| {
        let cut = ["_ms", "_secs", "_seconds", "_bytes", "_kb", "_mb", "_s"]
            .iter()
            .find_map(|unit| key.strip_suffix(unit));
        cut.unwrap_or(key).trim_start_matches("max_").to_owned()
    };
    let distance = |key: &str| match stem(key) == stem(&folded) {
        true => 0,
        false => edits(&folded, key),
    };
    let (best, distance) = known
        .iter()
        .map(|&key| (key, distance(key)))
        .min_by_key(|&(_, distance)| distance)?;
    (distance <= (folded.len() / 3).clamp(1, 3)).then_some(best)
}

/// How many characters have to be added, taken, changed or swapped with their neighbour.
fn edits(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![(0..=to.len()).collect::<Vec<_>>()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let changed = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut least = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_what_was_meant() {
        let known = ["listen", "drain_ms", "max_file_bytes", "dir"];
        for (given, meant) in [
            ("lsiten", Some("listen")),
            ("Listen", Some("listen")),
            ("drain", Some("drain_ms")),
            ("drain_seconds", Some("drain_ms")),
            ("file_bytes", Some("max_file_bytes")),
            ("max-file-bytes", Some("max_file_bytes")),
            ("dirs", Some("dir")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(suggest(given, &known), meant, "{given}");
        }
    }
}
