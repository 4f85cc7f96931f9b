//! What scenarios stand on: a node as a process of its own, plugins built once, waiting without
//! guessing how fast the machine is. No assertions about Hostel live here.

pub mod node;
pub mod plugins;
pub mod python;

use hostel::proto::distributed::Task;
use libtest_mimic::Trial;
use std::{
    future::Future,
    time::{Duration, Instant},
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
    let must = std::env::var_os("CI").is_some();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        runtime.block_on(scenario());
        Ok(())
    };
    Trial::test(name, run).with_ignored_flag(!possible && !must)
}

/// A task without id and metadata.
pub fn task(task_type: &str, payload: impl Into<Vec<u8>>) -> Task {
    Task {
        task_type: task_type.into(),
        payload: payload.into().into(),
        ..Task::default()
    }
}
