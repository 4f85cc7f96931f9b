//! Tasks that flow through a queue while something is done to its Redis, and the ledger of what the
//! queue has acknowledged. Knows nothing of what is done.

use super::{
    queue::{name, task, want},
    queue_redis::until,
};
use crate::support::eventually;
use hostel::{
    queue::{Error, Finish, Finished, LeaseToken, RedisQueue, Submitted, TaskQueue},
    task::{Outcome, StateKind},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const SUBMITTERS: usize = 4;

/// A lease whose answer was lost ends after this.
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
    /// How often the queue took a result.
    ended: BTreeMap<String, usize>,
    /// What it said when it could not do something.
    said: BTreeSet<String>,
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
        lock(&self.ledger).acknowledged.len()
    }

    /// Waits until so many more tasks are acknowledged.
    pub async fn goes_on(&self, more: usize) {
        let enough = self.acknowledged() + more;
        eventually("tasks are accepted", async || {
            (self.acknowledged() >= enough).then_some(())
        })
        .await;
    }

    /// Waits until the queue said something about this.
    pub async fn says(&self, word: &str) {
        eventually(word, async || {
            let ledger = lock(&self.ledger);
            ledger
                .said
                .iter()
                .any(|said| said.contains(word))
                .then_some(())
        })
        .await;
    }

    /// Every task that was acknowledged so far is there.
    pub async fn all_are_there(&self) {
        let acknowledged = lock(&self.ledger).acknowledged.clone();
        for id in acknowledged {
            let found = self.queue.get(&name(&id)).await.unwrap();
            assert!(found.is_some(), "{id} is lost");
        }
    }

    /// Submits no more, and waits until every acknowledged task has ended, each once.
    pub async fn ends_well(self) {
        let more = self.ends().await;
        assert!(more.is_empty(), "ended more than once: {more:?}");
    }

    /// The same, and says which ended more than once, as they may where a result can be lost.
    pub async fn ends(mut self) -> Vec<String> {
        self.stop.cancel();
        while let Some(submitter) = self.submitters.join_next().await {
            submitter.unwrap();
        }
        let acknowledged = lock(&self.ledger).acknowledged.clone();
        until("all have ended", async || {
            assert!(self.workers.try_join_next().is_none(), "the worker is gone");
            let ledger = lock(&self.ledger);
            acknowledged.iter().all(|id| ledger.ended.contains_key(id))
        })
        .await;
        let (mut more, mut unknown) = (Vec::new(), Vec::new());
        for (id, times) in &lock(&self.ledger).ended {
            if *times != 1 {
                more.push(id.clone());
            }
            if !acknowledged.contains(id) {
                unknown.push(id.clone());
            }
        }
        assert!(unknown.is_empty(), "nobody submitted: {unknown:?}");
        let counts = self.queue.counts().await.unwrap();
        let completed = (name("echo"), StateKind::Completed);
        let expected = [(completed, acknowledged.len() as u64)];
        assert_eq!(counts, expected.into_iter().collect());
        more
    }
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap()
}

/// Again and again until it is acknowledged; then it exists.
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
        lock(ledger).acknowledged.insert(id.to_owned());
    }
}

async fn work(queue: &RedisQueue, ledger: &Mutex<Ledger>) {
    loop {
        let leased = match queue.lease(&want(&[("echo", 16)], 16, TTL)).await {
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
                let mut ledger = lock(ledger);
                *ledger.ended.entry(leased.token.id.to_string()).or_default() += 1;
            }
        }
    }
}

/// The first answer that comes. A result that was taken, and whose answer was lost, counts as taken.
async fn ended(
    queue: &RedisQueue,
    ledger: &Mutex<Ledger>,
    token: &LeaseToken,
    outcome: Outcome,
) -> Finished {
    loop {
        let finish = Finish {
            token: token.clone(),
            outcome: outcome.clone(),
            executed_by: None,
        };
        match queue.finish(vec![finish]).await {
            Ok(finished) => return finished[0],
            Err(error) => passes(ledger, &error).await,
        }
    }
}

/// Whatever is done to the server, it is nobody's fault, and passes.
async fn passes(ledger: &Mutex<Ledger>, error: &Error) {
    match error {
        Error::Unavailable { reason, .. } => {
            lock(ledger).said.insert(reason.clone());
        }
        other => panic!("{other:?}"),
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
}
