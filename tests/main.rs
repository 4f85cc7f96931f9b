//! The one integration test program: collects the trials of every module and runs them. A case that
//! cannot be set up here is reported as ignored, never as passed.

mod conformance;

use libtest_mimic::{Arguments, Trial, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials: Vec<Trial> = Vec::new();
    trials.extend(conformance::trials());
    run(&arguments, trials).exit_code()
}
