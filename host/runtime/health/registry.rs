//! The background tasks and threads that run in a node.

use super::part::Part;
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicU64},
};
use tokio::sync::{Notify, watch};

/// The background tasks and threads, and why the node has failed, if it has.
#[derive(Debug, Default)]
pub struct Registry {
    pub failed: watch::Sender<Option<String>>,
    pub next: AtomicU64,
    pub running: Mutex<BTreeMap<u64, Running>>,
}

#[derive(Debug)]
pub struct Running {
    pub part: Part,
    pub name: &'static str,
    /// Whether it has ended unexpectedly and is not healthy again.
    pub is_down: bool,
    /// Makes it panic, for tests.
    pub panic: Arc<Notify>,
}
