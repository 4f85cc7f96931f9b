//! What scenarios stand on: a node as a process of its own, plugins built once, waiting without
//! guessing how fast the machine is. No assertions about Hostel live here.

pub mod backend;
pub mod certificates;
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

/// How long anything may take before a test calls it stuck. Generous: it is no measurement.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Asks again and again until the answer is `Some`; panics with `what` when patience is over.
pub async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let since = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(since.elapsed() < PATIENCE, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A trial that needs plugins built from source; ignored where they cannot be, except in CI.
pub fn trial<F>(name: &str, scenario: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = ()>,
{
    trial_needing(name, plugins::can_build(), scenario)
}

/// A trial that can only run where `possible`; ignored elsewhere, except in CI, where it must run.
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

/// A trial that finds out only when it runs whether it can, because that takes a while; ignored
/// where it cannot, except in CI, where it must.
pub fn trial_or_why_not<F>(
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

/// A task without id and metadata.
pub fn task(task_type: &str, payload: impl Into<Vec<u8>>) -> Task {
    Task {
        task_type: task_type.into(),
        payload: payload.into().into(),
        ..Task::default()
    }
}

/// The clock that the node on this machine has too, in its unit.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.expect("a time after 1970").as_millis()).expect("a time")
}

/// Random numbers that a failed run can be repeated with: the seed is printed, and
/// `HOSTEL_TEST_SEED` sets it.
pub fn random(what: &str) -> fastrand::Rng {
    let given = std::env::var("HOSTEL_TEST_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().expect("a number"));
    println!("{what}: HOSTEL_TEST_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}
