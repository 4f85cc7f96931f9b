//! `hostel tied`: runs a program that ends when whoever started it does, however that comes about. For
//! the processes of the demo's cluster; a hidden command, since it has to be a program of its own.

use crate::cli::exit::Failure;
use anyhow::{Context, anyhow};
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
        if let Err(error) = tie(self.parent) {
            return Failure::node(error);
        }
        let error = Command::new(&self.program).args(&self.arguments).exec();
        let program = self.program.to_string_lossy();
        Failure::node(anyhow!(error).context(format!("cannot run {program}")))
    }
}

#[cfg(target_os = "linux")]
fn tie(parent: u32) -> anyhow::Result<()> {
    use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL)).context("prctl")?;
    // It may have ended before that.
    let now = getppid().map(Pid::as_raw_pid);
    match now.and_then(|now| u32::try_from(now).ok()) == Some(parent) {
        true => Ok(()),
        false => Err(anyhow!("process {parent} has ended")),
    }
}

/// Elsewhere it runs untied.
#[cfg(not(target_os = "linux"))]
fn tie(_: u32) -> anyhow::Result<()> {
    Ok(())
}
