//! Settings from variables: `HOSTEL__SECTION__KEY=value`. Knows no setting; only how names map.

use super::{
    fault::{Fault, Origin},
    tree::{Entry, Table, Value, merge, parse_variable},
};

/// What a variable's name begins with to be a setting.
const PREFIX: &str = "HOSTEL__";

/// Lays the variables among `variables` that are settings on `tree`.
///
/// `__` separates levels; case does not matter. `_` fits a `-` of a name that the file has, and
/// means `-` in a name (of a plugin, a task type, a token) that the file does not have.
pub(super) fn apply(
    tree: &mut Table,
    variables: impl Iterator<Item = (String, String)>,
    faults: &mut Vec<Fault>,
) {
    let mut settings: Vec<(String, String)> = variables
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    // A section's kind first: what is said of one kind is dropped where another is laid on it.
    let is_kind = |name: &str| name.to_ascii_lowercase().ends_with("__kind");
    settings.sort_by(|(a, _), (b, _)| (!is_kind(a), a).cmp(&(!is_kind(b), b)));
    let mut seen: Vec<(Vec<String>, &str)> = Vec::new();
    for (name, text) in &settings {
        let path = resolve(tree, &name[PREFIX.len()..]);
        let mut fault = |problem: String| {
            faults.push(Fault {
                origin: Origin::Variable(name.as_str().into()),
                setting: path.join("."),
                problem,
            });
        };
        if path.iter().any(String::is_empty) {
            fault("a part of the name is empty; HOSTEL__SECTION__KEY is expected".into());
            continue;
        }
        // A section that were one value would hide its other settings.
        let is_within = |(other, _): &&(String, String)| {
            let rest = other.get(name.len()..).unwrap_or_default();
            rest.starts_with("__") && other[..name.len()].eq_ignore_ascii_case(name)
        };
        if let Some((other, _)) = settings.iter().find(is_within) {
            fault(format!("is a section, of which {other} gives a setting"));
            continue;
        }
        if let Some((_, other)) = seen.iter().find(|(known, _)| *known == path) {
            fault(format!("{other} gives the same setting"));
            continue;
        }
        let mut entry = parse_variable(name, text);
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

/// The setting's path that a variable's name stands for.
fn resolve(tree: &Table, name: &str) -> Vec<String> {
    let mut path: Vec<String> = Vec::new();
    let mut table = Some(tree);
    for level in name.split("__") {
        let lower = level.to_ascii_lowercase();
        let dashed = lower.replace('_', "-");
        let known = table.and_then(|table| {
            let fits = |key: &&String| key.to_ascii_lowercase().replace('_', "-") == dashed;
            let exact = table.keys().find(|key| **key == lower);
            exact.or_else(|| table.keys().find(fits))
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

/// Whether what follows `path` is the name of a plugin, a task type or a token.
fn is_name(path: &[String]) -> bool {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    matches!(
        path[..],
        ["plugin"] | ["plugin", _, "task"] | ["auth", "token"]
    )
}
