//! A flow of tasks through a queue while a test disturbs its Redis, and a ledger of what the queue has
//! acknowledged.

use super::{
    queue::{name, request, task},
    queue_redis::until,
};
use crate::support::eventually;
use futures_util::{StreamExt, stream};
use hostel::{
    queue::{Error, Finish, Finished, LeaseToken, RedisQueue, Submitted, TaskQueue},
    task::{Outcome, StateKind},
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const SUBMITTERS: usize = 4;
const READERS: usize = 16;

/// The duration of a lease, after which one whose answer was lost expires.
const TTL: Duration = Duration::from_secs(5);

pub struct Flow {
    queue: Arc<RedisQueue>,
    ledger: Arc<Mutex<Ledger>>,
    submitters: JoinSet<()>,
    workers: JoinSet<()>,
    stop: CancellationToken,
}

#[derive(Default)]
struct Ledger {
    acknowledged: BTreeSet<String>,
    /// How often the queue has accepted a result of each task.
    ended: BTreeMap<String, usize>,
    /// The reasons of failed calls.
    reasons: BTreeSet<String>,
}

impl Flow {
    pub fn start(queue: Arc<RedisQueue>) -> Self {
        let mut flow = Self {
            queue,
            ledger: Arc::default(),
            submitters: JoinSet::new(),
            workers: JoinSet::new(),
            stop: CancellationToken::new(),
        };
        for submitter in 0..SUBMITTERS {
            let (queue, ledger) = (flow.queue.clone(), flow.ledger.clone());
            let stop = flow.stop.clone();
            flow.submitters.spawn(async move {
                for number in 0.. {
                    if stop.is_cancelled() {
                        return;
                    }
                    submit(&queue, &ledger, &format!("t{submitter}-{number}")).await;
                }
            });
        }
        let (queue, ledger) = (flow.queue.clone(), flow.ledger.clone());
        flow.workers
            .spawn(async move { work(&queue, &ledger).await });
        flow
    }

    pub fn acknowledged(&self) -> usize {
        self.ledger.lock().acknowledged.len()
    }

    /// Waits until so many more tasks are acknowledged.
    pub async fn accepts(&self, more: usize) {
        let enough = self.acknowledged() + more;
        eventually("tasks are accepted", async || {
            (self.acknowledged() >= enough).then_some(())
        })
        .await;
    }

    /// Waits until a call has failed with a reason that contains `word`.
    pub async fn fails_with(&self, word: &str) {
        eventually(word, async || {
            let ledger = self.ledger.lock();
            ledger
                .reasons
                .iter()
                .any(|reason| reason.contains(word))
                .then_some(())
        })
        .await;
    }

    /// Asserts that every task acknowledged so far exists. Many are read at once, as many callers do.
    pub async fn all_exist(&self) {
        let acknowledged = self.ledger.lock().acknowledged.clone();
        let exists = |id: String| async move {
            let found = self.queue.get(&name(&id)).await.unwrap();
            assert!(found.is_some(), "{id} is lost");
        };
        let all = stream::iter(acknowledged).map(exists);
        all.buffer_unordered(READERS).collect::<()>().await;
    }

    /// Stops submitting, and waits until every acknowledged task has ended exactly once.
    pub async fn ends_once(self) {
        let more = self.ends().await;
        assert!(more.is_empty(), "ended more than once: {more:?}");
    }

    /// Stops submitting, waits until every acknowledged task has ended, and returns those that ended more
    /// than once, which is possible if a result can be lost.
    pub async fn ends(mut self) -> Vec<String> {
        self.stop.cancel();
        while let Some(submitter) = self.submitters.join_next().await {
            submitter.unwrap();
        }
        let acknowledged = self.ledger.lock().acknowledged.clone();
        until("all have ended", async || {
            assert!(self.workers.try_join_next().is_none(), "the worker is gone");
            let ledger = self.ledger.lock();
            acknowledged.iter().all(|id| ledger.ended.contains_key(id))
        })
        .await;
        let (mut more, mut unknown) = (Vec::new(), Vec::new());
        for (id, times) in &self.ledger.lock().ended {
            if *times != 1 {
                more.push(id.clone());
            }
            if !acknowledged.contains(id) {
                unknown.push(id.clone());
            }
        }
        assert!(unknown.is_empty(), "never submitted: {unknown:?}");
        let counts = self.queue.counts().await.unwrap();
        let completed = (name("echo"), StateKind::Completed);
        let expected = [(completed, acknowledged.len() as u64)];
        assert_eq!(counts, expected.into_iter().collect());
        more
    }
}

/// Submits a task until it is acknowledged, and then once more.
async fn submit(queue: &RedisQueue, ledger: &Mutex<Ledger>, id: &str) {
    for created_may_be in [true, false] {
        loop {
            match queue.submit(vec![task(id, "echo", b"x")]).await.as_deref() {
                Ok([Submitted::Created]) if created_may_be => break,
                Ok([Submitted::Existing]) => break,
                Ok(other) => panic!("{id}: {other:?}"),
                Err(error) => passes(ledger, error).await,
            }
        }
        ledger.lock().acknowledged.insert(id.to_owned());
    }
}

async fn work(queue: &RedisQueue, ledger: &Mutex<Ledger>) {
    loop {
        let leased = match queue.lease(&request(&[("echo", 16)], 16, TTL)).await {
            Ok(leased) => leased,
            Err(error) => {
                passes(ledger, &error).await;
                continue;
            }
        };
        if leased.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let lost = queue
            .expired(Duration::ZERO, &[], 16)
            .await
            .unwrap_or_default();
        for lost in lost {
            let (after, error) = (Duration::ZERO, "lost".into());
            let _ = ended(queue, ledger, &lost.token, Outcome::Retry { after, error }).await;
        }
        for leased in leased {
            let result = "done".into();
            let outcome = Outcome::Completed { result };
            if ended(queue, ledger, &leased.token, outcome).await == Finished::Applied {
                let mut ledger = ledger.lock();
                *ledger.ended.entry(leased.token.id.to_string()).or_default() += 1;
            }
        }
    }
}

/// Finishes an attempt, and repeats the call until an answer comes.
async fn ended(
    queue: &RedisQueue,
    ledger: &Mutex<Ledger>,
    token: &LeaseToken,
    outcome: Outcome,
) -> Finished {
    loop {
        let finish = Finish::new(token.clone(), outcome.clone(), None);
        match queue.finish(vec![finish]).await {
            Ok(finished) => return finished[0],
            Err(error) => passes(ledger, &error).await,
        }
    }
}

/// Asserts that an error is transient.
async fn passes(ledger: &Mutex<Ledger>, error: &Error) {
    match error {
        Error::Unavailable { reason, .. } => {
            ledger.lock().reasons.insert(reason.clone());
        }
        other => panic!("{other:?}"),
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
}
