//! `cargo bench [-- [--json] [--] FILTER...]`: what the node does beside what the machine, tonic,
//! wasmtime and the disk could do at most, measured in the same run. This page picks the rows;
//! a module measures one idea each. No number here passes or fails anything.

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
mod messages;
mod queue;
mod report;
mod shared_queue;
mod submits;
mod takeover;
mod warm;

#[allow(dead_code)]
#[path = "../tests/support/mod.rs"]
mod support;

use report::Row;
use std::{path::Path, process::ExitCode};

/// How often each thing is measured; the median counts.
const ROUNDS: usize = 3;

type Measure = fn() -> Vec<Row>;

/// What can be asked for by name, in the order of the table.
const MEASURES: [(&str, Measure); 11] = [
    ("fsync", fsync::rows),
    ("submits", submits::rows),
    ("end-to-end", end_to_end::rows),
    ("call", call::rows),
    ("latency", latency::rows),
    ("messages", messages::rows),
    ("footprint", footprint::rows),
    ("queue", queue::rows),
    ("shared-queue", shared_queue::rows),
    ("takeover", takeover::rows),
    ("keyvalue", keyvalue::rows),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, name] = &arguments[..]
        && role == child::ROLE
    {
        return child::play(name);
    }
    let json = arguments.iter().any(|argument| argument == "--json");
    // Whatever else begins with a dash is cargo's, such as --bench.
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    // Where data directories live has to be a disk, which /tmp often is not.
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    if std::fs::create_dir_all(scratch).is_err()
        || tempfile::env::override_temp_dir(scratch).is_err()
    {
        eprintln!("no place for data in {}", scratch.display());
        return ExitCode::FAILURE;
    }
    let mut rows = Vec::new();
    for (name, measure) in MEASURES {
        if filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())) {
            eprintln!("measuring {name} ...");
            rows.extend(measure());
        }
    }
    let machine = machine::describe();
    println!(
        "{}",
        match json {
            true => report::json(&machine, &rows),
            false => report::table(&machine, &rows),
        }
    );
    ExitCode::SUCCESS
}

/// The middle one; what is measured is never not a number.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// One value a round, for as many rounds as are measured.
fn rounds<T>(measure: impl FnMut(usize) -> T) -> Vec<T> {
    (0..ROUNDS).map(measure).collect()
}

/// The runtime that clients live on, the same for every row. Servers have the node's.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime")
}
