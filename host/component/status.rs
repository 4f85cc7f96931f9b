//! The status of a component as operators see it.

use crate::task::Name;
use std::{fmt, time::SystemTime};

/// The status of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The id under which it is addressed.
    pub id: Name,
    /// What it does now.
    pub state: State,
    /// Version of the plugin whose code runs or is about to run.
    pub version: String,
    /// The hash of the plugin's file, in lower-case hexadecimal.
    pub sha256: String,
    /// Topics that it listens to besides its id.
    pub topics: Vec<Name>,
    /// When it got into this state.
    pub since: SystemTime,
    /// The latest failure, as long as it matters.
    pub error: Option<String>,
    /// Messages that it has handled, including those that it answered with an error of its own.
    pub handled: u64,
    /// Messages during which it trapped, timed out or ran into a limit.
    pub failed: u64,
    /// Messages that were refused because its mailbox was full.
    pub refused: u64,
    /// Messages in its mailbox.
    pub waiting: usize,
    /// How often an instance was started.
    pub starts: u64,
}

impl Status {
    /// Whether it can be expected to take messages.
    pub fn is_healthy(&self) -> bool {
        self.state != State::Down
    }
}

/// The state of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its instance is being made.
    Starting,
    /// It takes messages.
    Running,
    /// It failed and is about to be restarted. Messages wait in its mailbox.
    Restarting,
    /// It failed several times in a row. Messages are refused; a restart is still tried from time to
    /// time.
    Down,
    /// It ends with the node.
    Stopping,
}

impl State {
    /// Returns the name of the state as clients see it.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Running => "running",
            State::Restarting => "restarting",
            State::Down => "down",
            State::Stopping => "stopping",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
