//! For this folder's tests: a configuration, and guests in text form.

use crate::{
    config::{self, Config},
    task::{Name, SubmissionLimits},
};
use std::{path::Path, time::Duration};

pub fn config(dir: &Path) -> Config {
    Config {
        node: config::Node {
            id: None,
            listen: ([127, 0, 0, 1], 0).into(),
            insecure: false,
            data_dir: dir.join("data"),
            drain: Duration::from_secs(1),
        },
        limits: config::Limits {
            submission: SubmissionLimits {
                payload_bytes: 4 << 20,
                metadata_entries: 64,
                metadata_bytes: 16 << 10,
            },
            max_message_bytes: 4 << 20,
            max_connections: 1,
            max_streams_per_connection: 1,
            max_requests_per_connection: 1,
            request_timeout: Duration::from_secs(1),
            max_wait: Duration::from_secs(1),
            max_connection_age: Duration::from_secs(1),
            max_services: 1,
            service_ttl: Duration::from_secs(1),
            subscriber_backlog: 1,
        },
        plugins: config::Plugins {
            dir: dir.join("plugins"),
            rescan: Duration::from_millis(200),
            max_file_bytes: 64 << 20,
            compile_timeout: Duration::from_secs(60),
            max_compiles: 2,
            max_tasks: 32,
            threads: 2,
            sandbox: config::Sandbox {
                max_memory_bytes: 64 << 20,
                max_table_elements: 100_000,
                max_cpu: Duration::from_secs(10),
                max_result_bytes: (4 << 20) - (64 << 10),
                max_log_bytes: 64 << 10,
                describe_timeout: Duration::from_secs(5),
                timeout: Duration::from_secs(60),
            },
        },
        queue: config::Queue::Sqlite(config::Sqlite {
            path: dir.join("queue"),
            max_open_tasks: 1,
            max_batch: 1,
        }),
        keep_ended: Duration::from_secs(1),
        discovery: config::Discovery::Local,
        broker: config::Broker::Local,
        plugin: [].into(),
    }
}

pub fn name(name: &str) -> Name {
    Name::parse("name", name).unwrap()
}
