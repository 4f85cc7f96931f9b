//! What a guest reaches beyond its sandbox, lent by the node that wires it. Each part is a trait
//! that the node implements, so that nothing here knows queues, brokers or databases.

use crate::{keyvalue::KeyValue, task::Name};
use std::sync::Arc;

/// What the node lends to its plugins. What is `None` is denied to them.
#[derive(Clone, Default)]
pub struct Outside {
    pub keyvalue: Option<Arc<dyn KeyValue>>,
}

/// What one plugin reaches, under its name.
pub struct Granted {
    pub plugin: Name,
    pub outside: Outside,
}
