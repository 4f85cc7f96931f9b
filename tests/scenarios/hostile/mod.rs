//! Hostile guests: whatever a plugin does, it hurts its own task or its own load and says which
//! limit was met, and others hardly notice. What a guest may do in `handle` is in `tests/guests`;
//! what cannot be said in Rust, and what goes wrong at load, is a `Sample`.

mod compiles;
mod loads;
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
    plugin::{Sample, sample},
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
    // What a file is at its load is between it and the node.
    let loads = trial(
        "hostile::loads_are_refused_and_say_why",
        loads::loads_are_refused_and_say_why,
    );
    [
        on_both(
            "hostile::tasks_fail_alone_and_say_why",
            tasks::tasks_fail_alone_and_say_why,
        ),
        on_both(
            "hostile::floods_leave_memory_bounded",
            tasks::floods_leave_memory_bounded,
        ),
        on_both(
            "hostile::a_trap_is_tried_again_and_the_rest_is_not",
            tasks::what_is_tried_again,
        ),
    ]
    .into_iter()
    .flatten()
    .chain([loads])
    .chain(compiles::trials())
    .collect()
}

/// How much longer an echo may take beside a hostile guest than alone.
const ALLOWANCE: Duration = Duration::from_millis(100);

/// How often that is measured before it counts as true.
const ROUNDS: usize = 3;

/// Echoes that make one median.
const ECHOES: usize = 21;

/// The median over `ECHOES` echoes, and more of them while `more`.
async fn median_echo(client: &mut DistributedClient, more: impl Fn() -> bool) -> Duration {
    let mut times = Vec::new();
    while times.len() < ECHOES || more() {
        times.push(echo(client).await);
    }
    times.sort();
    times[times.len() / 2]
}

/// How long one echo takes.
async fn echo(client: &mut DistributedClient) -> Duration {
    let since = Instant::now();
    let echoed = client.submit_and_wait(task("echo", "over")).await.unwrap();
    assert_eq!(
        (echoed.status.as_str(), &echoed.result[..]),
        ("completed", &b"over"[..])
    );
    since.elapsed()
}
