//! `hostel compile-plugin`: the process in which a node compiles one plugin. A hidden command, since
//! it has to be a program of its own.

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
    /// Only for a process that has no threads yet.
    pub fn run(&self) -> ExitCode {
        plugin::compile(&self.request)
    }
}

/// `config` with this program as its compiler, unless it names another.
pub fn by_this_program(mut config: Config) -> Config {
    let compiler = &mut config.plugins.compiler;
    *compiler = compiler.take().or_else(this_program);
    config
}

/// By the kernel's own name for it, which stays right when the file is replaced by an upgrade.
fn this_program() -> Option<PathBuf> {
    let by_kernel = Path::new("/proc/self/exe");
    match by_kernel.exists() {
        true => Some(by_kernel.to_owned()),
        false => std::env::current_exe().ok(),
    }
}
