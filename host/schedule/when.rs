//! When a schedule fires, as it is given and stored.

use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};



impl fmt::Display for When {
    /// Writes it for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cron { pattern, zone } => write!(f, "{pattern} ({zone})"),
            Self::Every(interval) => write!(f, "every {interval:?}"),
        }
    }
}
