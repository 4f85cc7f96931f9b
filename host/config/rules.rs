//! The rules between settings.

use super::{
    protection::Protection,
    reader::Reader,
    schema::{Broker, Config, Discovery, KeyValueBackend, MESSAGE_OVERHEAD, QueueBackend, Redis},
};
use hostel_task::{Violation, Violations};

/// Reports each rule that `config` breaks.
pub(super) fn check(config: &Config, reader: &mut Reader) {
    let protection = Protection {
        tls: config.tls.is_some(),
        auth: config.auth.is_some(),
        insecure: config.node.insecure,
    };
    if let Err(problem) = protection.allows(config.node.listen) {
        reader.rule(&["node.listen", "node.insecure"], false, || problem);
    }
    reader.needs("tls", "cert_file", &["key_file"]);
    reader.needs("tls", "key_file", &["cert_file"]);
    reader.needs("tls", "client_ca_file", &["cert_file", "key_file"]);

    check_message_sizes(config, reader);
    check_memory(config, reader);
    check_keyvalue(config, reader);
    check_backoffs(config, reader);
    check_schedules(config, reader);

    if let QueueBackend::Redis(queue) = &config.queue.backend {
        check_redis("queue", &queue.server, reader);
    }
    if let Broker::Redis(server) = &config.broker {
        check_redis("broker", server, reader);
    }
    if let Discovery::Etcd(_) = &config.discovery {
        reader.needs("discovery", "user", &["password"]);
        reader.needs("discovery", "password", &["user"]);
        check_certificate("discovery", reader);
    }
}

fn check_certificate(section: &str, reader: &mut Reader) {
    reader.needs(section, "cert_file", &["key_file"]);
    reader.needs(section, "key_file", &["cert_file"]);
}

fn check_redis(section: &str, redis: &Redis, reader: &mut Reader) {
    check_certificate(section, reader);
    let several = redis.url.reveal().contains(',');
    let [url, cluster] = ["url", "cluster"].map(|key| format!("{section}.{key}"));
    reader.rule(&[&url, &cluster], redis.cluster || !several, || {
        "several addresses need cluster = true".into()
    });
}

/// Payloads and results have to fit into a message.
fn check_message_sizes(config: &Config, reader: &mut Reader) {
    let message = config.limits.max_message_bytes;
    let mut carried = vec![
        (
            "limits.max_payload_bytes".to_owned(),
            config.limits.max_payload_bytes,
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
        let fits = bytes.saturating_add(MESSAGE_OVERHEAD) <= message;
        reader.rule(&paths, fits, || {
            format!(
                "{path} = {bytes} does not fit into a message; at most {} is allowed, which is \
                 limits.max_message_bytes ({message}) less {MESSAGE_OVERHEAD}",
                message.saturating_sub(MESSAGE_OVERHEAD)
            )
        });
    }
}

fn check_memory(config: &Config, reader: &mut Reader) {
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
        || format!("{components} leaves no memory to tasks; max_total_memory_bytes is {total}"),
    );
}

fn check_keyvalue(config: &Config, reader: &mut Reader) {
    let (value, batch) = (
        config.keyvalue.limits.max_value_bytes,
        config.keyvalue.limits.max_batch_bytes,
    );
    reader.rule(
        &["keyvalue.max_value_bytes", "keyvalue.max_batch_bytes"],
        value <= batch,
        || format!("a value of {value} bytes could never be read: max_batch_bytes is {batch}"),
    );
    let KeyValueBackend::Sqlite(keyvalue) = &config.keyvalue.backend;
    if let QueueBackend::Sqlite(queue) = &config.queue.backend {
        reader.rule(
            &["keyvalue.path", "queue.path"],
            keyvalue.path != queue.path,
            || "is the queue's file; the key-value store needs a file of its own".into(),
        );
    }
}

fn check_backoffs(config: &Config, reader: &mut Reader) {
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

/// Reports each fault of each schedule, at the setting that has it.
fn check_schedules(config: &Config, reader: &mut Reader) {
    let limits = config.limits.submission();
    for (name, schedule) in &config.schedule {
        let Err(Violations(faults)) = schedule.spec(name, &limits) else {
            continue;
        };
        for Violation { field, reason } in faults {
            let path = |key: &str| format!("schedule.{name}.{key}");
            let instead = if field == "cron" { "every_ms" } else { field };
            // Every schedule has a task type: it is blamed for what is missing, and for the name.
            let paths = [path(field), path(instead), path("task_type")];
            reader.fault(&paths.each_ref().map(String::as_str), || {
                if field == "name" {
                    format!("the name of the schedule: {reason}")
                } else {
                    reason
                }
            });
        }
    }
}
