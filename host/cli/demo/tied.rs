//! `hostel tied`: runs a program that ends when whoever started it does, however that comes about. For
//! the processes of the demo's cluster; a hidden command, since it has to be a program of its own.

use crate::{cli::exit::Failure, parent};
use anyhow::anyhow;
use clap::Args;
use std::{ffi::OsString, os::unix::process::CommandExt, process::Command};

/// Run a program that is killed when its parent ends
#[derive(Debug, Args)]
pub struct Tied {
    /// The process that it is tied to, which has to be its parent
    parent: u32,
    program: OsString,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Tied {
    /// Becomes the program, and comes back only if it cannot. The kernel keeps the wish beyond that.
    pub fn run(self) -> Failure {
        if let Err(error) = parent::die_with(self.parent) {
            return Failure::node(error.into());
        }
        let error = Command::new(&self.program).args(&self.arguments).exec();
        let program = self.program.to_string_lossy();
        Failure::node(anyhow!(error).context(format!("cannot run {program}")))
    }
}
