//! Hostile guests: a plugin can only fail its own task or its own loading, the error names the limit,
//! and other tasks are hardly delayed. `tests/guests` has the hostile handlers; guests that cannot be
//! written in Rust, or fail while they are loaded, are hand-written.

mod compilation;
mod loading;
mod tasks;

use crate::support::{
    backend::{Backend, on_both},
    eventually,
    node::Node,
    plugins::{hostile, showcase},
    task, trial,
};
use hostel::{
    DistributedClient,
    plugin::{TestGuest, test_guest},
    proto::{distributed::TaskStatus, hostel::v1::RejectedFile},
};
use libtest_mimic::Trial;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

pub fn trials() -> Vec<Trial> {
    // Loading does not depend on the backend.
    let loads = trial(
        "hostile::invalid_plugins_are_rejected_with_the_reason",
        loading::invalid_plugins_are_rejected_with_the_reason,
    );
    let large = trial(
        "hostile::large_instances_are_rejected_in_a_small_address_space",
        loading::large_instances_are_rejected_in_a_small_address_space,
    );
    [
        on_both(
            "hostile::hostile_tasks_fail_alone_with_the_reason",
            tasks::hostile_tasks_fail_alone_with_the_reason,
        ),
        on_both(
            "hostile::floods_use_bounded_memory",
            tasks::floods_use_bounded_memory,
        ),
        on_both(
            "hostile::only_traps_are_retried",
            tasks::only_traps_are_retried,
        ),
    ]
    .into_iter()
    .flatten()
    .chain([loads, large])
    .chain(compilation::trials())
    .collect()
}

/// The additional time that an echo may take next to a hostile guest.
const ALLOWANCE: Duration = Duration::from_millis(100);

/// The number of measurements before a delay counts as a failure.
const ROUNDS: usize = 3;

/// The number of echoes of a median.
const ECHOES: usize = 21;

/// Returns the median time of `ECHOES` echoes, and of further ones while `more` is true.
async fn median_echo(client: &mut DistributedClient, more: impl Fn() -> bool) -> Duration {
    let mut times = Vec::new();
    while times.len() < ECHOES || more() {
        times.push(echo(client).await);
    }
    times.sort();
    times[times.len() / 2]
}

/// Returns the time of one echo.
async fn echo(client: &mut DistributedClient) -> Duration {
    let since = Instant::now();
    let echoed = client.submit_and_wait(task("echo", "over")).await.unwrap();
    assert_eq!(
        (echoed.status.as_str(), &echoed.result[..]),
        ("completed", &b"over"[..])
    );
    since.elapsed()
}
