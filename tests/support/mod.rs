//! What scenarios stand on: a node as a process of its own, plugins built once, waiting without
//! guessing how fast the machine is. No assertions about Hostel live here.

pub mod node;
pub mod plugins;
pub mod python;

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
