//! A schedule as it is stored: what it is, where it came from, and what has become of it.

use super::{record::Record, spec::ScheduleSpec};
use hostel_task::Name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The most nodes that are recorded for a schedule of the configuration.
pub const MAX_DECLARING_NODES: usize = 1024;

/// A schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// What it is.
    pub spec: ScheduleSpec,
    /// Where it came from.
    pub origin: Origin,
    /// What has become of it.
    pub record: Record,
}

/// Where a schedule came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A client created it.
    Api,
    /// The configuration of these nodes has it. It exists for as long as one of them does.
    Config(BTreeSet<Name>),
}

impl Origin {
    /// Returns its name.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Config(_) => "config",
        }
    }
}
