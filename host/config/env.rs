//! Settings from environment variables: `HOSTEL__SECTION__KEY=value`. Maps names to paths; knows no
//! setting.

use super::{
    diagnostic::{Diagnostic, Origin},
    tree::{Entry, Table, Value, merge, parse_env_value},
};

/// The prefix of variables that are settings.
const PREFIX: &str = "HOSTEL__";

/// Merges those of `variables` that are settings into `tree`.
///
/// `__` separates levels; case does not matter. `_` matches a `-` in a name that the file has, and
/// stands for `-` in a name (of a plugin, a task type, a token) that the file does not have.
pub(super) fn apply(
    tree: &mut Table,
    variables: impl Iterator<Item = (String, String)>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let mut settings: Vec<(String, String)> = variables
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    // A section's kind comes first, because a change of kind drops the settings of the old one.
    let is_kind = |name: &str| name.to_ascii_lowercase().ends_with("__kind");
    settings.sort_by(|(a, _), (b, _)| (!is_kind(a), a).cmp(&(!is_kind(b), b)));
    let mut seen: Vec<(Vec<String>, &str)> = Vec::new();
    for (name, text) in &settings {
        let path = resolve(tree, &name[PREFIX.len()..]);
        let mut report = |problem: String| {
            diagnostics.push(Diagnostic {
                origin: Origin::Variable(name.as_str().into()),
                setting: path.join("."),
                problem,
            });
        };
        if path.iter().any(String::is_empty) {
            report("a part of the name is empty; expected HOSTEL__SECTION__KEY".into());
            continue;
        }
        // A section that is a single value would hide the settings in it.
        let is_within = |(other, _): &&(String, String)| {
            let rest = other.get(name.len()..).unwrap_or_default();
            rest.starts_with("__") && other[..name.len()].eq_ignore_ascii_case(name)
        };
        if let Some((other, _)) = settings.iter().find(is_within) {
            report(format!("is a section, of which {other} gives a setting"));
            continue;
        }
        if let Some((_, other)) = seen.iter().find(|(known, _)| *known == path) {
            report(format!("{other} gives the same setting"));
            continue;
        }
        let mut entry = parse_env_value(name, text);
        for level in path.iter().skip(1).rev() {
            entry = nest(level.clone(), entry);
        }
        seen.push((path.clone(), name));
        merge(tree, [(path[0].clone(), entry)].into());
    }
}

fn nest(key: String, entry: Entry) -> Entry {
    let origin = entry.origin.clone();
    Entry {
        value: Value::Table([(key, entry)].into()),
        origin: origin.clone(),
        key_origin: origin,
        raw: None,
    }
}

/// Returns the path of the setting that a variable's name stands for.
fn resolve(tree: &Table, name: &str) -> Vec<String> {
    let mut path: Vec<String> = Vec::new();
    let mut table = Some(tree);
    for level in name.split("__") {
        let lower = level.to_ascii_lowercase();
        let dashed = lower.replace('_', "-");
        let known = table.and_then(|table| {
            let matches = |key: &&String| key.to_ascii_lowercase().replace('_', "-") == dashed;
            let exact = table.keys().find(|key| **key == lower);
            exact.or_else(|| table.keys().find(matches))
        });
        let key = match known {
            Some(key) => key.clone(),
            None if is_name(&path) => dashed,
            None => lower,
        };
        table = table
            .and_then(|table| table.get(&key))
            .and_then(|entry| match &entry.value {
                Value::Table(table) => Some(table),
                _ => None,
            });
        path.push(key);
    }
    path
}

/// Whether the next part after `path` is the name of a plugin, a task type or a token.
fn is_name(path: &[String]) -> bool {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    matches!(
        path[..],
        ["plugin"] | ["plugin", _, "task"] | ["auth", "token"]
    )
}
