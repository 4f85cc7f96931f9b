//! What differs between two configurations, by the names of the settings. Shows no values.

use super::{Config, Secrets, show};
use std::collections::{BTreeMap, BTreeSet};
use toml::{Table, Value};

/// The settings, such as `limits.max_connections`, whose values differ. Where a value is not shown since
/// it is secret, its section stands for it.
pub fn differences(old: &Config, new: &Config) -> BTreeSet<String> {
    let (before, after) = (settings(old), settings(new));
    let names = before.keys().chain(after.keys());
    let mut changed: BTreeSet<String> = names
        .filter(|name| before.get(*name) != after.get(*name))
        .cloned()
        .collect();
    let mut hidden = |section: String, differs: bool| {
        let prefix = format!("{section}.");
        if differs && !changed.iter().any(|name| name.starts_with(&prefix)) {
            changed.insert(section);
        }
    };
    hidden("queue".into(), old.queue != new.queue);
    hidden("broker".into(), old.broker != new.broker);
    hidden("discovery".into(), old.discovery != new.discovery);
    let plugins: BTreeSet<_> = old.plugin.keys().chain(new.plugin.keys()).collect();
    for name in plugins {
        let differs = old.plugin.get(name) != new.plugin.get(name);
        hidden(format!("plugin.{name}"), differs);
    }
    changed
}

/// All that is shown of a configuration.
fn settings(config: &Config) -> BTreeMap<String, Value> {
    let mut settings = BTreeMap::new();
    // What `show` writes is TOML; a test holds it to that.
    flatten(
        "",
        show(config, Secrets::Shown).parse().unwrap_or_default(),
        &mut settings,
    );
    settings
}

fn flatten(section: &str, table: Table, settings: &mut BTreeMap<String, Value>) {
    for (key, value) in table {
        let name = match section {
            "" => key,
            section => format!("{section}.{key}"),
        };
        match value {
            Value::Table(table) => flatten(&name, table, settings),
            value => {
                settings.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_differ_are_named_and_secrets_are_not_shown() {
        let read = |text: &str| Config::parse(text, std::iter::empty()).unwrap();
        let old = read(
            "[queue]\nkind = \"redis\"\nurl = \"redis://me:one@host\"\n\
             [plugin.a.config]\nkey = \"1\"",
        );
        assert!(differences(&old, &old).is_empty());
        let new = read(
            "[limits]\nmax_connections = 7\n\
             [queue]\nkind = \"redis\"\nurl = \"redis://me:two@host\"\n\
             [plugin.a.config]\nkey = \"2\"\n[plugin.b.limits]\nmax_cpu_ms = 50",
        );
        let changed = differences(&old, &new);
        for name in [
            "limits.max_connections",
            "queue",
            "plugin.b.limits.max_cpu_ms",
        ] {
            assert!(changed.contains(name), "{name}: {changed:?}");
        }
        let plugin = |name: &String| name.starts_with("plugin.a");
        assert!(changed.iter().any(plugin), "{changed:?}");
        assert_eq!(changed.len(), 4, "{changed:?}");
    }
}
