//! A configuration as TOML that a person reads: the reference with its comments, holding the values
//! in force. What it prints loads again to the same configuration.

use super::{Broker, Config, Discovery, KeyValueBackend, Plugin, Queue, Redis, load::REFERENCE};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};
use toml::{Table, Value};

/// By section and key.
type Values = BTreeMap<(&'static str, &'static str), Value>;

/// `config` as a file that gives every setting. Nothing in it is secret but what operators put
/// under `[plugin.NAME.config]`: a password is left out, and in a URL three stars stand for it.
pub fn show(config: &Config) -> String {
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
        let plugins = within(name.as_str(), Value::Table(plugin_table(plugin)));
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
    set("insecure", Value::Boolean(node.insecure));
    set("data_dir", path(&node.data_dir));
    set("drain_ms", ms(node.drain));

    let mut set = |key, value| values.insert(("limits", key), value);
    let submission = &limits.submission;
    set("max_payload_bytes", number(submission.payload_bytes));
    set("max_metadata_entries", number(submission.metadata_entries));
    set("max_metadata_bytes", number(submission.metadata_bytes));
    set("max_message_bytes", number(limits.max_message_bytes));
    set("max_connections", number(limits.max_connections));
    let streams = limits.max_streams_per_connection;
    set("max_streams_per_connection", number(streams));
    let requests = limits.max_requests_per_connection;
    set("max_requests_per_connection", number(requests));
    set("request_timeout_ms", ms(limits.request_timeout));
    set("max_wait_ms", ms(limits.max_wait));
    set("max_connection_age_ms", ms(limits.max_connection_age));
    set("max_services", number(limits.max_services));
    set("service_ttl_ms", ms(limits.service_ttl));
    set("subscriber_backlog", number(limits.subscriber_backlog));

    let mut set = |key, value| values.insert(("plugins", key), value);
    set("dir", path(&plugins.dir));
    set("rescan_ms", ms(plugins.rescan));
    set("max_file_bytes", number(plugins.max_file_bytes));
    set("compile_timeout_ms", ms(plugins.compile_timeout));
    set("max_compiles", number(plugins.max_compiles));
    set("max_tasks", number(plugins.max_tasks));
    set("max_components", number(plugins.max_components));
    let total = plugins.max_total_memory_bytes;
    set("max_total_memory_bytes", number(total));
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
    match queue {
        Queue::Sqlite(sqlite) => {
            set("kind", text("sqlite"));
            set("path", path(&sqlite.path));
            set("max_open_tasks", number(sqlite.max_open_tasks));
            set("max_batch", number(sqlite.max_batch));
        }
        Queue::Redis(queue) => {
            set("kind", text("redis"));
            set("max_open_tasks", number(queue.max_open_tasks));
            set("shards", number(queue.shards));
            set("replicas", number(queue.replicas));
            redis_values(&queue.server).for_each(|(key, value)| drop(set(key, value)));
        }
    }

    let mut set = |key, value| values.insert(("keyvalue", key), value);
    match &keyvalue.backend {
        KeyValueBackend::Sqlite { path: file } => {
            set("kind", text("sqlite"));
            set("path", path(file));
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

fn plugin_table(plugin: &Plugin) -> Table {
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
    let config = config.map(|(key, value)| (key.clone(), text(value)));
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
mod tests {
    use super::*;
    use toml::de::DeTable;

    fn parse(text: &str) -> Config {
        match Config::parse(text, std::iter::empty()) {
            Ok(config) => config,
            Err(faults) => panic!("{faults}\n{text}"),
        }
    }

    /// The reference with everything given that it mentions, but for the password, which is not
    /// shown.
    fn complete(queue: &str) -> String {
        let cluster = REFERENCE.replace("kind = \"local\"", "kind = \"?\"");
        let cluster = cluster.replacen("\"?\"", "\"etcd\"", 1);
        let cluster = cluster.replacen("\"?\"", "\"redis\"", 1);
        let cluster = cluster.replacen("\"sqlite\"\n", &format!("\"{queue}\"\n"), 1);
        let (mut comment, mut given) = ("", Vec::new());
        for line in cluster.lines() {
            let bare = line.strip_prefix('#').unwrap_or(line);
            let key = bare.split_once(" = ").map_or("", |(key, _)| key);
            let example = is_key(key) || bare.starts_with("[plugin.") || bare.starts_with("[auth.");
            let of_another_kind = ["redis", "sqlite"]
                .iter()
                .any(|kind| *kind != queue && comment.starts_with(&format!("# For \"{kind}\"")));
            match line.is_empty() {
                true => comment = "",
                false if comment.is_empty() => comment = line,
                false => {}
            }
            match example {
                true if of_another_kind => {}
                true => given.push(bare),
                false => given.push(line),
            }
        }
        given.join("\n")
    }

    /// `complete`, with no value left at its default.
    fn changed(queue: &str) -> String {
        let change = |line: &str| {
            let (key, value) = line.split_once(" = ")?;
            let changed = match value.parse::<u64>() {
                Ok(number) => (number + 1).to_string(),
                Err(_) if value == "false" => "true".to_owned(),
                Err(_) if key == "listen" => "\"[::1]:7\"".to_owned(),
                Err(_) if key == "kind" => value.to_owned(),
                Err(_) if key == "sha256" => value.replace('5', "6"),
                Err(_) if value.contains("://") => value.replacen("127.0.0.1", "10.0.0.1", 1),
                Err(_) => value.replacen('"', "\"other-", 1),
            };
            (!line.starts_with('#')).then(|| format!("{key} = {changed}"))
        };
        let complete = complete(queue);
        let lines = complete.lines();
        let lines: Vec<String> = lines.map(|x| change(x).unwrap_or(x.to_owned())).collect();
        lines.join("\n")
    }

    #[test]
    fn what_is_shown_loads_to_the_same() {
        let odd = "[plugin.\"a.b:c\".config]\nkey = \"quo\\\"te\\n\"\n\"k k\" = \"\"\n[plugin.z]";
        let [one, many] = ["sqlite", "redis"].map(complete);
        // In a Redis Cluster no replica can be waited for.
        let other = changed("redis").replace("replicas = 1", "replicas = 0");
        for text in ["", &one, &many, &changed("sqlite"), &other, odd] {
            let mut config = parse(text);
            if let Discovery::Etcd(etcd) = &mut config.discovery {
                (etcd.user, etcd.password) = (None, None);
            }
            let shown = show(&config);
            assert_eq!(parse(&shown), config, "{shown}");
            assert_eq!(show(&parse(&shown)), shown);
        }
        assert_ne!(parse(&other).limits, Config::default().limits);
    }

    #[test]
    fn the_examples_of_other_kinds_are_their_defaults() {
        let optional = [
            "user",
            "password",
            "ca_file",
            "cert_file",
            "key_file",
            "client_ca_file",
        ];
        let complete = complete("redis");
        let lines = complete.lines().filter(|line| {
            !optional
                .iter()
                .any(|key| line.starts_with(&format!("{key} = ")))
        });
        let given = parse(&lines.collect::<Vec<_>>().join("\n"));
        let least = parse(
            "[queue]\nkind = \"redis\"\n[discovery]\nkind = \"etcd\"\n[broker]\nkind = \"redis\"",
        );
        assert_eq!(given.queue, least.queue);
        assert_eq!(given.discovery, least.discovery);
        assert_eq!(given.broker, least.broker);
    }

    #[test]
    fn passwords_are_not_shown() {
        let config = parse(
            "[discovery]\nkind = \"etcd\"\nuser = \"me\"\npassword = \"hush\"\n\
             [broker]\nkind = \"redis\"\nurl = \"rediss://me:hush@host/1\"",
        );
        let shown = show(&config);
        assert!(!shown.contains("hush") && !format!("{config:?}").contains("hush"));
        assert!(
            shown.contains("\nurl = \"rediss://me:***@host/1\""),
            "{shown}"
        );
        assert!(shown.contains("\nuser = \"me\"\n"), "{shown}");
    }

    #[test]
    fn comments_are_kept_and_absent_settings_stay_absent() {
        let shown = show(&parse("[node]\nlisten = \"127.0.0.1:9\""));
        let comments = |text: &str| text.matches("\n# ").count();
        assert_eq!(comments(&shown), comments(REFERENCE));
        assert!(shown.contains("listen = \"127.0.0.1:9\""));
        assert!(shown.contains("\n#id = "), "{shown}");
        assert!(shown.contains("\ndata_dir = \"/"), "{shown}");
    }

    #[test]
    fn the_reference_mentions_every_setting() {
        let shared = complete("redis");
        let reference: toml::Table = shared.parse().unwrap();
        for section in [
            "node",
            "limits",
            "plugins",
            "plugins.sandbox",
            "plugins.component",
            "queue",
            "keyvalue",
            "discovery",
            "broker",
            "tls",
            "auth",
            "auth.token.ci",
            "plugin.thumbnail.limits",
            "plugin.thumbnail.component",
            "plugin.thumbnail.task.thumbnail",
        ] {
            let kind = match section {
                "queue" => "kind = \"redis\"\n",
                "discovery" => "kind = \"etcd\"\n",
                "broker" => "kind = \"redis\"\n",
                _ => "",
            };
            let stranger = format!("[{section}]\n{kind}stranger_than_all = 1");
            let faults = Config::parse(&stranger, std::iter::empty()).unwrap_err();
            let mut problems = faults.list.iter().map(|fault| &fault.problem);
            let known = problems.find_map(|problem| problem.split_once("known here: "));
            let (_, known) = known.unwrap();
            let table = section
                .split('.')
                .fold(&reference, |table, key| table[key].as_table().unwrap());
            for key in known.split(", ") {
                assert!(
                    table.contains_key(key),
                    "{section}.{key} is not in default.toml"
                );
            }
        }
        assert!(DeTable::parse(REFERENCE).is_ok());
    }

    #[test]
    fn every_setting_of_the_reference_is_explained() {
        let (settings, _) = REFERENCE.split_once("# What one plugin is given").unwrap();
        let lines: Vec<&str> = settings.lines().collect();
        for pair in lines.windows(2) {
            let bare = pair[1].strip_prefix('#').unwrap_or(pair[1]);
            if bare.split_once(" = ").is_some_and(|(key, _)| is_key(key)) {
                assert!(pair[0].starts_with("# "), "{} has no comment", pair[1]);
            }
        }
    }
}
