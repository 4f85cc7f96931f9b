//! Parses the values of entries. An error is what was expected and what was found.

use super::tree::{Entry, Value};
use std::{fmt::Display, ops::RangeInclusive, path::PathBuf};

/// The directories that relative paths and default paths start from.
#[derive(Debug, Clone, Default)]
pub(super) struct BaseDirs {
    /// For relative paths of the file.
    pub file: PathBuf,
    /// For all other relative paths.
    pub current: PathBuf,
    /// `node.data_dir`, once it is read; before that its default.
    pub data: PathBuf,
}

/// Converts an entry, or returns what was expected.
pub(super) type Parse<T> = Box<dyn Fn(&Entry, &BaseDirs) -> Result<T, String>>;

/// A type of whole numbers.
pub(super) trait Number: TryFrom<i128> + PartialOrd + Display + Copy + 'static {}

impl<T: TryFrom<i128> + PartialOrd + Display + Copy + 'static> Number for T {}

/// Parses a number within `range`; `unit` completes "a whole number" in errors.
pub(super) fn number<T: Number>(
    entry: &Entry,
    range: &RangeInclusive<T>,
    unit: &str,
) -> Result<T, String> {
    let (min, max) = (range.start(), range.end());
    let expected = format!("a whole number{unit} from {min} to {max}");
    let Value::Integer(given) = entry.value else {
        return Err(format!("expected {expected}, found {}", entry.describe()));
    };
    T::try_from(given)
        .ok()
        .filter(|value| range.contains(value))
        .ok_or_else(|| format!("{given} is out of range; expected {expected}"))
}

/// Returns the text of an entry, or of the variable that gave it.
pub(super) fn text(entry: &Entry) -> Result<String, String> {
    match (&entry.value, &entry.raw) {
        (Value::Text(text), _) | (_, Some(text)) => Ok(text.clone()),
        // Secrets are texts, and one without quotes may be taken for something else.
        _ => Err(format!(
            "expected text, found {}; text needs quotes",
            entry.value.kind()
        )),
    }
}
