//! What a node and its compile process exchange: a request as the argument of a command, the file on
//! stdin, the artifact on stdout, and on stderr the reason if there is none.

use serde::{Deserialize, Serialize};

/// The hidden command of `hostel` that compiles one plugin.
pub const COMMAND: &str = "compile-plugin";

/// The one argument of the command, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CompileRequest {
    /// The process that started this one; the compile process ends with it.
    pub parent: u32,
    /// Hash of the file, in hex: the file may have changed since the node read it.
    pub sha256: String,
    /// Key of the node's engine (`engine_config::key`), for which the artifact is made.
    pub engine: u64,
    /// How much the process may allocate.
    pub max_memory_bytes: u64,
    /// Processor time of all its threads together.
    pub max_cpu_seconds: u64,
    pub threads: usize,
}

/// Why a compile process that exited by itself made no artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompileError {
    /// The compiler found an error in the file.
    Invalid(String),
    /// The file is no longer what the node has read.
    Changed,
    /// The process is another version of Hostel than the node.
    OtherVersion,
    /// The process could not set itself up; nothing is wrong with the file.
    Unable(String),
}
