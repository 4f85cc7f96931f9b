//! Errors of a configuration, each with the place where the setting was given. All of them are
//! collected, never only the first.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The place where a value was given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The file as a whole.
    File,
    /// A place in the file, both counted from 1; columns are characters.
    Line {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// The environment variable of that name.
    Variable(Arc<str>),
    /// The built-in default.
    Default,
}

impl Origin {
    pub(super) fn is_file(&self) -> bool {
        matches!(self, Self::File | Self::Line { .. })
    }
}

/// A single error.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// The place of the setting.
    pub origin: Origin,
    /// The setting's path, such as `limits.max_wait_ms`; empty if the error is not about a setting.
    pub setting: String,
    /// What is wrong and what is expected.
    pub problem: String,
}

/// All errors of a configuration, in the order of the file, then of the environment. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
    /// The errors, sorted by origin.
    pub list: Vec<Diagnostic>,
}

impl Diagnostics {
    pub(super) fn new(file: Option<&Path>, mut list: Vec<Diagnostic>) -> Self {
        list.sort();
        let file = file.map(Path::to_owned);
        Self { file, list }
    }
}

impl std::error::Error for Diagnostics {}

/// `2 errors in hostel.toml:` and a line for each.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = match &self.file {
            Some(path) => path.display().to_string(),
            None => "the configuration".to_owned(),
        };
        let is_variable = |one: &&Diagnostic| matches!(one.origin, Origin::Variable(_));
        let place = match self.list.iter().filter(is_variable).count() {
            0 => file.clone(),
            count if count == self.list.len() => "the environment".to_owned(),
            _ => format!("{file} and the environment"),
        };
        let count = self.list.len();
        let noun = if count == 1 { "error" } else { "errors" };
        write!(f, "{count} {noun} in {place}:")?;
        for one in &self.list {
            match &one.origin {
                Origin::File => write!(f, "\n  {file}: ")?,
                Origin::Line { line, column } => write!(f, "\n  {file}:{line}:{column}: ")?,
                Origin::Variable(name) => write!(f, "\n  {name}: ")?,
                Origin::Default => write!(f, "\n  default: ")?,
            }
            if !one.setting.is_empty() {
                write!(f, "{}: ", one.setting)?;
            }
            f.write_str(&one.problem)?;
        }
        Ok(())
    }
}

/// Returns the key of `known` that was probably meant by `given`.
pub(super) fn suggest<'a>(given: &str, known: &'a [String]) -> Option<&'a str> {
    let folded = given.to_ascii_lowercase().replace('-', "_");
    // A missing or wrong unit is the commonest mistake, and no small one by its letters.
    let stem = |key: &str| {
        let cut = ["_ms", "_secs", "_seconds", "_bytes", "_kb", "_mb", "_s"]
            .iter()
            .find_map(|unit| key.strip_suffix(unit));
        cut.unwrap_or(key).trim_start_matches("max_").to_owned()
    };
    let distance = |key: &str| {
        if stem(key) == stem(&folded) {
            0
        } else {
            strsim::osa_distance(&folded, key)
        }
    };
    let (best, distance) = known
        .iter()
        .map(|key| (key, distance(key)))
        .min_by_key(|&(_, distance)| distance)?;
    (distance <= (folded.len() / 3).clamp(1, 3)).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_key_that_was_meant() {
        let known = ["listen", "drain_ms", "max_file_bytes", "dir"].map(str::to_owned);
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
