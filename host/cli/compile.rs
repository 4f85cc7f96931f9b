//! `hostel compile-plugin`: the process in which a node compiles a single plugin. A hidden command.

use crate::{config::Config, plugin};
use clap::Args;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Compile the plugin on stdin for the node that started this process
#[derive(Debug, Args)]
pub struct CompilePlugin {
    request: String,
}

impl CompilePlugin {
    /// Compiles the plugin. The process must not have other threads yet.
    pub fn run(&self) -> ExitCode {
        plugin::compile(&self.request)
    }
}

/// Returns `config` with the running program as its compiler, unless it names another.
pub fn with_default_compiler(mut config: Config) -> Config {
    let compiler = &mut config.plugins.compiler;
    *compiler = compiler.take().or_else(current_program);
    config
}

/// Returns the path of the running program. The kernel's name for it stays valid when an upgrade
/// replaces the file.
fn current_program() -> Option<PathBuf> {
    let by_kernel = Path::new("/proc/self/exe");
    if by_kernel.exists() {
        return Some(by_kernel.to_owned());
    }
    std::env::current_exe().ok()
}
