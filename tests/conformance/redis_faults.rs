//! Faults with a limited effect: a damaged record or a failing shard affects only its own tasks, and a Redis
//! that lost its data is reported. Full memory is in `redis_memory`.

use super::{
    queue::{finish_one, name, request, task},
    queue_redis::{HOUR, say, settings, trial, until},
};
use crate::support::servers::{Kind, Server};
use hostel::{
    config,
    health::{Health, Part, Severity},
    queue::{
        Changes, Finish, Finished, Leased, Page, RedisQueue, Renew, Renewal, Requeue, TaskQueue,
    },
    task::{ErrorClass, Outcome, Retention, State, StateKind},
};
use libtest_mimic::Trial;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for shards in [1, 3] {
        let name = |case: &str| match shards {
            1 => case.to_owned(),
            _ => format!("{case}_in_three_shards"),
        };
        trials.extend([
            trial(&name("a_damaged_record_fails_alone"), move || {
                a_damaged_record_fails_alone(shards)
            }),
            trial(&name("a_redis_that_lost_its_data_is_reported"), move || {
                a_redis_that_lost_its_data_is_reported(shards)
            }),
        ]);
    }
    trials.extend([
        trial(
            "a_failing_shard_affects_only_its_tasks",
            a_failing_shard_affects_only_its_tasks,
        ),
        trial(
            "an_event_that_cannot_be_read_is_skipped",
            an_event_that_cannot_be_read_is_skipped,
        ),
        trial(
            "a_node_that_may_not_read_events_says_so",
            a_node_that_may_not_read_events_says_so,
        ),
        trial(
            "a_queue_may_repeat_an_outcome",
            a_queue_may_repeat_an_outcome,
        ),
        trial("a_damaged_task_ends_once", a_damaged_task_ends_once),
    ]);
    trials
}

pub(super) async fn open(server: &Server, shards: u32) -> (RedisQueue, Health) {
    let settings = config::RedisQueue {
        shards,
        max_open_tasks: 100_000,
        ..settings(server)
    };
    let health = Health::default();
    let queue = RedisQueue::open_reporting(&settings, health.clone());
    (queue.await.unwrap(), health)
}

pub(super) fn has(health: &Health, kind: &'static str) -> bool {
    health.faults().contains_key(&(Part::Queue, kind))
}

pub(super) fn completed(leased: &[Leased], result: &[u8]) -> Vec<Finish> {
    let finish = |leased: &Leased| {
        Finish::new(
            leased.token.clone(),
            Outcome::Completed {
                result: result.to_vec().into(),
            },
            None,
        )
    };
    leased.iter().map(finish).collect()
}

/// Completes these attempts, and adds the tasks that end by it.
async fn finish_all(queue: &RedisQueue, leased: &[Leased], applied: &mut BTreeSet<String>) {
    let finished = queue.finish(completed(leased, b"x")).await.unwrap();
    let all = leased.iter().zip(finished);
    let ended = all.filter(|(_, finished)| *finished == Finished::Applied);
    applied.extend(ended.map(|(leased, _)| leased.token.id.to_string()));
}

/// Returns the key of a task, whichever its shard.
async fn key_of(server: &Server, shards: u32, id: &str) -> String {
    for shard in 0..shards {
        let key = format!("{{test:{shard}}}:task:{id}");
        if say(server, &["EXISTS", &key]).await == redis::Value::Int(1) {
            return key;
        }
    }
    panic!("no task {id}");
}

/// Damages what is stored of a task in one way.
async fn damage(server: &Server, key: &str, how: &str) {
    let (tag, id) = key.split_once(":task:").unwrap();
    let (run, end) = (format!("{tag}:run"), format!("{tag}:end:{id}"));
    let words: &[&str] = match how {
        "short" => &["SET", key, "something else"],
        "empty" => &["SET", key, ""],
        "order" => &["SETRANGE", key, "0", "x"],
        // Lua takes this for a number, and this node does not.
        "attempts" => &["SETRANGE", key, "31", "nan"],
        "head" => &["SETRANGE", key, "51", "["],
        "route" => &["SETRANGE", key, "60", "@"],
        "other" => &["SADD", key, "a set"],
        "lease" => &["HSET", &run, id, "x"],
        "end" => &["SET", &end, "x"],
        other => panic!("{other}"),
    };
    if how == "other" {
        say(server, &["DEL", key]).await;
    }
    say(server, words).await;
}

async fn a_damaged_record_fails_alone(shards: u32) {
    const WAYS: [&str; 9] = [
        "short", "empty", "order", "attempts", "head", "route", "other", "lease", "end",
    ];
    const SOUND: usize = 5;
    let server = Server::start(Kind::Redis).await;
    let (queue, health) = open(&server, shards).await;
    let mut ids = Vec::new();
    for task_type in ["runs", "waits"] {
        let mut of_type: Vec<_> = WAYS.map(|how| format!("{task_type}-{how}")).into();
        of_type.extend((0..SOUND).map(|number| format!("{task_type}-sound-{number}")));
        let batch = of_type.iter().map(|id| task(id, task_type, b"x")).collect();
        queue.submit(batch).await.unwrap();
        ids.extend(of_type);
    }
    let (damaged, sound): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| !id.contains("sound"));
    let runs = queue
        .lease(&request(&[("runs", 99)], 99, HOUR))
        .await
        .unwrap();
    for id in &damaged {
        let key = key_of(&server, shards, id).await;
        damage(&server, &key, id.split_once('-').unwrap().1).await;
    }
    let mut applied = BTreeSet::new();
    finish_all(&queue, &runs, &mut applied).await;
    let waits = queue
        .lease(&request(&[("waits", 99)], 99, HOUR))
        .await
        .unwrap();
    let leased: HashSet<_> = waits
        .iter()
        .map(|leased| leased.token.id.as_str())
        .collect();
    let all = sound.iter().filter(|id| id.starts_with("waits"));
    assert_eq!(all.filter(|id| leased.contains(id.as_str())).count(), SOUND);
    finish_all(&queue, &waits, &mut applied).await;
    queue.expired(HOUR, &[], 99).await.unwrap();
    for id in &damaged {
        queue.get(&name(id)).await.unwrap();
    }
    queue.cancel(&name("waits-route")).await.unwrap();

    let page = Page {
        size: 99,
        after: None,
    };
    let list = async || queue.list(&Default::default(), &page).await.unwrap().tasks;
    until("every task has ended", async || {
        let all = list().await;
        all.iter().all(|task| task.state.kind().is_terminal())
            && all.len() == damaged.len() + sound.len()
    })
    .await;
    // The result of an attempt that ran on what was leased counts. Whichever way a task is read, it has the same
    // state.
    let (other, _) = open(&server, shards).await;
    let mut ended = BTreeMap::new();
    for task in list().await {
        let (id, kind) = (task.id.as_str(), task.state.kind());
        for queue in [&queue, &other] {
            let known = queue.get(&task.id).await.unwrap().unwrap();
            assert_eq!(known.state.kind(), kind, "{id}");
            match known.state {
                State::Completed { result, .. } => {
                    assert!(applied.contains(id), "{id}");
                    assert_eq!((known.error_class, &result[..]), (None, &b"x"[..]), "{id}");
                }
                State::Failed { .. } => {
                    assert!(!applied.contains(id), "{id}");
                    assert_eq!(known.error_class, Some(ErrorClass::Corrupt), "{id}");
                    assert!(known.error.unwrap().contains("damaged"), "{id}");
                }
                other => panic!("{id}: {other:?}"),
            }
        }
        *ended.entry((task.task_type, kind)).or_insert(0) += 1;
    }
    assert!(sound.iter().all(|id| applied.contains(id)), "{applied:?}");
    // Of the damaged tasks that run, those whose lease is sound end.
    let runs = damaged.iter().filter(|id| id.starts_with("runs"));
    let ends: Vec<_> = runs.filter(|id| applied.contains(*id)).collect();
    assert_eq!(ends.len(), WAYS.len() - 1, "{ends:?}");
    until("counts agree", async || {
        queue.counts().await.unwrap() == ended
    })
    .await;
    other.close().await;
    until("health shows it", async || has(&health, "corrupt")).await;
    // A task without a head cannot be requeued.
    let refused = queue.requeue(&name("waits-short")).await.unwrap();
    assert_eq!(refused, Requeue::Refused(StateKind::Failed));
    until("all are purged and counted", async || {
        queue
            .purge(&Retention::of(Duration::ZERO), usize::MAX)
            .await
            .unwrap();
        list().await.is_empty() && queue.counts().await.unwrap().is_empty()
    })
    .await;
    queue.close().await;
}

/// A task whose route is damaged stays in its backlog when it fails.
async fn a_damaged_task_ends_once() {
    let server = Server::start(Kind::Redis).await;
    let (queue, _) = open(&server, 1).await;
    let batch = ["t", "sound"].map(|id| task(id, "echo", b"x"));
    queue.submit(batch.into()).await.unwrap();
    damage(&server, "{test:0}:task:t", "route").await;
    queue.cancel(&name("t")).await.unwrap();
    let leased = queue
        .lease(&request(&[("echo", 9)], 9, HOUR))
        .await
        .unwrap();
    assert_eq!(leased.len(), 1);
    let ends = say(&server, &["LRANGE", "{test:0}:purge:f:unknown", "0", "-1"]).await;
    let ends: Vec<String> = redis::FromRedisValue::from_redis_value(ends).unwrap();
    assert!(ends.len() == 1 && ends[0].ends_with(" t"), "{ends:?}");
    queue.close().await;
}

async fn a_failing_shard_affects_only_its_tasks() {
    const TASKS: usize = 60;
    let server = Server::start(Kind::Redis).await;
    let (queue, health) = open(&server, 3).await;
    let batch = |what: &str| {
        let ids = (0..TASKS).map(|number| format!("{what}{number}"));
        ids.map(|id| task(&id, "echo", b"x")).collect::<Vec<_>>()
    };
    queue.submit(batch("a")).await.unwrap();
    let leased = queue
        .lease(&request(&[("echo", TASKS)], TASKS, HOUR))
        .await
        .unwrap();
    assert_eq!(leased.len(), TASKS);
    let mut failing = HashSet::new();
    for leased in &leased {
        let id = leased.token.id.as_str();
        if key_of(&server, 3, id).await.starts_with("{test:1}") {
            failing.insert(id.to_owned());
        }
    }
    assert!(!failing.is_empty() && failing.len() < TASKS);
    say(&server, &["SET", "{test:1}:leases:echo", "no set"]).await;
    let tokens = leased.iter().map(|leased| leased.token.clone().into());
    let tokens: Vec<Renew> = tokens.collect();
    let renewed = queue.renew(&tokens, HOUR).await.unwrap();
    let finished = queue.finish(completed(&leased, b"x")).await.unwrap();
    for ((leased, renewed), finished) in leased.iter().zip(renewed).zip(finished) {
        let expected = if failing.contains(leased.token.id.as_str()) {
            (Renewal::Unconfirmed, Finished::Unconfirmed)
        } else {
            (Renewal::Held, Finished::Applied)
        };
        assert_eq!((renewed, finished), expected);
    }
    // The other shards work, in whichever order they are called.
    queue.submit(batch("b")).await.unwrap();
    let all = request(&[("echo", TASKS)], TASKS, HOUR);
    assert!(queue.next_due(&all).await.unwrap().is_some());
    let mut more = 0;
    for _ in 0..3 {
        more += queue.lease(&all).await.unwrap().len();
    }
    assert!(more > TASKS / 3, "{more}");
    queue.expired(HOUR, &[], 9).await.unwrap();
    queue.purge(&Retention::of(HOUR), 9).await.unwrap();
    until("health shows it", async || has(&health, "shard")).await;
    // Unconfirmed outcomes are repeated once the shard works.
    say(&server, &["DEL", "{test:1}:leases:echo"]).await;
    let again = leased
        .iter()
        .filter(|it| failing.contains(it.token.id.as_str()));
    let again: Vec<_> = again.cloned().collect();
    let finished = queue.finish(completed(&again, b"x")).await.unwrap();
    assert!(finished.iter().all(|it| *it == Finished::Applied));
    until("the fault is over", async || !has(&health, "shard")).await;
    queue.close().await;
}

/// Waits until a watch of one queue gets a change that another one has made.
async fn sees_changes(watching: &RedisQueue, changing: &RedisQueue) {
    let mut watch = watching.watch();
    until("the other queue sees the task", async || {
        let id = format!("t{}", fastrand::u64(..));
        changing
            .submit(vec![task(&id, "echo", b"x")])
            .await
            .unwrap();
        let change = async {
            loop {
                match watch.next().await {
                    Some(Changes::Batch(changes)) if changes.iter().any(|c| c.id == name(&id)) => {
                        return;
                    }
                    _ => {}
                }
            }
        };
        let change = tokio::time::timeout(Duration::from_millis(500), change).await;
        change.is_ok()
    })
    .await;
}

async fn an_event_that_cannot_be_read_is_skipped() {
    let server = Server::start(Kind::Redis).await;
    let ((here, _), (there, health)) = (open(&server, 1).await, open(&server, 1).await);
    sees_changes(&there, &here).await;
    let add = "return redis.call('XADD', KEYS[1], '*', 'from', '\\255', 'events', '\\255')";
    say(&server, &["EVAL", add, "1", "{test:0}:events"]).await;
    sees_changes(&there, &here).await;
    assert!(!has(&health, "events"));
    here.close().await;
    there.close().await;
}

async fn a_node_that_may_not_read_events_says_so() {
    let server = Server::start(Kind::Redis).await;
    let ((here, _), (there, health)) = (open(&server, 1).await, open(&server, 1).await);
    sees_changes(&there, &here).await;
    say(&server, &["ACL", "SETUSER", "default", "-xread"]).await;
    until("health shows it", async || has(&health, "events")).await;
    let fault = health.faults().remove(&(Part::Queue, "events")).unwrap();
    assert_eq!(fault.severity, Severity::Degraded);
    assert!(fault.reason.contains("its ACL allows XREAD"), "{fault:?}");
    say(&server, &["ACL", "SETUSER", "default", "+xread"]).await;
    until("the fault is over", async || !has(&health, "events")).await;
    sees_changes(&there, &here).await;
    here.close().await;
    there.close().await;
}

async fn a_redis_that_lost_its_data_is_reported(shards: u32) {
    let server = Server::start(Kind::Redis).await;
    let (here, its_health) = open(&server, shards).await;
    let (there, other_health) = open(&server, shards).await;
    here.submit(vec![task("gone", "echo", b"x")]).await.unwrap();
    // A stream whose last id is far ahead in time, so later events would have earlier ids.
    for shard in 0..shards {
        let stream = format!("{{test:{shard}}}:events");
        let far = [
            "XADD",
            &stream,
            "99999999999999-0",
            "from",
            "x",
            "p",
            "echo y",
        ];
        say(&server, &far).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!has(&its_health, "lost-data") && !has(&other_health, "lost-data"));
    say(&server, &["FLUSHALL"]).await;
    until("both nodes report it", async || {
        has(&its_health, "lost-data") && has(&other_health, "lost-data")
    })
    .await;
    assert!(here.get(&name("gone")).await.unwrap().is_none());
    // Watches at the other queue still get changes.
    sees_changes(&there, &here).await;
    // The new store has the settings of the queue again.
    let other = config::RedisQueue {
        shards: shards + 1,
        ..settings(&server)
    };
    let refused = RedisQueue::open(&other).await.err().unwrap();
    assert!(refused.to_string().contains("queue.shards"), "{refused}");
    here.close().await;
    there.close().await;
}

/// The answer to the first call may have been lost.
async fn a_queue_may_repeat_an_outcome() {
    let server = Server::start(Kind::Redis).await;
    let (here, _) = open(&server, 1).await;
    let (there, _) = open(&server, 1).await;
    let ids = ["ends", "empty", "again", "late"];
    let batch = ids.map(|id| task(id, "echo", b"x"));
    here.submit(batch.into()).await.unwrap();
    let leased = here.lease(&request(&[("echo", 4)], 4, HOUR)).await.unwrap();
    let token = |id: &str| {
        let leased = leased.iter().find(|it| it.token.id == name(id));
        leased.unwrap().token.clone()
    };
    let result = || Outcome::Completed { result: "x".into() };
    let retry = || Outcome::Retry {
        after: Duration::ZERO,
        error: "no".into(),
    };
    assert_eq!(
        finish_one(&here, &token("ends"), result()).await,
        Finished::Applied
    );
    let ended = here.get(&name("ends")).await.unwrap();
    let mut watch = here.watch();
    assert_eq!(
        finish_one(&here, &token("ends"), result()).await,
        Finished::Applied
    );
    // A watch gets the change with the repeated answer.
    let change = tokio::time::timeout(Duration::from_secs(1), watch.next()).await;
    assert!(matches!(change, Ok(Some(Changes::Batch(changes))) if changes[0].id == name("ends")));
    assert_eq!(here.get(&name("ends")).await.unwrap(), ended);
    assert_eq!(
        finish_one(&there, &token("ends"), result()).await,
        Finished::Stale
    );
    // Another outcome is none, though it may leave the same as an empty result.
    let empty = || Outcome::Completed { result: "".into() };
    assert_eq!(
        finish_one(&here, &token("empty"), empty()).await,
        Finished::Applied
    );
    assert_eq!(
        finish_one(&here, &token("empty"), Outcome::Cancelled).await,
        Finished::Stale
    );
    assert_eq!(
        finish_one(&here, &token("empty"), empty()).await,
        Finished::Applied
    );
    // A retry may be repeated after the task was leased again, and does not affect that lease.
    assert_eq!(
        finish_one(&here, &token("again"), retry()).await,
        Finished::Applied
    );
    let second = there
        .lease(&request(&[("echo", 1)], 1, HOUR))
        .await
        .unwrap();
    assert_eq!(
        finish_one(&here, &token("again"), retry()).await,
        Finished::Applied
    );
    let renewed = there
        .renew(&[second[0].token.clone().into()], HOUR)
        .await
        .unwrap();
    assert_eq!(renewed, [Renewal::Held]);
    // A token of an attempt that another queue ended is stale.
    assert_eq!(
        finish_one(&there, &token("late"), retry()).await,
        Finished::Applied
    );
    assert_eq!(
        finish_one(&here, &token("late"), retry()).await,
        Finished::Stale
    );
    here.close().await;
    there.close().await;
}
