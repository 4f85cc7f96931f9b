//! The priority of a task, as the protocol has it and as the engines do.

use super::distributed::Priority as Wire;
use crate::task::Priority;

impl From<Priority> for Wire {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::High => Self::High,
            Priority::Normal => Self::Normal,
            Priority::Low => Self::Low,
        }
    }
}

impl From<Wire> for Priority {
    fn from(priority: Wire) -> Self {
        match priority {
            Wire::High => Self::High,
            Wire::Normal => Self::Normal,
            Wire::Low => Self::Low,
        }
    }
}
