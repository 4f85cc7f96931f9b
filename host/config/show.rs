//! A configuration as TOML that a person reads: the reference with its comments, holding the values
//! in force. What it prints loads again to the same configuration, but for the secrets.

use super::{Broker, Config, Discovery, KeyValueBackend, Plugin, Queue, Redis, load::REFERENCE};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};
use toml::{Table, Value};

/// By section and key.
type Values = BTreeMap<(&'static str, &'static str), Value>;

/// Whether values that may be secrets are shown: all under `[plugin.NAME.config]`, since no name
/// tells which of them are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    Shown,
    /// Three stars stand for each value.
    Masked,
}

/// What stands for a secret.
const MASK: &str = "***";

/// `config` as a file that gives every setting. A password is left out in any case, and in a URL
/// three stars stand for it.
pub fn show(config: &Config, secrets: Secrets) -> String {
    let values = values(config);
    let mut shown = String::new();
    let mut section = "";
    // The reference has one setting a line, so lines are all that has to be understood.
    for line in REFERENCE.lines() {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']');
        }
        let bare = line.strip_prefix('#').unwrap_or(line);
        let key = bare.split_once(" = ").map_or("", |(key, _)| key);
        match values.get(&(section, key)) {
            Some(value) => shown.push_str(&format!("{key} = {value}")),
            // A setting that is not given, or that belongs to another kind of backend.
            None if is_key(key) => shown.push_str(&format!("#{bare}")),
            None => shown.push_str(line),
        }
        shown.push('\n');
    }
    for (name, hash) in config.auth.iter().flat_map(|auth| &auth.tokens) {
        let table = within("sha256", text(&hash.to_string()));
        let tokens = within(
            "token",
            Value::Table(within(name.as_str(), Value::Table(table))),
        );
        shown.push_str(&format!("\n{}", within("auth", Value::Table(tokens))));
    }
    for (name, plugin) in &config.plugin {
        let plugins = within(name.as_str(), Value::Table(plugin_table(plugin, secrets)));
        let table = within("plugin", Value::Table(plugins));
        shown.push_str(&format!("\n{table}"));
    }
    shown
}

fn within(key: &str, value: Value) -> Table {
    Table::from_iter([(key.to_owned(), value)])
}

fn is_key(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    !text.is_empty() && text.chars().all(allowed)
}

fn values(config: &Config) -> Values {
    let Config {
        node,
        limits,
        plugins,
        queue,
        keep_ended,
        lease_ttl,
        max_unwritten_bytes,
        keyvalue,
        discovery,
        broker,
        tls,
        auth,
        plugin: _,
    } = config;
    let mut values = Values::new();

    let mut set = |key, value| values.insert(("node", key), value);
    if let Some(id) = &node.id {
        set("id", text(id.as_str()));
    }
    if !node.labels.is_empty() {
        let labels = node.labels.iter().map(|label| text(label.as_str()));
        set("labels", Value::Array(labels.collect()));
    }
    set("listen", text(&node.listen.to_string()));
    if let Some(advertise) = &node.advertise {
        set("advertise", text(&advertise.to_string()));
    }
    set("insecure", Value::Boolean(node.insecure));
    set("data_dir", path(&node.data_dir));
    set("drain_ms", ms(node.drain));

    let mut set = |key, value| values.insert(("limits", key), value);
    let submission = &limits.submission;
    set("max_payload_bytes", number(submission.payload_bytes));
    set("max_metadata_entries", number(submission.metadata_entries));
    set("max_metadata_bytes", number(submission.metadata_bytes));
    set("max_message_bytes", number(limits.max_message_bytes));
    set("max_received_bytes", number(limits.max_received_bytes));
    let share = limits.max_received_bytes_per_connection;
    set("max_received_bytes_per_connection", number(share));
    set("max_unsent_bytes", number(limits.max_unsent_bytes));
    let share = limits.max_unsent_bytes_per_connection;
    set("max_unsent_bytes_per_connection", number(share));
    set("stall_timeout_ms", ms(limits.stall_timeout));
    set("max_connections", number(limits.max_connections));
    let streams = limits.max_streams_per_connection;
    set("max_streams_per_connection", number(streams));
    let requests = limits.max_requests_per_connection;
    set("max_requests_per_connection", number(requests));
    set("request_timeout_ms", ms(limits.request_timeout));
    set("max_wait_ms", ms(limits.max_wait));
    set("max_connection_age_ms", ms(limits.max_connection_age));
    set("idle_timeout_ms", ms(limits.idle_timeout));
    set("max_services", number(limits.max_services));
    set("service_ttl_ms", ms(limits.service_ttl));
    set("subscriber_backlog", number(limits.subscriber_backlog));

    let mut set = |key, value| values.insert(("plugins", key), value);
    set("dir", path(&plugins.dir));
    set("rescan_ms", ms(plugins.rescan));
    set("max_file_bytes", number(plugins.max_file_bytes));
    set("compile_timeout_ms", ms(plugins.compile_timeout));
    if let Some(compiler) = &plugins.compiler {
        set("compiler", path(compiler));
    }
    let memory = plugins.max_compile_memory_bytes;
    set("max_compile_memory_bytes", number(memory));
    set("max_compiles", number(plugins.max_compiles));
    set("max_tasks", number(plugins.max_tasks));
    set("max_components", number(plugins.max_components));
    let total = plugins.max_total_memory_bytes;
    set("max_total_memory_bytes", number(total));
    let components = plugins.max_component_memory_bytes;
    set("max_component_memory_bytes", number(components));
    set("max_timeout_ms", ms(plugins.max_timeout));
    set("threads", number(plugins.threads));

    let mut set = |key, value| values.insert(("plugins.sandbox", key), value);
    let sandbox = &plugins.sandbox;
    set("max_memory_bytes", number(sandbox.max_memory_bytes));
    set("max_table_elements", number(sandbox.max_table_elements));
    set("max_cpu_ms", ms(sandbox.max_cpu));
    set("max_result_bytes", number(sandbox.max_result_bytes));
    set("max_log_bytes", number(sandbox.max_log_bytes));
    set("max_messages", number(sandbox.max_messages));
    set("describe_timeout_ms", ms(sandbox.describe_timeout));
    set("timeout_ms", ms(sandbox.timeout));

    let mut set = |key, value| values.insert(("plugins.component", key), value);
    let component = &plugins.component;
    set("mailbox", number(component.mailbox));
    set("start_timeout_ms", ms(component.start_timeout));
    set("message_timeout_ms", ms(component.message_timeout));
    set("stop_timeout_ms", ms(component.stop_timeout));

    let mut set = |key, value| values.insert(("queue", key), value);
    set("keep_ended_ms", ms(*keep_ended));
    set("lease_ttl_ms", ms(*lease_ttl));
    set("max_unwritten_bytes", number(*max_unwritten_bytes));
    match queue {
        Queue::Sqlite(sqlite) => {
            set("kind", text("sqlite"));
            set("path", path(&sqlite.path));
            set("max_open_tasks", number(sqlite.max_open_tasks));
            set("max_batch", number(sqlite.max_batch));
            set("reserve_bytes", number(sqlite.reserve_bytes));
        }
        Queue::Redis(queue) => {
            set("kind", text("redis"));
            set("max_open_tasks", number(queue.max_open_tasks));
            set("shards", number(queue.shards));
            set("replicas", number(queue.replicas));
            set("reserve_percent", number(queue.reserve_percent));
            redis_values(&queue.server).for_each(|(key, value)| drop(set(key, value)));
        }
    }

    let mut set = |key, value| values.insert(("keyvalue", key), value);
    match &keyvalue.backend {
        KeyValueBackend::Sqlite {
            path: file,
            reserve_bytes,
        } => {
            set("kind", text("sqlite"));
            set("path", path(file));
            set("reserve_bytes", number(*reserve_bytes));
        }
    }
    let kept = &keyvalue.limits;
    set("max_plugin_bytes", number(kept.max_plugin_bytes));
    set("max_value_bytes", number(kept.max_value_bytes));
    set("max_key_bytes", number(kept.max_key_bytes));
    set("max_store_name_bytes", number(kept.max_store_name_bytes));
    set("max_batch_keys", number(kept.max_batch_keys));
    set("max_batch_bytes", number(kept.max_batch_bytes));

    let mut set = |key, value| values.insert(("discovery", key), value);
    match discovery {
        Discovery::Local => drop(set("kind", text("local"))),
        Discovery::Etcd(etcd) => {
            set("kind", text("etcd"));
            let endpoints = etcd.endpoints.iter().map(|one| text(one)).collect();
            set("endpoints", Value::Array(endpoints));
            set("prefix", text(&etcd.prefix));
            set("ttl_ms", ms(etcd.ttl));
            let user = etcd.user.iter().map(|user| ("user", text(user)));
            let files = files(&etcd.ca_file, &etcd.cert_file, &etcd.key_file);
            user.chain(files)
                .for_each(|(key, value)| drop(set(key, value)));
        }
    }
    let mut set = |key, value| values.insert(("broker", key), value);
    match broker {
        Broker::Local => drop(set("kind", text("local"))),
        Broker::Redis(redis) => {
            set("kind", text("redis"));
            redis_values(redis).for_each(|(key, value)| drop(set(key, value)));
        }
    }
    if let Some(tls) = tls {
        let mut set = |key, file: &Path| values.insert(("tls", key), path(file));
        set("cert_file", &tls.cert_file);
        set("key_file", &tls.key_file);
        tls.client_ca_file
            .iter()
            .for_each(|file| drop(set("client_ca_file", file)));
    }
    if let Some(file) = auth.as_ref().and_then(|auth| auth.tokens_file.as_ref()) {
        values.insert(("auth", "tokens_file"), path(file));
    }
    values
}

fn redis_values(redis: &Redis) -> impl Iterator<Item = (&'static str, Value)> {
    let said = [
        ("url", text(&redis.url.to_string())),
        ("cluster", Value::Boolean(redis.cluster)),
        ("prefix", text(redis.prefix.as_str())),
    ];
    let (ca, cert, key) = (&redis.ca_file, &redis.cert_file, &redis.key_file);
    said.into_iter().chain(files(ca, cert, key))
}

fn files<'f>(
    ca: &'f Option<PathBuf>,
    cert: &'f Option<PathBuf>,
    key: &'f Option<PathBuf>,
) -> impl Iterator<Item = (&'static str, Value)> + use<> {
    let files = [("ca_file", ca), ("cert_file", cert), ("key_file", key)];
    let given = files.map(|(key, file)| Some((key, path(file.as_ref()?))));
    given.into_iter().flatten()
}

fn plugin_table(plugin: &Plugin, secrets: Secrets) -> Table {
    let given = |pairs: Vec<(&str, Option<Value>)>| -> Value {
        let given = pairs.into_iter();
        let given = given.filter_map(|(key, value)| Some((key.to_owned(), value?)));
        Value::Table(given.collect())
    };
    let limits = &plugin.limits;
    let limits = given(vec![
        ("max_memory_bytes", limits.max_memory_bytes.map(number)),
        ("max_table_elements", limits.max_table_elements.map(number)),
        ("max_cpu_ms", limits.max_cpu.map(ms)),
        ("max_result_bytes", limits.max_result_bytes.map(number)),
        ("max_log_bytes", limits.max_log_bytes.map(number)),
        ("max_messages", limits.max_messages.map(number)),
        ("describe_timeout_ms", limits.describe_timeout.map(ms)),
    ]);
    let component = &plugin.component;
    let component = given(vec![
        ("mailbox", component.mailbox.map(number)),
        ("start_timeout_ms", component.start_timeout.map(ms)),
        ("message_timeout_ms", component.message_timeout.map(ms)),
        ("stop_timeout_ms", component.stop_timeout.map(ms)),
    ]);
    let config = plugin.config.iter();
    let config = config.map(|(key, value)| {
        let value = match secrets {
            Secrets::Shown => value.as_str(),
            Secrets::Masked => MASK,
        };
        (key.clone(), text(value))
    });
    let task = plugin.task.iter().map(|(name, overrides)| {
        let overrides = given(vec![
            ("timeout_ms", overrides.timeout.map(ms)),
            ("max_attempts", overrides.max_attempts.map(number)),
            ("backoff_initial_ms", overrides.backoff_initial.map(ms)),
            ("backoff_max_ms", overrides.backoff_max.map(ms)),
            ("max_concurrency", overrides.max_concurrency.map(number)),
            (
                "max_cluster_concurrency",
                overrides.max_cluster_concurrency.map(number),
            ),
        ]);
        (name.to_string(), overrides)
    });
    let parts = [
        ("limits".to_owned(), limits),
        ("component".to_owned(), component),
        ("config".to_owned(), Value::Table(config.collect())),
        ("task".to_owned(), Value::Table(task.collect())),
    ];
    parts.into_iter().collect()
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn path(path: &Path) -> Value {
    text(&path.to_string_lossy())
}

fn number<T: TryInto<i64>>(number: T) -> Value {
    Value::Integer(number.try_into().unwrap_or(i64::MAX))
}

fn ms(time: Duration) -> Value {
    number(time.as_millis())
}

#[cfg(test)]
mod tests;
