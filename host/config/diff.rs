//! Compares two configurations by their settings, for a reload. Returns no values.

use super::{
    group::{Group, Item},
    schema::Config,
};
use std::collections::{BTreeMap, BTreeSet};

/// The settings of a configuration by name, such as `limits.max_connections`.
type Settings = BTreeMap<String, Setting>;

#[derive(PartialEq)]
struct Setting {
    value: toml::Value,
    reloadable: bool,
}

/// The settings whose values differ between two configurations.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// Settings that SIGHUP makes a running node read again.
    pub reloadable: BTreeSet<String>,
    /// Settings that a node reads at its start only.
    pub at_start: BTreeSet<String>,
}

/// Compares `old` and `new`.
pub fn changes(old: &Config, new: &Config) -> Changes {
    let (old, new) = (settings(old), settings(new));
    let mut changes = Changes::default();
    for name in old.keys().chain(new.keys()) {
        let (before, after) = (old.get(name), new.get(name));
        if before == after {
            continue;
        }
        let reloadable = before.or(after).is_some_and(|setting| setting.reloadable);
        let names = if reloadable {
            &mut changes.reloadable
        } else {
            &mut changes.at_start
        };
        names.insert(name.clone());
    }
    changes
}

fn settings(config: &Config) -> Settings {
    let mut settings = Settings::new();
    collect("", false, Config::describe(Some(config)), &mut settings);
    settings
}

fn collect(section: &str, reloadable: bool, items: Vec<Item>, settings: &mut Settings) {
    let name = |key: &str| match section {
        "" => key.to_owned(),
        section => format!("{section}.{key}"),
    };
    for item in items {
        match item {
            Item::Line(line) => {
                let setting = line.value.map(|value| Setting { value, reloadable });
                settings.extend(setting.map(|setting| (name(&line.key), setting)));
            }
            Item::Section(inner) => {
                let reloadable = reloadable || inner.reloadable;
                collect(&name(inner.key), reloadable, inner.items, settings);
            }
            Item::Tables(tables) => {
                let reloadable = reloadable || tables.reloadable;
                for (key, items) in tables.tables {
                    let table = format!("{}.{key}", name(tables.key));
                    collect(&table, reloadable, items, settings);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read_again() {
        let read = |text: &str| Config::parse(text, std::iter::empty()).unwrap();
        let text = "[schedule.s]\ntask_type = \"t\"\ncron = ";
        let [old, new] = ["@daily", "@hourly"].map(|cron| read(&format!("{text}\"{cron}\"")));
        let changed = changes(&old, &new);
        assert_eq!(Vec::from_iter(&changed.reloadable), ["schedule.s.cron"]);
        assert!(changed.at_start.is_empty());
    }

    #[test]
    fn names_each_setting_that_differs_and_no_value() {
        let read = |text: &str| Config::parse(text, std::iter::empty()).unwrap();
        let old = read(
            "[queue]\nkind = \"redis\"\nurl = \"redis://me:one@host\"\n\
             [plugin.a.config]\nkey = \"1\"",
        );
        assert_eq!(changes(&old, &old), Changes::default());
        let new = read(
            "[limits]\nmax_connections = 7\n\
             [queue]\nkind = \"redis\"\nurl = \"redis://me:two@host\"\n\
             [plugin.a.config]\nkey = \"2\"\n[plugin.b.limits]\nmax_cpu_ms = 50\n\
             [auth]\ntokens_file = \"/tokens\"",
        );
        let changes = changes(&old, &new);
        assert_eq!(
            Vec::from_iter(&changes.at_start),
            [
                "limits.max_connections",
                "plugin.a.config.key",
                "plugin.b.limits.max_cpu_ms",
                "queue.url",
            ]
        );
        assert_eq!(Vec::from_iter(&changes.reloadable), ["auth.tokens_file"]);
    }
}
