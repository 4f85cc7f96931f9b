//! Why a call about a schedule failed.

use crate::{
    queue,
    schedule::Origin,
    scheduler,
    task::{InvalidName, Name, Violations},
};

/// Why a call about a schedule failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The schedule has faults.
    #[error(transparent)]
    Invalid(#[from] Violations),
    /// No schedule has this name.
    #[error("there is no schedule {0}")]
    Unknown(Name),
    /// Another schedule has this name.
    #[error("there is another schedule {0}; choose another name, or replace it")]
    Exists(Name),
    /// The configuration has a schedule of this name.
    #[error(
        "the schedule {name} is in the configuration of {nodes}: change it there",
        name = .0,
        nodes = nodes(.1)
    )]
    Declared(Name, Origin),
    /// The run has no valid name.
    #[error(transparent)]
    InvalidRun(InvalidName),
    /// There are as many schedules as there may be.
    #[error(
        "there are {} schedules, and no more are taken; delete some",
        queue::MAX_SCHEDULES
    )]
    Full,
    /// Others changed the schedule each time.
    #[error("the schedule is being changed by others; try again")]
    Contended,
    /// The task of a run was refused.
    #[error(transparent)]
    Run(#[from] scheduler::Error),
    /// The queue failed.
    #[error(transparent)]
    Queue(#[from] queue::Error),
}

fn nodes(origin: &Origin) -> String {
    match origin {
        Origin::Config(nodes) => Name::list(&nodes.iter().cloned().collect::<Vec<_>>()),
        Origin::Api => String::new(),
    }
}
