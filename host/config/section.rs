//! What each section holds: the keys, their ranges, and the rules between them. A section is a
//! function that reads its keys into its struct; the defaults are in `default.toml`.

use super::{
    Advertise, Broker, Component, ComponentOverrides, Config, Discovery, Etcd, KeyValue,
    KeyValueBackend, KeyValueLimits, Limits, Node, Plugin, Plugins, Queue, Redis, RedisQueue,
    Sandbox, SandboxOverrides, Secret, SecretUrl, Sqlite, TaskTypeOverrides, access,
    reader::{Reader, Section},
};
use hostel_task::{Name, SubmissionLimits};
use std::{net::SocketAddr, ops::RangeInclusive, path::Path};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
const TIB: usize = 1 << 40;
const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;

/// What a gRPC message needs beside the payload or result that it carries: ids, metadata, framing.
pub const MESSAGE_ROOM: usize = 64 * KIB;

/// Less than `MESSAGE_ROOM`, so that the largest metadata fits beside the largest payload.
const METADATA_BYTES: RangeInclusive<usize> = 0..=48 * KIB;

/// Reads everything. `data_dir` serves when no source gives one.
pub(super) fn config(root: &mut Section<'_>, data_dir: &Path) -> Config {
    let node = root.section("node", |s| node(s, data_dir));
    let limits = root.section("limits", limits);
    let plugins = root.section("plugins", plugins);
    let [mut keep_ended, mut lease_ttl] = [std::time::Duration::ZERO; 2];
    let mut max_unwritten_bytes = 0;
    let queue = root.section("queue", |s| {
        let kind = s.kind(&["sqlite", "redis"]);
        keep_ended = s.ms("keep_ended_ms", SECOND..=3650 * DAY);
        lease_ttl = s.ms("lease_ttl_ms", SECOND..=HOUR);
        max_unwritten_bytes = s.number("max_unwritten_bytes", MIB..=TIB);
        let shared = match kind {
            "redis" => redis_queue(s),
            _ => None,
        };
        shared.map_or_else(|| Queue::Sqlite(sqlite(s, &node.data_dir)), Queue::Redis)
    });
    let keyvalue = root.section("keyvalue", |s| {
        s.kind(&["sqlite"]);
        keyvalue(s, &node.data_dir)
    });
    let discovery = root.section("discovery", |s| match s.kind(&["local", "etcd"]) {
        "etcd" => Discovery::Etcd(etcd(s)),
        _ => Discovery::Local,
    });
    let broker = root.section("broker", |s| match s.kind(&["local", "redis"]) {
        "redis" => redis(s).map_or(Broker::Local, Broker::Redis),
        _ => Broker::Local,
    });
    let tls = root.section("tls", access::tls);
    let auth = root.section("auth", access::auth);
    let plugin = root.each("plugin", "plugin name", plugin);
    let config = Config {
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
        plugin,
    };
    rules(&config, root.reader());
    config
}

fn node(s: &mut Section<'_>, data_dir: &Path) -> Node {
    Node {
        id: s.maybe_name("id", "node id"),
        labels: labels(s),
        listen: s.address("listen", SocketAddr::from(([127, 0, 0, 1], 0))),
        advertise: s.maybe_text("advertise", |given| Advertise::parse(&given)),
        insecure: s.boolean("insecure"),
        data_dir: s.maybe_path("data_dir").unwrap_or(data_dir.to_owned()),
        drain: s.ms("drain_ms", 0..=DAY),
    }
}

fn labels(s: &mut Section<'_>) -> Vec<Name> {
    let label = |given: String| Name::parse("label", &given).map_err(|error| error.to_string());
    let mut labels = s.maybe_list("labels", label).unwrap_or_default();
    labels.sort_unstable();
    labels.dedup();
    labels
}

fn limits(s: &mut Section<'_>) -> Limits {
    Limits {
        submission: SubmissionLimits {
            payload_bytes: s.number("max_payload_bytes", 0..=GIB),
            metadata_entries: s.number("max_metadata_entries", 0..=1024),
            metadata_bytes: s.number("max_metadata_bytes", METADATA_BYTES),
        },
        max_message_bytes: s.number("max_message_bytes", MESSAGE_ROOM..=GIB + MIB),
        max_received_bytes: s.number("max_received_bytes", MIB..=TIB),
        max_received_bytes_per_connection: s.number("max_received_bytes_per_connection", MIB..=TIB),
        max_unsent_bytes: s.number("max_unsent_bytes", MIB..=TIB),
        max_unsent_bytes_per_connection: s.number("max_unsent_bytes_per_connection", MIB..=TIB),
        stall_timeout: s.ms("stall_timeout_ms", 100..=HOUR),
        max_connections: s.number("max_connections", 1..=1_000_000),
        max_streams_per_connection: s.number("max_streams_per_connection", 1..=100_000),
        max_requests_per_connection: s.number("max_requests_per_connection", 1..=100_000),
        request_timeout: s.ms("request_timeout_ms", 100..=HOUR),
        max_wait: s.ms("max_wait_ms", 0..=HOUR),
        max_connection_age: s.ms("max_connection_age_ms", SECOND..=30 * DAY),
        idle_timeout: s.ms("idle_timeout_ms", SECOND..=30 * DAY),
        max_services: s.number("max_services", 0..=1_000_000),
        service_ttl: s.ms("service_ttl_ms", SECOND..=DAY),
        subscriber_backlog: s.number("subscriber_backlog", 1..=1_000_000),
    }
}

fn plugins(s: &mut Section<'_>) -> Plugins {
    Plugins {
        dir: s.path("dir"),
        rescan: s.ms("rescan_ms", 50..=HOUR),
        max_file_bytes: s.number("max_file_bytes", KIB as u64..=GIB as u64),
        compile_timeout: s.ms("compile_timeout_ms", 100..=HOUR),
        compiler: s.maybe_path("compiler"),
        max_compile_memory_bytes: s.number("max_compile_memory_bytes", COMPILE_MEMORY_BYTES),
        max_compiles: s.number("max_compiles", 0..=256),
        max_tasks: s.number("max_tasks", 1..=10_000),
        max_components: s.number("max_components", 0..=10_000),
        max_total_memory_bytes: s.number("max_total_memory_bytes", 0..=64 * KIB * GIB),
        max_component_memory_bytes: s.number("max_component_memory_bytes", 0..=64 * KIB * GIB),
        max_timeout: s.ms("max_timeout_ms", TIMEOUT_MS),
        threads: s.number("threads", 0..=1024),
        sandbox: s.section("sandbox", sandbox),
        component: s.section("component", |s| Component {
            mailbox: s.number("mailbox", MAILBOX),
            start_timeout: s.ms("start_timeout_ms", LIFE_MS),
            message_timeout: s.ms("message_timeout_ms", TIMEOUT_MS),
            stop_timeout: s.ms("stop_timeout_ms", LIFE_MS),
        }),
    }
}

const COMPILE_MEMORY_BYTES: RangeInclusive<u64> = 64 * MIB as u64..=1024 * GIB as u64;

// The ranges that a sandbox and its overrides share.
const MEMORY_BYTES: RangeInclusive<usize> = 64 * KIB..=4 * GIB;
const TABLE_ELEMENTS: RangeInclusive<usize> = 0..=10_000_000;
const CPU_MS: RangeInclusive<u64> = 10..=DAY;
const RESULT_BYTES: RangeInclusive<usize> = 0..=GIB;
const LOG_BYTES: RangeInclusive<usize> = 0..=64 * MIB;
const MESSAGES: RangeInclusive<u32> = 0..=1_000_000;
const MAILBOX: RangeInclusive<usize> = 1..=1_000_000;
/// For `start` and `stop`.
const LIFE_MS: RangeInclusive<u64> = 10..=HOUR;
const DESCRIBE_MS: RangeInclusive<u64> = 10..=10 * 60 * SECOND;
const TIMEOUT_MS: RangeInclusive<u64> = 1..=7 * DAY;

fn sandbox(s: &mut Section<'_>) -> Sandbox {
    Sandbox {
        max_memory_bytes: s.number("max_memory_bytes", MEMORY_BYTES),
        max_table_elements: s.number("max_table_elements", TABLE_ELEMENTS),
        max_cpu: s.ms("max_cpu_ms", CPU_MS),
        max_result_bytes: s.number("max_result_bytes", RESULT_BYTES),
        max_log_bytes: s.number("max_log_bytes", LOG_BYTES),
        max_messages: s.number("max_messages", MESSAGES),
        describe_timeout: s.ms("describe_timeout_ms", DESCRIBE_MS),
        timeout: s.ms("timeout_ms", TIMEOUT_MS),
    }
}

/// 0 keeps nothing.
const RESERVE_BYTES: RangeInclusive<u64> = 0..=64 * GIB as u64;
const OPEN_TASKS: RangeInclusive<usize> = 1..=1_000_000_000;

fn sqlite(s: &mut Section<'_>, data_dir: &Path) -> Sqlite {
    Sqlite {
        path: s.maybe_path("path").unwrap_or(data_dir.join("queue.db")),
        max_open_tasks: s.number("max_open_tasks", OPEN_TASKS),
        max_batch: s.number("max_batch", 1..=10_000),
        reserve_bytes: s.number("reserve_bytes", RESERVE_BYTES),
    }
}

fn keyvalue(s: &mut Section<'_>, data_dir: &Path) -> KeyValue {
    KeyValue {
        backend: KeyValueBackend::Sqlite {
            path: s.maybe_path("path").unwrap_or(data_dir.join("kv.db")),
            reserve_bytes: s.number("reserve_bytes", RESERVE_BYTES),
        },
        limits: KeyValueLimits {
            max_plugin_bytes: s.number("max_plugin_bytes", 0..=KIB as u64 * GIB as u64),
            max_value_bytes: s.number("max_value_bytes", 0..=64 * MIB),
            max_key_bytes: s.number("max_key_bytes", 1..=64 * KIB),
            max_store_name_bytes: s.number("max_store_name_bytes", 1..=64 * KIB),
            max_batch_keys: s.number("max_batch_keys", 1..=100_000),
            max_batch_bytes: s.number("max_batch_bytes", 0..=GIB),
        },
    }
}

fn etcd(s: &mut Section<'_>) -> Etcd {
    let endpoints = s.maybe_list("endpoints", |given| {
        let address = given
            .strip_prefix("http://")
            .or(given.strip_prefix("https://"));
        match address.is_some_and(|address| !address.is_empty() && !address.contains('@')) {
            true => Ok(given),
            false => Err(format!(
                "{given:?} is no http://host:port or https://host:port"
            )),
        }
    });
    let prefix = s.maybe_text("prefix", |given| {
        let trimmed = given.trim_end_matches('/');
        match trimmed.is_empty() || trimmed.contains('\0') {
            true => Err("a prefix such as \"/hostel\" expected".into()),
            false => Ok(trimmed.to_owned()),
        }
    });
    let not_empty = |given: String| match given.is_empty() {
        true => Err("is empty".into()),
        false => Ok(given),
    };
    Etcd {
        endpoints: endpoints.unwrap_or_else(|| vec![Etcd::ENDPOINT.into()]),
        prefix: prefix.unwrap_or_else(|| Etcd::PREFIX.into()),
        ttl: s.maybe_ms("ttl_ms", 2 * SECOND..=HOUR).unwrap_or(Etcd::TTL),
        user: s.maybe_text("user", not_empty),
        password: s.maybe_text("password", not_empty).map(Secret::new),
        ca_file: s.maybe_path("ca_file"),
        cert_file: s.maybe_path("cert_file"),
        key_file: s.maybe_path("key_file"),
    }
}

/// `None` after a fault.
fn redis(s: &mut Section<'_>) -> Option<Redis> {
    let url = s.maybe_text("url", |given| {
        let schemes = ["redis://", "rediss://"];
        match schemes.iter().any(|scheme| given.starts_with(scheme)) {
            true => Ok(SecretUrl::new(given)),
            // Not shown: it may hold a password.
            false => Err("redis://… or rediss://… expected".into()),
        }
    });
    let prefix = s.maybe_name("prefix", "prefix");
    let cluster = s.maybe_boolean("cluster").unwrap_or(false);
    let url = url.unwrap_or_else(|| SecretUrl::new(Redis::URL));
    Some(Redis {
        url,
        cluster,
        prefix: prefix.or_else(|| Name::parse("prefix", Redis::PREFIX).ok())?,
        ca_file: s.maybe_path("ca_file"),
        cert_file: s.maybe_path("cert_file"),
        key_file: s.maybe_path("key_file"),
    })
}

/// `None` after a fault.
fn redis_queue(s: &mut Section<'_>) -> Option<RedisQueue> {
    let shards = s.maybe_number("shards", 1..=256);
    let max_open_tasks = s.number("max_open_tasks", OPEN_TASKS);
    let replicas = s.maybe_number("replicas", 0..=100);
    let reserve_percent = s.maybe_number("reserve_percent", 0..=90);
    Some(RedisQueue {
        server: redis(s)?,
        shards: shards.unwrap_or(RedisQueue::SHARDS),
        max_open_tasks,
        replicas: replicas.unwrap_or(RedisQueue::REPLICAS),
        reserve_percent: reserve_percent.unwrap_or(RedisQueue::RESERVE_PERCENT),
    })
}

fn plugin(s: &mut Section<'_>) -> Plugin {
    Plugin {
        limits: s.section("limits", |s| SandboxOverrides {
            max_memory_bytes: s.maybe_number("max_memory_bytes", MEMORY_BYTES),
            max_table_elements: s.maybe_number("max_table_elements", TABLE_ELEMENTS),
            max_cpu: s.maybe_ms("max_cpu_ms", CPU_MS),
            max_result_bytes: s.maybe_number("max_result_bytes", RESULT_BYTES),
            max_log_bytes: s.maybe_number("max_log_bytes", LOG_BYTES),
            max_messages: s.maybe_number("max_messages", MESSAGES),
            describe_timeout: s.maybe_ms("describe_timeout_ms", DESCRIBE_MS),
        }),
        component: s.section("component", |s| ComponentOverrides {
            mailbox: s.maybe_number("mailbox", MAILBOX),
            start_timeout: s.maybe_ms("start_timeout_ms", LIFE_MS),
            message_timeout: s.maybe_ms("message_timeout_ms", TIMEOUT_MS),
            stop_timeout: s.maybe_ms("stop_timeout_ms", LIFE_MS),
        }),
        config: s.texts("config"),
        task: s.each("task", "task type", |s| TaskTypeOverrides {
            timeout: s.maybe_ms("timeout_ms", TIMEOUT_MS),
            max_attempts: s.maybe_number("max_attempts", 1..=1000),
            backoff_initial: s.maybe_ms("backoff_initial_ms", 0..=7 * DAY),
            backoff_max: s.maybe_ms("backoff_max_ms", 0..=7 * DAY),
            max_concurrency: s.maybe_number("max_concurrency", 1..=10_000),
            max_cluster_concurrency: s.maybe_number("max_cluster_concurrency", 1..=1_000_000),
        }),
    }
}

/// Two settings of which both are given, or none.
fn together(kind: &str, [one, other]: [&str; 2], given: [bool; 2], reader: &mut Reader) {
    reader.rule(&[kind], given[0] == given[1], || {
        format!("{one} and {other} go together; only one of them is given")
    });
}

fn redis_rules(section: &str, redis: &Redis, reader: &mut Reader) {
    let kind = format!("{section}.kind");
    let pair = [redis.cert_file.is_some(), redis.key_file.is_some()];
    together(&kind, ["cert_file", "key_file"], pair, reader);
    let several = redis.url.reveal().contains(',');
    reader.rule(&[&kind], redis.cluster || !several, || {
        "several addresses are for a Redis Cluster (cluster = true)".into()
    });
}

/// The rules between settings.
fn rules(config: &Config, reader: &mut Reader) {
    let protection = access::Protection {
        tls: config.tls.is_some(),
        auth: config.auth.is_some(),
        insecure: config.node.insecure,
    };
    if let Err(problem) = protection.allows(config.node.listen) {
        reader.rule(&["node.listen", "node.insecure"], false, || problem);
    }

    let message = config.limits.max_message_bytes;
    let fits = |bytes: usize| bytes.saturating_add(MESSAGE_ROOM) <= message;
    let mut carried = vec![
        (
            "limits.max_payload_bytes".to_owned(),
            config.limits.submission.payload_bytes,
        ),
        (
            "plugins.sandbox.max_result_bytes".to_owned(),
            config.plugins.sandbox.max_result_bytes,
        ),
    ];
    for (name, plugin) in &config.plugin {
        let path = format!("plugin.{name}.limits.max_result_bytes");
        carried.extend(plugin.limits.max_result_bytes.map(|bytes| (path, bytes)));
    }
    for (path, bytes) in carried {
        let paths = [path.as_str(), "limits.max_message_bytes"];
        reader.rule(&paths, fits(bytes), || {
            format!(
                "{path} = {bytes} does not fit into a message; at most limits.max_message_bytes \
                 ({message}) less {MESSAGE_ROOM}, which is {}, is allowed",
                message.saturating_sub(MESSAGE_ROOM)
            )
        });
    }

    let plugins = &config.plugins;
    let (total, components) = (
        plugins.max_total_memory_bytes,
        plugins.max_component_memory_bytes,
    );
    reader.rule(
        &[
            "plugins.max_component_memory_bytes",
            "plugins.max_total_memory_bytes",
        ],
        total == 0 || components < total,
        || format!("{components} leaves nothing of max_total_memory_bytes ({total}) to tasks"),
    );

    if let Queue::Redis(queue) = &config.queue {
        redis_rules("queue", &queue.server, reader);
    }
    if let Broker::Redis(server) = &config.broker {
        redis_rules("broker", server, reader);
    }
    if let Discovery::Etcd(etcd) = &config.discovery {
        let user = [etcd.user.is_some(), etcd.password.is_some()];
        together("discovery.kind", ["user", "password"], user, reader);
        let pair = [etcd.cert_file.is_some(), etcd.key_file.is_some()];
        together("discovery.kind", ["cert_file", "key_file"], pair, reader);
    }

    let (value, batch) = (
        config.keyvalue.limits.max_value_bytes,
        config.keyvalue.limits.max_batch_bytes,
    );
    reader.rule(
        &["keyvalue.max_value_bytes", "keyvalue.max_batch_bytes"],
        value <= batch,
        || format!("a value of {value} bytes could never be read: max_batch_bytes is {batch}"),
    );
    let KeyValueBackend::Sqlite { path, .. } = &config.keyvalue.backend;
    if let Queue::Sqlite(queue) = &config.queue {
        reader.rule(
            &["keyvalue.path", "queue.path"],
            *path != queue.path,
            || "is the queue's file; the key-value store needs one of its own".into(),
        );
    }

    for (name, plugin) in &config.plugin {
        for (task_type, overrides) in &plugin.task {
            let (Some(initial), Some(max)) = (overrides.backoff_initial, overrides.backoff_max)
            else {
                continue;
            };
            let path = |key: &str| format!("plugin.{name}.task.{task_type}.{key}");
            reader.rule(
                &[&path("backoff_initial_ms"), &path("backoff_max_ms")],
                initial <= max,
                || {
                    let (initial, max) = (initial.as_millis(), max.as_millis());
                    format!("{initial} is more than backoff_max_ms, which is {max}")
                },
            );
        }
    }
}
