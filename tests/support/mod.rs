//! Tools for scenarios: nodes as processes, plugins that are built once, servers, and waiting that does
//! not depend on the speed of the machine. There are no assertions about Hostel here.

pub mod backend;
pub mod certificates;
pub mod crates;
pub mod ledger;
pub mod node;
pub mod plugins;
pub mod proxy;
pub mod python;
pub mod redis_cluster;
pub mod servers;

use hostel::proto::distributed::Task;
use libtest_mimic::{Completion, Failed, Trial};
use std::{
    future::Future,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The time after which a test counts as stuck. It is generous, because it measures nothing.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Polls until the result is `Some`. Panics with `what` after [`DEADLINE`].
pub async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let since = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(since.elapsed() < DEADLINE, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Returns a trial that needs plugins built from source. It is ignored where they cannot be built,
/// except in CI.
pub fn trial<F>(name: &str, scenario: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()>,
{
    trial_needing(name, plugins::can_build(), scenario)
}

/// Returns a trial that can only run if `possible`. It is ignored otherwise, except in CI, where it has
/// to run.
pub fn trial_needing<F>(
    name: &str,
    possible: bool,
    scenario: impl FnOnce() -> F + Send + 'static,
) -> Trial
where
    F: Future<Output = ()>,
{
    Trial::test(name, || run(scenario)).with_ignored_flag(!possible && !in_ci())
}

/// Returns a trial that checks when it runs whether it can run, because the check takes a while. It is
/// ignored if it cannot run, except in CI, where it fails.
pub fn trial_if<F>(
    name: &str,
    possible: impl FnOnce() -> Result<(), String> + Send + 'static,
    scenario: impl FnOnce() -> F + Send + 'static,
) -> Trial
where
    F: Future<Output = ()>,
{
    Trial::ignorable_test(name, || match possible() {
        Err(why) if in_ci() => Err(why.into()),
        Err(why) => Ok(Completion::ignored_with(why)),
        Ok(()) => run(scenario).map(|()| Completion::Completed),
    })
}

fn in_ci() -> bool {
    std::env::var_os("CI").is_some()
}

pub fn run<F: Future<Output = ()>>(scenario: impl FnOnce() -> F) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(scenario());
    Ok(())
}

/// Returns a task without id and metadata.
pub fn task(task_type: &str, payload: impl Into<Vec<u8>>) -> Task {
    Task {
        task_type: task_type.into(),
        payload: payload.into().into(),
        ..Task::default()
    }
}

/// Returns the current time in milliseconds, from the clock that nodes on this machine use.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.expect("a time after 1970").as_millis()).expect("a time")
}

/// Returns a random number generator whose seed is printed. `HOSTEL_TEST_SEED` sets the seed, so that
/// a failed run can be repeated.
pub fn random(what: &str) -> fastrand::Rng {
    let given = std::env::var("HOSTEL_TEST_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("a number"));
    println!("{what}: HOSTEL_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}
