//! A Redis with the keys of format 1: the first node that knows format 2 migrates what is stored, and a node
//! that knows format 1 alone can neither open it nor go on. Its part is played by its scripts, which are kept
//! in `tests/fixtures`.

use super::{
    queue::{finish_one, name, request, task},
    queue_redis::{HOUR, open, say, settings, trial, until},
};
use crate::support::{
    self,
    servers::{Kind, Server},
};
use hostel::{
    queue::{Page, RedisQueue, Submitted, TaskQueue},
    task::{Outcome, Retention, State, StateKind, Task},
};
use libtest_mimic::Trial;
use redis::FromRedisValue;
use std::{collections::BTreeMap, time::Duration};

/// How many random operations the older node makes, and on how many ids.
const STEPS: usize = 1500;
const IDS: usize = 60;

/// The types of the older node.
const TYPES: [&str; 2] = ["a", "b"];

macro_rules! scripts_of_format_1 {
    ($($name:ident)*) => {
        /// Returns a script of the older node.
        fn script(name: &str) -> String {
            let common = include_str!("../fixtures/v1/redis-scripts/common.lua");
            let own = match name {
                $(stringify!($name) => {
                    include_str!(concat!("../fixtures/v1/redis-scripts/", stringify!($name), ".lua"))
                })*
                other => panic!("no script {other}"),
            };
            format!("{common}{own}")
        }
    };
}

scripts_of_format_1!(open submit register_types lease finish expired cancel requeue purge reconcile);

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "format_1_is_migrated_and_refuses_its_own_version",
            format_1_is_migrated_and_refuses_its_own_version,
        ),
        trial(
            "every_task_of_format_1_is_migrated_and_ends_once",
            every_task_of_format_1_is_migrated_and_ends_once,
        ),
        trial(
            "an_interrupted_migration_is_continued",
            an_interrupted_migration_is_continued,
        ),
    ]
}

/// A node of the version before.
struct Older<'s> {
    server: &'s Server,
    /// The number of its last lease call.
    calls: u64,
}

impl<'s> Older<'s> {
    fn of(server: &'s Server) -> Self {
        Self { server, calls: 0 }
    }

    async fn run<T: FromRedisValue>(&self, name: &str, arguments: &[&str]) -> T {
        T::from_redis_value(self.try_run(name, arguments).await.unwrap()).unwrap()
    }

    async fn try_run(&self, name: &str, arguments: &[&str]) -> redis::RedisResult<redis::Value> {
        let script = script(name);
        let keys = ["EVAL", &script, "2", "{test:0}", "{test:0}:n", "older"];
        self.server.command(&[&keys[..], arguments].concat()).await
    }

    async fn submit(&self, id: &str, task_type: &str) {
        let head = format!("{{\"lane\":\"{task_type}\"}}");
        let limits = ["3000", "10", "0"];
        let task = [id, task_type, &head, "x"];
        let _: String = self.run("submit", &[&limits[..], &task].concat()).await;
    }

    /// Leases tasks of any type, and returns the id and the fencing token of each.
    async fn lease(&mut self, max: usize) -> Vec<(String, String)> {
        let targets = ["3", "", "@node:node-1", "@label:gpu"];
        let limits = ["99", "-1", "0", "0"];
        let types = TYPES.map(|task_type| [&[task_type], &limits[..]].concat());
        let register = [&["1"], &targets[..], &types.concat()].concat();
        let _: () = self.run("register_types", &register).await;
        self.calls += 1;
        let (call, max) = (self.calls.to_string(), max.to_string());
        let head = [&call, "0", "node-1", "1", &max, "1000000", "256"];
        let request = ["1", "", "1000000000", "1000", "1"];
        let arguments = [&head[..], &request, &targets].concat();
        let (_, _, _, rows): (u64, u8, u8, Vec<redis::Value>) = self.run("lease", &arguments).await;
        let text = |value: &redis::Value| String::from_redis_value(value.clone()).unwrap();
        let rows = rows.chunks(9);
        rows.map(|row| (text(&row[0]), text(&row[1]))).collect()
    }

    async fn finish(&self, (id, fence): &(String, String), outcome: &str) {
        let arguments = [id, fence, outcome, "0", "why", ""];
        let _: redis::Value = self.run("finish", &arguments).await;
    }
}

/// Makes random operations of the older node.
async fn do_anything(older: &mut Older<'_>) {
    let mut random = support::random("the version before");
    let mut held = Vec::new();
    for _ in 0..STEPS {
        let id = format!("t{}", random.usize(..IDS));
        match random.u8(..10) {
            0..3 => older.submit(&id, TYPES[random.usize(..TYPES.len())]).await,
            3..5 => held.extend(older.lease(3).await),
            5..7 => {
                if !held.is_empty() {
                    let token = held.swap_remove(random.usize(..held.len()));
                    let outcome = ["c", "p", "f", "x", "b", "l"][random.usize(..6)];
                    older.finish(&token, outcome).await;
                }
            }
            7 => drop(older.run::<Vec<String>>("cancel", &[&id]).await),
            8 => drop(older.run::<Vec<String>>("requeue", &[&id]).await),
            _ => drop(older.run::<u64>("purge", &["3600000", "3"]).await),
        }
    }
}

/// Returns the fields of a task of format 1: state, attempt, error, number of losses and result.
async fn stored(server: &Server, id: &str) -> [Option<String>; 5] {
    let key = format!("{{test:0}}:t:{id}");
    let fields = say(server, &["HMGET", &key, "s", "a", "e", "v", "r"]).await;
    FromRedisValue::from_redis_value(fields).unwrap()
}

/// Returns the tasks of format 1, newest first.
async fn all_stored(server: &Server) -> Vec<(String, [Option<String>; 5])> {
    let ids = say(server, &["ZRANGE", "{test:0}:all", "0", "-1", "REV"]).await;
    let ids: Vec<String> = FromRedisValue::from_redis_value(ids).unwrap();
    let mut all = Vec::new();
    for id in ids {
        let fields = stored(server, &id).await;
        all.push((id, fields));
    }
    all
}

async fn list(queue: &RedisQueue) -> Vec<Task> {
    let page = Page {
        size: 2 * IDS,
        after: None,
    };
    queue.list(&Default::default(), &page).await.unwrap().tasks
}

/// Asserts that the queue has these tasks of format 1 as they were.
async fn assert_migrated(queue: &RedisQueue, before: &[(String, [Option<String>; 5])]) {
    let listed = list(queue).await;
    let ids: Vec<_> = listed.iter().map(|task| task.id.as_str()).collect();
    let expected: Vec<_> = before.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, expected);
    for (id, [state, attempt, error, losses, result]) in before {
        let task = queue.get(&name(id)).await.unwrap().unwrap();
        let letter = match task.state.kind() {
            StateKind::Pending => "p",
            StateKind::Running => "r",
            StateKind::Completed => "c",
            StateKind::Failed => "f",
            StateKind::Cancelled => "x",
        };
        assert_eq!(state.as_deref(), Some(letter), "{task:?}");
        assert_eq!(
            attempt.as_deref(),
            Some(&*task.attempt.to_string()),
            "{task:?}"
        );
        assert_eq!(error.as_deref(), task.error.as_deref(), "{task:?}");
        let losses = losses.as_deref().unwrap_or("0");
        assert_eq!(losses, task.losses.to_string(), "{task:?}");
        assert_eq!(task.payload, "x");
        assert_eq!(task.finishes, u32::from(task.state.kind().is_terminal()));
        if let State::Completed { result: its, .. } = &task.state {
            assert_eq!(result.as_deref().unwrap_or("").as_bytes(), its);
        }
    }
}

async fn format_1_is_migrated_and_refuses_its_own_version() {
    let server = Server::start(Kind::Redis).await;
    let mut older = Older::of(&server);
    let (format, _, _): (String, u32, String) = older.run("open", &["1", "1", "store"]).await;
    assert_eq!(format, "1");
    older.submit("t", "a").await;
    older.submit("u", "a").await;
    let held = older.lease(1).await;
    // A node with other settings is refused, and changes nothing.
    let other = hostel::config::RedisQueue {
        shards: 2,
        ..settings(&server)
    };
    assert!(RedisQueue::open(&other).await.is_err());
    older.finish(&held[0], "b").await;
    let queue = open(&server).await;
    // From now on no script of the older node works, and its health says so.
    for (script, arguments) in [
        ("open", vec!["1", "1", "store"]),
        ("cancel", vec!["t"]),
        ("requeue", vec!["t"]),
        ("purge", vec!["0", "9"]),
    ] {
        let refused = older.try_run(script, &arguments).await;
        assert!(refused.is_err(), "{script}: {refused:?}");
    }
    let again = queue.submit(vec![task("t", "a", b"x")]).await.unwrap();
    assert_eq!(again, [Submitted::Existing]);
    let leased = queue.lease(&request(&[("a", 9)], 9, HOUR)).await.unwrap();
    assert_eq!(leased.len(), 2);
    for leased in &leased {
        assert_eq!((leased.options.as_ref(), leased.attempt), (None, 1));
        let result = "done".into();
        finish_one(&queue, &leased.token, Outcome::Completed { result }).await;
    }
    queue.close().await;
}

async fn every_task_of_format_1_is_migrated_and_ends_once() {
    let server = Server::start(Kind::Redis).await;
    let mut older = Older::of(&server);
    do_anything(&mut older).await;
    let before = all_stored(&server).await;
    assert!(!before.is_empty());
    let queue = open(&server).await;
    assert_migrated(&queue, &before).await;
    let known: Vec<_> = list(&queue).await.into_iter().map(|task| task.id).collect();
    until("every task has ended", async || {
        for lost in queue.expired(Duration::ZERO, &[], 99).await.unwrap() {
            let (after, error) = (Duration::ZERO, "lost".into());
            finish_one(&queue, &lost.token, Outcome::Lost { after, error }).await;
        }
        let all = TYPES.map(|task_type| (task_type, 99));
        for leased in queue.lease(&request(&all, 9, HOUR)).await.unwrap() {
            let result = "x".into();
            finish_one(&queue, &leased.token, Outcome::Completed { result }).await;
        }
        let all = list(&queue).await;
        all.iter().all(|task| task.state.kind().is_terminal())
    })
    .await;
    let ended = list(&queue).await;
    assert!(ended.iter().map(|task| &task.id).eq(&known));
    let mut expected = BTreeMap::new();
    for task in &ended {
        let key = (task.task_type.clone(), task.state.kind());
        *expected.entry(key).or_insert(0) += 1;
    }
    assert_eq!(queue.counts().await.unwrap(), expected);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let purged = queue
        .purge(&Retention::of(Duration::ZERO), 2 * IDS)
        .await
        .unwrap();
    assert_eq!(purged, ended.len());
    queue.close().await;
}

/// A node died while it migrated.
async fn an_interrupted_migration_is_continued() {
    let server = Server::start(Kind::Redis).await;
    let mut older = Older::of(&server);
    do_anything(&mut older).await;
    let before = all_stored(&server).await;
    let migrate = concat!(
        include_str!("../../host/queue/redis/scripts/shared/base.lua"),
        include_str!("../../host/queue/redis/scripts/shared/library.lua"),
        include_str!("../../host/queue/redis/scripts/migrate.lua"),
    );
    let keys = [
        "EVAL",
        migrate,
        "2",
        "{test:0}",
        "{test:0}:shard",
        "queue",
        "7",
    ];
    let left = say(&server, &keys).await;
    assert!(matches!(left, redis::Value::Int(1..)), "{left:?}");
    let queue = open(&server).await;
    assert_migrated(&queue, &before).await;
    queue.close().await;
}
