//! `cargo bench [-- [--json] [--] FILTER...]`: measures the node together with the limits that the
//! machine, tonic, wasmtime and the disk set, in the same run. This file selects the rows; each module
//! measures one thing. No result passes or fails.

mod bare_engine;
mod call;
mod child;
mod echo;
mod end_to_end;
mod footprint;
mod fsync;
mod keyvalue;
mod latency;
mod load;
mod machine;
mod many;
mod messages;
mod peers;
mod queue;
mod report;
mod shared_queue;
mod submits;
mod synced_redis;
mod takeover;
mod warm;

use hostel_tests::support;
use report::Row;
use std::{path::Path, process::ExitCode};

/// The number of measurements, of which the median is reported.
const ROUNDS: usize = 3;

type Measure = fn() -> Vec<Row>;

/// The measurements by name, in the order of the table.
const MEASURES: [(&str, Measure); 12] = [
    ("fsync", fsync::rows),
    ("submits", submits::rows),
    ("end-to-end", end_to_end::rows),
    ("many", many::rows),
    ("call", call::rows),
    ("latency", latency::rows),
    ("messages", messages::rows),
    ("footprint", footprint::rows),
    ("queue", queue::rows),
    ("shared-queue", shared_queue::rows),
    ("takeover", takeover::rows),
    ("keyvalue", keyvalue::rows),
];

/// What is measured only if it is named, since it installs something.
const NAMED: [(&str, Measure); 1] = [("peers", peers::rows)];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, name] = &arguments[..]
        && role == child::ROLE
    {
        return child::play(name);
    }
    support::node::set_binary(Path::new(env!("CARGO_BIN_EXE_hostel")));
    let json = arguments.iter().any(|argument| argument == "--json");
    // Other options are cargo's, such as --bench.
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    // Data directories have to be on a disk, and /tmp often is not.
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    if std::fs::create_dir_all(scratch).is_err()
        || tempfile::env::override_temp_dir(scratch).is_err()
    {
        eprintln!("cannot write data to {}", scratch.display());
        return ExitCode::FAILURE;
    }
    let mut rows = Vec::new();
    let named = NAMED.into_iter().filter(|_| !filters.is_empty());
    for (name, measure) in MEASURES.into_iter().chain(named) {
        if filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())) {
            eprintln!("measuring {name} ...");
            rows.extend(measure());
        }
    }
    let machine = machine::describe();
    println!(
        "{}",
        if json {
            report::json(&machine, &rows)
        } else {
            report::table(&machine, &rows)
        }
    );
    ExitCode::SUCCESS
}

/// Returns the median; measured values are never NaN.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Measures one value for each round.
fn rounds<T>(measure: impl FnMut(usize) -> T) -> Vec<T> {
    (0..ROUNDS).map(measure).collect()
}

/// Returns the runtime of the clients, the same for every row. Servers use the node's runtime.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}
