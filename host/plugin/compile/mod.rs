//! Compiling in a process of its own: what the node and that process tell each other. `process` is
//! the node's side, `command` the other, and only `command` ever parses what a plugin file holds.

mod command;
mod confine;
mod process;
mod spawner;
mod verdict;

pub use command::run;
pub(super) use process::{Job, Launcher};

use serde::{Deserialize, Serialize};

/// The hidden command of `hostel` that compiles one plugin: the file on stdin, the artifact on
/// stdout, and on stderr why there is none.
pub const COMMAND: &str = "compile-plugin";

/// What a compile process is told, as the one argument of its command.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Request {
    /// The process that started it and that it must not outlive.
    parent: u32,
    /// Of the file, in hex: it may have changed since the node read it.
    sha256: String,
    /// `engine::key` of the node, which the artifact is for.
    engine: u64,
    /// How much it may allocate.
    max_memory_bytes: u64,
    /// Processor time of all its threads together.
    max_cpu_seconds: u64,
    threads: usize,
}

/// Why a compile process that ended by itself made no artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Refusal {
    /// The compiler found a fault in the file.
    Invalid(String),
    /// The file is no longer what the node has read.
    Changed,
    /// The process is another version of Hostel than the node.
    OtherVersion,
    /// The process could not set itself up; nothing is wrong with the file.
    Unable(String),
}
