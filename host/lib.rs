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
//! | 0 | `backoff` | delays between retries |
//! | 0 | `parent` | processes that end with their parent |
//!
//! The path of a task: `api` converts a request to a [`task::Submission`], `scheduler` admits it, and `queue`
//! stores it. `worker` leases it and calls its handler in a `plugin`. [`task::transition`] decides the
//! outcome, `queue` writes it, and waiting calls are woken.

pub mod api;
pub mod cli;
pub mod client;
pub mod component;
pub mod node;
pub mod proto;
pub mod scheduler;
pub mod worker;

pub use hostel_broker as broker;
pub use hostel_config as config;
pub use hostel_discovery as discovery;
#[cfg(test)]
use hostel_fuzz as fuzz;
pub use hostel_keyvalue as keyvalue;
pub use hostel_plugin as plugin;
pub use hostel_queue as queue;
use hostel_runtime::{atomic_file, log_limit, parent, pem, secret};
pub use hostel_runtime::{budget, health, lifecycle, untrusted};
pub use hostel_task as task;

pub use client::{ClientOptions, DistributedClient};
pub use config::Config;
pub use node::DistributedNode;
