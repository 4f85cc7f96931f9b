//! The node's settings, typed. `default.toml` is the commented reference and the source of every
//! default; `load` reads files and the environment. Nothing here opens or starts anything.

mod access;
mod advertise;
mod difference;
mod fault;
mod load;
mod reader;
mod section;
mod server;
mod show;
mod tree;
mod variable;

pub use access::{Auth, InvalidHash, Protection, Tls, TokenHash};
pub use advertise::Advertise;
pub use difference::differences;
pub use fault::{Fault, Faults, Origin};
pub use load::{REFERENCE, environment, locate};
pub use section::MESSAGE_ROOM;
pub use server::{Etcd, Redis, Secret, SecretUrl};
pub use show::{Secrets, show};

use hostel_task::{Name, SubmissionLimits};
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

/// Everything that a node can be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub node: Node,
    pub limits: Limits,
    pub plugins: Plugins,
    pub queue: Queue,
    /// `[queue] keep_ended_ms`, whatever its kind: how long ended tasks can still be asked for.
    pub keep_ended: Duration,
    /// `[queue] lease_ttl_ms`, whatever its kind: after how long without a sign of life a node's
    /// tasks go to another.
    pub lease_ttl: Duration,
    /// `[queue] max_unwritten_bytes`, whatever its kind: results of this node that the queue has not
    /// confirmed.
    pub max_unwritten_bytes: usize,
    pub keyvalue: KeyValue,
    pub discovery: Discovery,
    pub broker: Broker,
    /// `[tls]`, where it names a certificate.
    pub tls: Option<Tls>,
    /// `[auth]`, where it names a token or a file of them.
    pub auth: Option<Auth>,
    /// `[plugin.NAME]`: what one plugin is given beyond the defaults.
    pub plugin: BTreeMap<Name, Plugin>,
}

/// `[node]`
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Made up at start when the file gives none.
    pub id: Option<Name>,
    /// What the operator says of it, in order and each once.
    pub labels: Vec<Name>,
    pub listen: SocketAddr,
    /// Where others reach the node, when that is not where it listens.
    pub advertise: Option<Advertise>,
    /// Allows to listen beyond loopback without TLS and authentication.
    pub insecure: bool,
    /// Where queue, caches and generated ids live. Private to the user.
    pub data_dir: PathBuf,
    /// How long a stopping node waits for running tasks.
    pub drain: Duration,
}

/// `[limits]`: what clients may do.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    pub submission: SubmissionLimits,
    /// What one gRPC message may hold, in bytes.
    pub max_message_bytes: usize,
    /// What clients have sent and the node works on or has not stored: all together, and each
    /// connection.
    pub max_received_bytes: usize,
    pub max_received_bytes_per_connection: usize,
    /// The same of answers that clients have not read.
    pub max_unsent_bytes: usize,
    pub max_unsent_bytes_per_connection: usize,
    /// How long a client may leave its answers unread, or a message incomplete.
    pub stall_timeout: Duration,
    pub max_connections: usize,
    pub max_streams_per_connection: u32,
    pub max_requests_per_connection: usize,
    pub request_timeout: Duration,
    /// The longest that a status call may wait for a task's end.
    pub max_wait: Duration,
    pub max_connection_age: Duration,
    /// How long a connection may have no call open before it is ended.
    pub idle_timeout: Duration,
    /// How many services clients may register.
    pub max_services: usize,
    /// How long a registered service lives unless it says otherwise or registers again.
    pub service_ttl: Duration,
    /// How many messages a subscriber may fall behind before it is cut off.
    pub subscriber_backlog: usize,
}

/// `[plugins]`
#[derive(Debug, Clone, PartialEq)]
pub struct Plugins {
    pub dir: PathBuf,
    /// How often the directory is looked through besides its change events.
    pub rescan: Duration,
    pub max_file_bytes: u64,
    /// The program that compiles plugins, a `hostel` of this version; none are compiled without one.
    pub compiler: Option<PathBuf>,
    pub compile_timeout: Duration,
    /// What the process that compiles one plugin may allocate.
    pub max_compile_memory_bytes: u64,
    /// How many plugins are compiled at the same time; 0 means as many as the machine has
    /// processors and memory for.
    pub max_compiles: usize,
    /// How many tasks this node runs at once.
    pub max_tasks: usize,
    /// How many components this node runs.
    pub max_components: usize,
    /// What the memory limits of all guests may sum up to; 0 means three quarters of the machine's
    /// memory.
    pub max_total_memory_bytes: usize,
    /// What components have of it, so that tasks have the rest; 0 means a quarter, or room for one.
    pub max_component_memory_bytes: usize,
    /// The longest timeout that a plugin may declare for a task type. Operators may give more.
    pub max_timeout: Duration,
    /// Threads that run guests; 0 means one for each processor.
    pub threads: usize,
    /// What a task gets unless its plugin's section says otherwise.
    pub sandbox: Sandbox,
    /// What a component gets unless its plugin's section says otherwise.
    pub component: Component,
}

/// `[plugins.component]`, and with what it overrides, `[plugin.NAME.component]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Component {
    /// How many messages may wait for it.
    pub mailbox: usize,
    pub start_timeout: Duration,
    /// How long it may take for one message.
    pub message_timeout: Duration,
    /// How long it may go on with its messages when it has to stop, and then how long its `stop`
    /// may take.
    pub stop_timeout: Duration,
}

/// `[plugins.sandbox]` and `[plugin.NAME.limits]`: what one call of a guest may use.
#[derive(Debug, Clone, PartialEq)]
pub struct Sandbox {
    /// All linear memories of the call together.
    pub max_memory_bytes: usize,
    pub max_table_elements: usize,
    /// Time on a processor, as against the task type's timeout, which is time on the wall.
    pub max_cpu: Duration,
    pub max_result_bytes: usize,
    /// What a call may write to its log, stdout and stderr together.
    pub max_log_bytes: usize,
    /// How many messages a call may send.
    pub max_messages: u32,
    /// How long `describe` may take at load.
    pub describe_timeout: Duration,
    /// An attempt's wall-clock limit when neither plugin nor operator gives one.
    pub timeout: Duration,
}

/// `[queue]`
#[derive(Debug, Clone, PartialEq)]
pub enum Queue {
    /// In a file of this node.
    Sqlite(Sqlite),
    /// Shared by all nodes that use the same Redis and prefix.
    Redis(RedisQueue),
}

/// `[queue] kind = "sqlite"`
#[derive(Debug, Clone, PartialEq)]
pub struct Sqlite {
    /// The database file.
    pub path: PathBuf,
    /// How many tasks may be pending or running.
    pub max_open_tasks: usize,
    /// The most operations that share one commit.
    pub max_batch: usize,
    /// Space on the disk that is kept for what is not a submission.
    pub reserve_bytes: u64,
}

/// `[queue] kind = "redis"`
#[derive(Debug, Clone, PartialEq)]
pub struct RedisQueue {
    pub server: Redis,
    /// How many parts the tasks are divided into, each on one node of a Redis Cluster. The same on
    /// all nodes, and not to be changed while there are tasks.
    pub shards: u32,
    /// How many tasks may be pending or running, over all nodes.
    pub max_open_tasks: usize,
    /// How many replicas must have a task before it counts as submitted.
    pub replicas: u32,
    /// The share of the server's maxmemory, in percent, that submissions leave free.
    pub reserve_percent: u64,
}

impl RedisQueue {
    // In force where nothing is said; see `Etcd`.
    pub const SHARDS: u32 = 1;
    pub const REPLICAS: u32 = 0;
    pub const RESERVE_PERCENT: u64 = 10;
}

/// `[keyvalue]`: what plugins keep through wasi:keyvalue.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyValue {
    pub backend: KeyValueBackend,
    pub limits: KeyValueLimits,
}

/// `[keyvalue] kind`
#[derive(Debug, Clone, PartialEq)]
pub enum KeyValueBackend {
    Sqlite {
        /// The database file.
        path: PathBuf,
        /// Space on the disk that is kept for deletions.
        reserve_bytes: u64,
    },
}

/// What plugins may keep and ask for, whatever keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyValueLimits {
    /// What one plugin may keep in all its stores.
    pub max_plugin_bytes: u64,
    pub max_value_bytes: usize,
    pub max_key_bytes: usize,
    pub max_store_name_bytes: usize,
    /// How many keys one call may name.
    pub max_batch_keys: usize,
    /// All values that one call reads or writes.
    pub max_batch_bytes: usize,
}

/// `[discovery]`
#[derive(Debug, Clone, PartialEq)]
pub enum Discovery {
    /// This node alone.
    Local,
    /// All nodes that use the same etcd and prefix.
    Etcd(Etcd),
}

/// `[broker]`
#[derive(Debug, Clone, PartialEq)]
pub enum Broker {
    /// Within this node.
    Local,
    /// Between all nodes that use the same Redis and prefix.
    Redis(Redis),
}

/// `[plugin.NAME]`
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plugin {
    /// `[plugin.NAME.limits]`: only what differs from `[plugins.sandbox]`.
    pub limits: SandboxOverrides,
    /// `[plugin.NAME.component]`: only what differs from `[plugins.component]`.
    pub component: ComponentOverrides,
    /// `[plugin.NAME.config]`: what the guest reads through wasi:config.
    pub config: BTreeMap<String, String>,
    /// `[plugin.NAME.task.TYPE]`: overrides what the plugin declares for a type.
    pub task: BTreeMap<Name, TaskTypeOverrides>,
}

/// Each `None` leaves the node's own limit in force.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SandboxOverrides {
    pub max_memory_bytes: Option<usize>,
    pub max_table_elements: Option<usize>,
    pub max_cpu: Option<Duration>,
    pub max_result_bytes: Option<usize>,
    pub max_log_bytes: Option<usize>,
    pub max_messages: Option<u32>,
    pub describe_timeout: Option<Duration>,
}

/// Each `None` leaves what is said for all components in force.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ComponentOverrides {
    pub mailbox: Option<usize>,
    pub start_timeout: Option<Duration>,
    pub message_timeout: Option<Duration>,
    pub stop_timeout: Option<Duration>,
}

impl Config {
    /// What the component of this plugin may have.
    pub fn component(&self, plugin: &Name) -> Component {
        let general = &self.plugins.component;
        let none = ComponentOverrides::default();
        let section = self.plugin.get(plugin);
        let own = section.map_or(&none, |section| &section.component);
        Component {
            mailbox: own.mailbox.unwrap_or(general.mailbox),
            start_timeout: own.start_timeout.unwrap_or(general.start_timeout),
            message_timeout: own.message_timeout.unwrap_or(general.message_timeout),
            stop_timeout: own.stop_timeout.unwrap_or(general.stop_timeout),
        }
    }
}

/// Each `None` leaves the plugin's own declaration in force.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskTypeOverrides {
    pub timeout: Option<Duration>,
    pub max_attempts: Option<u32>,
    pub backoff_initial: Option<Duration>,
    pub backoff_max: Option<Duration>,
    pub max_concurrency: Option<usize>,
    /// How many of it may run on all nodes together.
    pub max_cluster_concurrency: Option<usize>,
}

#[cfg(test)]
mod tests;
