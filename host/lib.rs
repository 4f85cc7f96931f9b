//! A node that hosts WebAssembly plugins and runs their tasks. This page maps the modules. Each layer uses
//! only its own folder and the layers below it; the tests read the imports and check this.
//!
//! | layer | modules | purpose |
//! |---|---|---|
//! | 5 | [`cli`] | the commands |
//! | 4 | [`node`] | the composition root |
//! | 3 | [`api`], [`worker`], [`client`] | serves gRPC; runs tasks; calls a node over gRPC |
//! | 2 | [`scheduler`], [`component`] | admits tasks and reads them; components and the parts of a node |
//! | 1 | [`queue`], [`discovery`], [`broker`], [`plugin`] | engines behind traits, and the guests |
//! | 1 | [`keyvalue`], `redis` | the store that guests use; connections to Redis |
//! | 0 | [`task`], [`lifecycle`], [`config`], `sqlite`, `pem` | values and decisions, the `Component` trait, settings, database files, TLS |
//! | 0 | [`budget`], [`health`], `log_limit`, `secret`, [`untrusted`] | bounds in bytes, faults and background tasks, bounds on log lines, text that is never printed, text from outside |
//! | 0 | [`schedule`] | when schedules fire |
//! | 0 | `backoff` | delays between retries |
//! | 0 | `parent` | processes that end with their parent |
//!
//! The path of a task: `api` converts a request to a [`task::Submission`], `scheduler` admits it, and `queue`
//! stores it. `worker` leases it and calls its handler in a `plugin`. [`task::transition`] decides the
//! outcome, `queue` writes it, and waiting calls are woken.

#[cfg(feature = "node")]
pub mod api;
#[cfg(feature = "node")]
pub mod cli;
pub mod client;
#[cfg(feature = "node")]
pub mod component;
#[cfg(feature = "node")]
pub mod node;
pub mod proto;
#[cfg(feature = "node")]
pub mod scheduler;
#[cfg(feature = "node")]
pub mod worker;

#[cfg(feature = "node")]
pub use hostel_broker as broker;
#[cfg(feature = "node")]
pub use hostel_config as config;
#[cfg(feature = "node")]
pub use hostel_discovery as discovery;
#[cfg(feature = "node")]
pub use hostel_keyvalue as keyvalue;
#[cfg(feature = "node")]
pub use hostel_plugin as plugin;
#[cfg(feature = "node")]
pub use hostel_queue as queue;
#[cfg(feature = "node")]
use hostel_runtime::{atomic_file, file_fingerprint, log_limit, parent};
#[cfg(feature = "node")]
pub use hostel_runtime::{budget, health, lifecycle, untrusted};
use hostel_runtime::{pem, secret};
#[cfg(feature = "node")]
pub use hostel_schedule as schedule;
#[cfg(feature = "node")]
pub use hostel_task as task;

pub use client::{ClientOptions, DistributedClient};
#[cfg(feature = "node")]
pub use config::Config;
#[cfg(feature = "node")]
pub use node::DistributedNode;
