//! Writes the results of ended attempts to the queue: batch by batch, each confirmed before the next is
//! sent, and sized by the observed throughput of the connection. A batch that is not confirmed is
//! retried, so that no computed result is lost.

use super::{shared::Shared, slot::UnwrittenResult};
use crate::{
    log_limit::LogLimit,
    queue::{BatchSize, Finish, Finished},
};
use hostel_backoff::Backoff;
use std::{sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

/// The most results that one batch has.
const MAX_BATCH: usize = 512;

/// The delay after a failure: the first one, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How long releasing the remaining tasks may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(4);

/// Writes results until every sender is dropped and all are written. When `too_late` is cancelled, the
/// tasks whose results are not written are released instead. A slot becomes free when its result is
/// written.
pub async fn write_results(
    shared: Arc<Shared>,
    mut results: mpsc::Receiver<UnwrittenResult>,
    too_late: CancellationToken,
) {
    let mut waiting = Vec::new();
    let write = write_all(&shared, &mut results, &mut waiting);
    if too_late.run_until_cancelled(write).await.is_none() {
        results.close();
        while let Some(result) = results.recv().await {
            waiting.push(result);
        }
        release_all(&shared, &waiting).await;
    }
}

async fn write_all(
    shared: &Shared,
    results: &mut mpsc::Receiver<UnwrittenResult>,
    waiting: &mut Vec<UnwrittenResult>,
) {
    let mut batch_size = BatchSize::default();
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    let limit = LogLimit::of_retries();
    loop {
        if waiting.is_empty() && results.recv_many(waiting, MAX_BATCH).await == 0 {
            return;
        }
        // There are no more of these than slots.
        while let Ok(result) = results.try_recv() {
            waiting.push(result);
        }
        let sizes = waiting.iter().map(UnwrittenResult::bytes).take(MAX_BATCH);
        let count = batch_size.take(sizes);
        let batch = &waiting[..count];
        let bytes = batch.iter().map(UnwrittenResult::bytes).sum();
        // A clone shares its result's bytes, so the copy kept for a retry costs little.
        let finishes = batch.iter().map(|it| it.finish.clone()).collect();
        let (start, mut confirmed) = (Instant::now(), 0);
        match shared.queue.finish(finishes).await {
            Ok(answers) => {
                let batch: Vec<_> = waiting.drain(..count).collect();
                for (result, answer) in batch.into_iter().zip(answers) {
                    match answer {
                        // To the back of the line, so that a faulty shard does not hold up the others.
                        Finished::Unconfirmed => waiting.push(result),
                        answer => {
                            log(&result, answer);
                            confirmed += 1;
                        }
                    }
                }
            }
            Err(error) => {
                // To the back of the line here too.
                waiting.rotate_left(count);
                if let Some(left_out) = limit.permit() {
                    tracing::warn!(
                        left_out,
                        "cannot write the results of {count} attempts, retrying: {error}"
                    );
                }
            }
        }
        if confirmed == count {
            batch_size.confirmed(bytes, start.elapsed());
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

fn log(result: &UnwrittenResult, answer: Finished) {
    let task = &result.finish.token.id;
    match answer {
        Finished::Applied | Finished::Unconfirmed => {}
        Finished::Stale => {
            tracing::info!(%task, "dropped a result: the lease of its task was lost");
        }
        Finished::Corrupt => {
            tracing::error!(%task, "dropped a result: the record of its task is damaged");
        }
    }
}

/// Releases the tasks, so that other nodes can run them at once and not only when the leases expire.
/// This costs them no attempt.
async fn release_all(shared: &Shared, waiting: &[UnwrittenResult]) {
    let count = waiting.len();
    if count == 0 {
        return;
    }
    let released = waiting
        .iter()
        .map(|result| Finish::released(result.finish.token.clone()));
    let release = shared.queue.finish(released.collect());
    match tokio::time::timeout(RELEASE_TIMEOUT, release).await {
        Ok(Ok(_)) => tracing::warn!(
            "{count} results were not written within the drain time (node.drain_ms); their tasks are \
             released and run again"
        ),
        Ok(Err(_)) | Err(_) => tracing::warn!(
            "{count} results were not written within the drain time (node.drain_ms); their tasks run \
             again when their leases expire"
        ),
    }
}
