//! The trials of Hostel's integration test, a library of its own so that it is compiled without
//! optimisation. `main.rs` beside it is the test, and belongs to the package `hostel`, for whose
//! integration tests cargo builds the binary. The benchmarks use [`support`], too.

#![allow(missing_docs)]

mod compatibility;
mod conformance;
mod layering;
mod scenarios;
pub mod support;

use libtest_mimic::{Arguments, run};
use std::{path::Path, process::ExitCode};

/// Runs the trials that the arguments of the process select, with the binary `hostel` at this path. A case
/// that cannot be set up here is reported as ignored, never as passed; in CI it runs and fails.
pub fn main(binary: &'static str) -> ExitCode {
    // One case needs a process to kill.
    if let Some(dir) = std::env::var_os(conformance::ROLE) {
        return conformance::play(dir.as_ref());
    }
    support::node::set_binary(Path::new(binary));
    let mut arguments = Arguments::from_args();
    // Trials wait for servers and timers more than they compute.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    arguments.test_threads.get_or_insert(2 * cores);
    let trials = [
        compatibility::trials(),
        layering::trials(),
        conformance::trials(),
        scenarios::trials(),
    ];
    run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
