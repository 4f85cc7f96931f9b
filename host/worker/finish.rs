//! Writes down how attempts ended, many at a time, and keeps trying while the queue cannot take
//! them: a result that was computed is not thrown away.

use super::{Shared, slot::Unwritten};
use crate::{
    log_limit::LogLimit,
    queue::{Finish, Finished},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// The most endings that are written at once.
const BATCH: usize = 512;

/// How long to wait after a failure, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Runs until every sender is gone and everything sent is written. A slot becomes free when its
/// outcome is.
pub async fn write_down(shared: Arc<Shared>, mut ended: mpsc::Receiver<Unwritten>) {
    let mut batch = Vec::new();
    while ended.recv_many(&mut batch, BATCH).await > 0 {
        let (finishes, slots): (Vec<_>, Vec<_>) = batch
            .drain(..)
            .map(|Unwritten { finish, slot }| (finish, slot))
            .unzip();
        let applied = write_batch(&shared, &finishes).await;
        for (slot, applied) in slots.iter().zip(applied) {
            let task = &slot.token().id;
            match applied {
                Finished::Applied | Finished::Unconfirmed => {}
                Finished::Stale => {
                    tracing::info!(%task, "its end came too late: the task is not ours any more");
                }
                Finished::Corrupt => {
                    tracing::error!(%task, "its end is dropped: the task's record is damaged");
                }
            }
        }
    }
}

/// What is not confirmed is written again, and nothing else.
async fn write_batch(shared: &Shared, batch: &[Finish]) -> Vec<Finished> {
    let mut finished = vec![Finished::Unconfirmed; batch.len()];
    let mut pause = PAUSE.0;
    let limit = LogLimit::of_retries();
    loop {
        let is_open = |&place: &usize| finished[place] == Finished::Unconfirmed;
        let open: Vec<usize> = (0..batch.len()).filter(is_open).collect();
        if open.is_empty() {
            return finished;
        }
        // Payloads are shared, so that the copy kept for another try costs little.
        let again = open.iter().map(|&place| batch[place].clone()).collect();
        match shared.queue.finish(again).await {
            Ok(answers) => {
                for (&place, answer) in open.iter().zip(answers) {
                    finished[place] = answer;
                }
                if !finished.contains(&Finished::Unconfirmed) {
                    continue;
                }
            }
            Err(error) => {
                if let Some(left_out) = limit.permit() {
                    let attempts = open.len();
                    tracing::warn!(
                        left_out,
                        "cannot record {attempts} finished attempts, trying again: {error}"
                    );
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}
