//! Writes down how attempts ended: piece by piece, each confirmed before the next is sent, and sized by
//! what the line to the queue was seen to carry. What is not confirmed is tried again, and nothing else:
//! a result that was computed is not thrown away.

use super::{Shared, slot::Unwritten};
use crate::{
    log_limit::LogLimit,
    queue::{BatchSize, Finish, Finished},
    task::Outcome,
};
use hostel_backoff::Backoff;
use std::{sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

/// The most endings that are written at once.
const BATCH: usize = 512;

/// How long to wait after a failure, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How long giving tasks back may take.
const GIVE_BACK: Duration = Duration::from_secs(4);

/// Runs until every sender is gone and everything sent is written. At `too_late`, tasks whose outcome is
/// not written go back to the queue. A slot becomes free when its outcome is written.
pub async fn write_down(
    shared: Arc<Shared>,
    mut ended: mpsc::Receiver<Unwritten>,
    too_late: CancellationToken,
) {
    let mut waiting = Vec::new();
    let write = write_all(&shared, &mut ended, &mut waiting);
    if too_late.run_until_cancelled(write).await.is_none() {
        ended.close();
        while let Some(unwritten) = ended.recv().await {
            waiting.push(unwritten);
        }
        give_back(&shared, &waiting).await;
    }
}

async fn write_all(
    shared: &Shared,
    ended: &mut mpsc::Receiver<Unwritten>,
    waiting: &mut Vec<Unwritten>,
) {
    let (mut batch_size, mut backoff) = (BatchSize::default(), Backoff::new(PAUSE.0, PAUSE.1));
    let limit = LogLimit::of_retries();
    loop {
        if waiting.is_empty() && ended.recv_many(waiting, BATCH).await == 0 {
            return;
        }
        // No more than there are slots.
        while let Ok(unwritten) = ended.try_recv() {
            waiting.push(unwritten);
        }
        let sizes = waiting.iter().map(Unwritten::bytes).take(BATCH);
        let count = batch_size.take(sizes);
        let piece = &waiting[..count];
        let bytes = piece.iter().map(Unwritten::bytes).sum();
        // Payloads are shared, so that the copy kept for another try costs little.
        let finishes = piece.iter().map(|it| it.finish.clone()).collect();
        let (began, mut confirmed) = (Instant::now(), 0);
        match shared.queue.finish(finishes).await {
            Ok(answers) => {
                let piece: Vec<_> = waiting.drain(..count).collect();
                for (unwritten, answer) in piece.into_iter().zip(answers) {
                    match answer {
                        // Behind the others, so that a sick part of the store holds up none of them.
                        Finished::Unconfirmed => waiting.push(unwritten),
                        answer => {
                            report(&unwritten, answer);
                            confirmed += 1;
                        }
                    }
                }
            }
            Err(error) => {
                // Behind the others here too.
                waiting.rotate_left(count);
                if let Some(left_out) = limit.permit() {
                    tracing::warn!(
                        left_out,
                        "cannot record {count} finished attempts, trying again: {error}"
                    );
                }
            }
        }
        if confirmed == count {
            batch_size.confirmed(bytes, began.elapsed());
        } else {
            batch_size.failed();
        }
        if confirmed > 0 {
            backoff.reset();
        } else {
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }
}

fn report(unwritten: &Unwritten, answer: Finished) {
    let task = &unwritten.finish.token.id;
    match answer {
        Finished::Applied | Finished::Unconfirmed => {}
        Finished::Stale => {
            tracing::info!(%task, "its end came too late: the task is not ours any more");
        }
        Finished::Corrupt => {
            tracing::error!(%task, "its end is dropped: the task's record is damaged");
        }
    }
}

/// Lets others run the tasks at once, which would otherwise wait for the end of their leases. This costs
/// them no attempt.
async fn give_back(shared: &Shared, waiting: &[Unwritten]) {
    let released = waiting.iter().map(|unwritten| Finish {
        token: unwritten.finish.token.clone(),
        outcome: Outcome::Released,
        executed_by: None,
    });
    let count = waiting.len();
    if count == 0 {
        return;
    }
    let release = shared.queue.finish(released.collect());
    match tokio::time::timeout(GIVE_BACK, release).await {
        Ok(Ok(_)) => tracing::warn!(
            "{count} results were not written within the drain time (node.drain_ms); their tasks go \
             back to the queue"
        ),
        Ok(Err(_)) | Err(_) => tracing::warn!(
            "{count} results were not written within the drain time (node.drain_ms); their tasks run \
             again when their leases end"
        ),
    }
}
