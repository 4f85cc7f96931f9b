//! The map of the house. Each floor uses only its own folder and the floors below it; `tests` read
//! the imports and fail when a floor is broken.
//!
//! | floor | modules | what lives there |
//! |---|---|---|
//! | 5 | [`cli`] | the commands |
//! | 4 | [`node`] | the composition root |
//! | 3 | [`api`], [`worker`], [`client`] | gRPC in, tasks run, gRPC out |
//! | 2 | [`scheduler`], [`component`] | admission and answers; what a node is made of |
//! | 1 | [`queue`], [`discovery`], [`broker`], [`plugin`] | engines behind traits, and the guests |
//! | 1 | [`keyvalue`], `redis` | another engine, just below the guests that it is lent to; how a Redis is reached |
//! | 0 | [`task`], [`lifecycle`], [`config`], `sqlite`, `pem` | pure values and decisions, the `Component` trait, settings, what every database file and both ends of TLS need |
//! | 0 | [`budget`], [`health`], `log_limit`, [`untrusted`] | bounds in bytes, what is wrong with a node by part, bounds on repeated log lines, text that others wrote |
//! | 0 | `backoff` | delays between attempts at something that keeps failing |
//! | 0 | `parent` | processes that end with the one that started them |
//!
//! The way of a task: `api` turns a request into a [`task::Submission`]; `scheduler` admits it and
//! `queue` makes it durable; `worker` leases it and runs it in a `plugin` generation;
//! [`task::transition`] decides what follows, `queue` writes that down, and whoever waits is woken.

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
pub use hostel_runtime::{budget, health, lifecycle, untrusted};
use hostel_runtime::{log_limit, parent, pem};
pub use hostel_task as task;

pub use client::{ClientOptions, DistributedClient};
pub use config::Config;
pub use node::DistributedNode;
