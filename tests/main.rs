//! The one integration test program: collects the trials of every module and runs them. A case that
//! cannot be set up here is reported as ignored, never as passed; in CI it runs and fails.

mod compatibility;
mod conformance;
mod layering;
mod scenarios;
mod support;

use libtest_mimic::{Arguments, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    // One case needs a process to kill.
    if let Some(dir) = std::env::var_os(conformance::ROLE) {
        return conformance::play(dir.as_ref());
    }
    let arguments = Arguments::from_args();
    let trials = [
        compatibility::trials(),
        layering::trials(),
        conformance::trials(),
        scenarios::trials(),
    ];
    run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
