//! The declarations of all settings: a file per section, except that `backends.rs` has `[discovery]` and
//! `[broker]`, and `security.rs` has `[tls]` and `[auth]`. `plugins.rs` is `[plugins]`, `plugin.rs` is
//! `[plugin.NAME]`, `schedule.rs` is `[schedule.NAME]`. `texts.rs` serves sections whose keys the user
//! chooses. `settings!` and `kinds!` (`group.rs`) turn each declaration into a struct or enum with its reader
//! and description.

mod backends;
mod keyvalue;
mod limits;
mod node;
mod plugin;
mod plugins;
mod queue;
mod schedule;
mod security;
mod texts;

pub use backends::{Broker, Discovery, Etcd, Redis};
pub use keyvalue::{KeyValue, KeyValueBackend, KeyValueLimits, SqliteKeyValue};
pub use limits::{Limits, MESSAGE_OVERHEAD};
pub use node::Node;
pub use plugin::{Plugin, TaskGroupLimits, TaskTypeOverrides};
pub use plugins::{Component, ComponentOverrides, Plugins, Sandbox, SandboxOverrides};
pub use queue::{Queue, QueueBackend, RedisQueue, Sqlite};
pub use schedule::Schedule;
pub use security::{Auth, Tls};

use super::{
    diagnostic::Origin,
    group::{self, Group, Item, Reference, section, settings, tables},
    tree::{Entry, Table, Value},
};
use hostel_task::{KeepTimes, Name, Retention};
use std::collections::BTreeMap;

settings! {
    /// The configuration of a node.
    struct Config {
        /// `[node]`
        node: Node = section();
        /// `[limits]`
        limits: Limits = section();
        /// `[plugins]`
        plugins: Plugins = section();
        /// `[queue]`
        queue: Queue = section();
        /// `[keyvalue]`
        keyvalue: KeyValue = section();
        /// `[discovery]`
        discovery: Discovery = section();
        /// `[broker]`
        broker: Broker = section();
        /// `[tls]`, if it names a certificate.
        tls: Option<Tls> = section().reloadable();
        /// `[auth]`, if it names a token or a file of tokens.
        auth: Option<Auth> = section().reloadable();
        /// `[plugin.NAME]`
        plugin: BTreeMap<Name, Plugin> = tables("plugin name", "thumbnail");
        /// `[schedule.NAME]`
        schedule: BTreeMap<Name, Schedule> =
            tables("schedule name", "nightly-report").reloadable();
    }
}

impl Config {
    /// Returns the limits of the component of `plugin`.
    pub fn component(&self, plugin: &Name) -> Component {
        let general = &self.plugins.component;
        self.plugin
            .get(plugin)
            .map_or_else(|| general.clone(), |plugin| general.with(&plugin.component))
    }

    /// Returns how long ended tasks are kept. Of several plugins with times for one type, the longest count.
    pub fn retention(&self) -> Retention {
        let general = KeepTimes {
            completed: self.queue.keep_completed,
            failed: self.queue.keep_failed,
            cancelled: self.queue.keep_cancelled,
        };
        let mut of_types: BTreeMap<Name, KeepTimes> = BTreeMap::new();
        let plugins = self.plugin.values();
        for (task_type, own) in plugins.flat_map(|plugin| &plugin.task) {
            if [own.keep_completed, own.keep_failed, own.keep_cancelled] == [None; 3] {
                continue;
            }
            let times = KeepTimes {
                completed: own.keep_completed.unwrap_or(general.completed),
                failed: own.keep_failed.unwrap_or(general.failed),
                cancelled: own.keep_cancelled.unwrap_or(general.cancelled),
            };
            let known = of_types.entry(task_type.clone()).or_insert(times);
            *known = KeepTimes {
                completed: known.completed.max(times.completed),
                failed: known.failed.max(times.failed),
                cancelled: known.cancelled.max(times.cancelled),
            };
        }
        Retention::new(general, of_types)
    }

    /// Returns the limits of each call of `plugin`.
    pub fn sandbox(&self, plugin: &str) -> Sandbox {
        let general = &self.plugins.sandbox;
        self.plugin
            .get(plugin)
            .map_or_else(|| general.clone(), |plugin| general.with(&plugin.limits))
    }
}

/// Returns a tree that has the default kind of each section and nothing else.
pub(super) fn default_kinds() -> Table {
    let default = |value| Entry {
        value,
        origin: Origin::Default,
        key_origin: Origin::Default,
        raw: None,
    };
    let kind = |item: &Item| match item {
        Item::Line(line) if line.key == "kind" => match &line.reference {
            Reference::Default(toml::Value::String(kind)) => Some(Value::Text(kind.clone())),
            _ => None,
        },
        _ => None,
    };
    let section = |item: Item| {
        let Item::Section(section) = item else {
            return None;
        };
        let kind = section.items.iter().find_map(kind)?;
        let table = Table::from([("kind".to_owned(), default(kind))]);
        Some((section.key.to_owned(), default(Value::Table(table))))
    };
    Config::describe(None)
        .into_iter()
        .filter_map(section)
        .collect()
}
