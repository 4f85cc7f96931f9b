//! From the plugins directory to generations: `loader` follows the directory that `scan` lists and
//! `watcher` watches, has `job`s make generations with `builder`, and `registry` decides which of
//! them serve.

pub mod builder;
pub mod contract;
mod describe;
mod job;
pub mod loader;
pub mod manifest;
mod registry;
mod scan;
mod watcher;
