//! What can be seen of a component from outside. A value; who changes it is the component's life.

use crate::task::Name;
use std::{fmt, time::SystemTime};

/// A component as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub id: Name,
    pub state: State,
    /// Of the plugin whose code runs, or is about to.
    pub version: String,
    pub sha256: String,
    /// What it listens to besides its id.
    pub topics: Vec<Name>,
    /// Since when it is in this state.
    pub since: SystemTime,
    /// What went wrong last, while it still matters.
    pub error: Option<String>,
    /// Messages that it answered or took without an answer, errors of its own included.
    pub handled: u64,
    /// Messages during which it trapped, timed out or ran into a limit.
    pub failed: u64,
    /// Messages that found its mailbox full.
    pub refused: u64,
    /// Messages that wait.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Starting,
    Running,
    /// It failed, and is started again in a moment. Its messages wait.
    Restarting,
    /// It failed again and again. Messages are refused; it is still tried from time to time.
    Down,
    Stopping,
}

impl State {
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
