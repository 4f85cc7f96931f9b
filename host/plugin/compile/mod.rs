//! From a plugin file to machine code: `compiler` is the entry, `cache` keeps what was made, and
//! `process` starts a process for each compilation. Only the code of `command`, which runs in that
//! process, ever parses what a plugin file holds.

pub mod cache;
pub mod command;
pub mod compiler;
mod confine;
mod cpu_time;
pub mod hints;
mod limits;
mod outcome;
mod process;
pub mod protocol;
mod spawner;
pub mod wasm_file;
