//! The typed configuration of a node. `schema` declares each setting once; `default.toml` is the
//! reference that is generated from it. Nothing here opens or starts anything except for reading the file.
//!
//! The path of a setting: `tree` parses the file and `env` merges the variables, each value with the
//! place where it was given. `reader` takes the settings that `schema` declares out of the tree, and
//! `rules` checks them against each other. Errors are collected as [`Diagnostics`]. `document` prints a
//! configuration and `diff` compares two for a reload.

mod advertise;
mod diagnostic;
mod diff;
mod document;
mod env;
mod group;
mod load;
mod parse;
mod protection;
mod reader;
mod rules;
mod schema;
mod secret;
mod setting;
mod token_hash;
mod tree;

pub use advertise::Advertise;
pub use diagnostic::{Diagnostic, Diagnostics, Origin};
pub use diff::{Changes, changes};
#[cfg(fuzzing)]
pub use document::fuzz;
pub use document::{Secrets, reference, show};
pub use load::{env_vars, exists, find_file};
pub use protection::Protection;
pub use schema::{
    Auth, Broker, Component, ComponentOverrides, Config, Discovery, Etcd, KeyValue,
    KeyValueBackend, KeyValueLimits, Limits, MESSAGE_OVERHEAD, Node, Plugin, Plugins, Queue,
    QueueBackend, Redis, RedisQueue, Sandbox, SandboxOverrides, Schedule, Sqlite, SqliteKeyValue,
    TaskGroupLimits, TaskTypeOverrides, Tls,
};
pub use secret::{Secret, SecretUrl};
pub use token_hash::{InvalidHash, TokenHash};

#[cfg(test)]
mod tests;
