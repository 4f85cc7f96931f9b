//! When a schedule fires, as it is given and stored.

use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// When a schedule fires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// At the times of a cron pattern.
    Cron {
        /// Five or six fields, or a nickname.
        pattern: String,
        /// The IANA name of a time zone.
        zone: String,
    },
    /// At the multiples of an interval since the Unix epoch.
    Every(Duration),
}

impl fmt::Display for When {
    /// Writes it for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cron { pattern, zone } => write!(f, "{pattern} ({zone})"),
            Self::Every(interval) => write!(f, "every {interval:?}"),
        }
    }
}
