//! The ledger of replacements and of the tasks that ran meanwhile, and what must hold between them.

use super::{TASKS_BETWEEN, WAYS, Way};
use crate::support::{eventually, now_ms, task};
use hostel::DistributedClient;
use parking_lot::Mutex;
use std::{
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::Code;

/// The observed events, with times in milliseconds of the clock that the node uses as well.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) accepted: AtomicU64,
    pub(super) ran: Mutex<Vec<Ran>>,
    pub(super) swaps: Mutex<Vec<Swap>>,
    /// Submissions without a plugin: the times of the call and of the answer.
    pub(super) rejected: Mutex<Vec<(u64, u64)>>,
}

pub(super) struct Ran {
    pub(super) version: String,
    pub(super) started: u64,
    pub(super) finished: u64,
}

/// The time from the first change of the file until the node reported that the version serves.
pub(super) struct Swap {
    pub(super) begun: u64,
    pub(super) complete: u64,
    pub(super) version: &'static str,
}

impl Ledger {
    /// Submits one task at a time and waits for its end.
    pub(super) async fn load(
        self: Arc<Self>,
        mut client: DistributedClient,
        number: u64,
        stop: CancellationToken,
    ) {
        let mut submitted = 0_u64;
        while !stop.is_cancelled() {
            submitted += 1;
            let payload = format!("{number}:{submitted}");
            let sent = now_ms();
            let id = match client.submit_task(task("echo", payload.as_str())).await {
                Ok(id) => id,
                Err(status) => {
                    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
                    self.rejected.lock().push((sent, now_ms()));
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                }
            };
            self.accepted.fetch_add(1, Relaxed);
            let status = client.wait_for_task(&id).await.expect("it is known");
            assert_eq!(status.status, "completed", "{status:?}");
            assert_eq!((status.attempts, status.finishes), (1, 1), "{status:?}");
            assert_eq!(status.plugin, "echo");
            // The result contains the version that ran, which must be the recorded one.
            let signed = format!("{payload}@{}", status.plugin_version);
            assert_eq!(status.result, signed.as_bytes());
            self.ran.lock().push(Ran {
                version: status.plugin_version,
                started: status.started_at_ms,
                finished: status.finished_at_ms,
            });
        }
    }

    /// Waits until enough tasks that started after `time` have run.
    pub(super) async fn some_more(&self, time: u64, loaders: &mut JoinSet<()>) {
        eventually("tasks run", || {
            if let Some(ended) = loaders.try_join_next() {
                panic!("a loader ended: {ended:?}");
            }
            let ran = self.ran.lock();
            let newest_first = ran.iter().rev().take(10 * TASKS_BETWEEN);
            let later = newest_first.filter(|ran| ran.started > time).count();
            ready((later >= TASKS_BETWEEN).then_some(()))
        })
        .await;
    }

    /// Checks that every task ran on a version that could serve at the time, every rejection happened
    /// while the file was missing, and no task was lost. Returns the number of tasks.
    pub(super) fn check(&self) -> usize {
        let (ran, swaps) = (self.ran.lock(), self.swaps.lock());
        assert_eq!(ran.len() as u64, self.accepted.load(Relaxed), "tasks lost");
        for ran in &*ran {
            let before = swaps.partition_point(|swap| swap.complete < ran.started);
            let first = before.saturating_sub(1);
            // The version that served at its start, or one that came while it ran.
            let mut possible = swaps[first..]
                .iter()
                .enumerate()
                .take_while(|(later, swap)| *later == 0 || swap.begun <= ran.finished);
            assert!(
                possible.any(|(_, swap)| swap.version == ran.version),
                "started at {} on {}, when {} had served since {}",
                ran.started,
                ran.version,
                swaps[first].version,
                swaps[first].complete
            );
        }
        for &(sent, answered) in &*self.rejected.lock() {
            let missing = |(index, swap): (usize, &Swap)| {
                WAYS[index % WAYS.len()] == Way::DeleteAndBack
                    && swap.begun <= answered
                    && sent <= swap.complete
            };
            let excused = swaps.iter().enumerate().skip(1).any(missing);
            assert!(excused, "rejected between {sent} and {answered}");
        }
        ran.len()
    }
}
