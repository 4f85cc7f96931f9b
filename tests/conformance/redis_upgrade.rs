//! Nodes of two versions on one Redis. The older one knows format 1 of the keys: a queue opens what it has
//! stored, it refuses to open what the queue has opened, and while it still runs, it loses no task. Its part
//! is played by its scripts, which are kept in `tests/fixtures`.

use super::{
    queue::{finish_one, name, request, task, with_options},
    queue_redis::{HOUR, open, say, trial, until},
};
use crate::support::{
    self,
    servers::{Kind, Server},
};
use hostel::{
    queue::{Finish, LeaseToken, Page, Submitted, TaskQueue},
    task::{Outcome, Priority, Retention, StateKind, Submission, TaskOptions},
};
use libtest_mimic::Trial;
use redis::FromRedisValue;
use std::time::Duration;

/// How many random operations the two versions make, and on how many ids.
const STEPS: usize = 1500;
const IDS: usize = 60;

/// How many types of the older node there are.
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
            "format_1_is_upgraded_and_then_refused_by_its_own_version",
            format_1_is_upgraded_and_then_refused_by_its_own_version,
        ),
        trial(
            "an_older_node_leases_no_task_with_a_priority_or_group",
            an_older_node_leases_no_task_with_a_priority_or_group,
        ),
        trial(
            "a_node_of_the_version_before_loses_no_task",
            a_node_of_the_version_before_loses_no_task,
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
        let script = script(name);
        let keys = ["EVAL", &script, "2", "{test:0}", "{test:0}:n", "older"];
        let answer = say(self.server, &[&keys[..], arguments].concat()).await;
        T::from_redis_value(answer).unwrap()
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
        let head = [&call, "0", "node-1", "3600000", &max, "1000000", "256"];
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

async fn format(server: &Server) -> String {
    let format = say(server, &["HGET", "{test:0}:n", "format"]).await;
    String::from_redis_value(format).unwrap()
}

async fn format_1_is_upgraded_and_then_refused_by_its_own_version() {
    let server = Server::start(Kind::Redis).await;
    let older = Older::of(&server);
    // Its own check compares the first value with 1.
    let opens = async || {
        let (format, _, _): (String, u32, String) = older.run("open", &["1", "1", "store"]).await;
        format
    };
    assert_eq!(opens().await, "1");
    older.submit("t", "a").await;
    assert_eq!(format(&server).await, "1");
    let queue = open(&server).await;
    assert_eq!(format(&server).await, "2");
    assert_eq!(opens().await, "2");
    let again = queue.submit(vec![task("t", "a", b"x")]).await.unwrap();
    assert_eq!(again, [Submitted::Existing]);
    let leased = queue.lease(&request(&[("a", 9)], 9, HOUR)).await.unwrap();
    let [leased] = &leased[..] else {
        panic!("{leased:?}")
    };
    assert_eq!((leased.options.as_ref(), leased.attempt), (None, 1));
    let result = "done".into();
    finish_one(&queue, &leased.token, Outcome::Completed { result }).await;
    queue.close().await;
}

/// A task of any priority and group, or a plain one.
fn any_task(id: &str, task_type: &str, random: &mut fastrand::Rng) -> Submission {
    let options = TaskOptions {
        priority: Priority::ALL[random.usize(..3)],
        group: random.bool().then(|| name(["g1", "g2"][random.usize(..2)])),
        tags: [name("tag")].into(),
        result_ttl: (random.u8(..3) == 0).then_some(HOUR),
        ..TaskOptions::default()
    };
    let plain = TaskOptions::default();
    with_options(id, task_type, if random.bool() { options } else { plain })
}

async fn an_older_node_leases_no_task_with_a_priority_or_group() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    let mut older = Older::of(&server);
    let options = |priority, group: Option<&str>| TaskOptions {
        priority,
        group: group.map(name),
        ..TaskOptions::default()
    };
    let tasks = vec![
        with_options("high", "a", options(Priority::High, None)),
        with_options("low", "a", options(Priority::Low, Some("g"))),
        with_options("grouped", "a", options(Priority::Normal, Some("g"))),
        task("plain", "a", b"x"),
    ];
    queue.submit(tasks).await.unwrap();
    let leased = older.lease(9).await;
    let ids: Vec<&str> = leased.iter().map(|(id, _)| &**id).collect();
    assert_eq!(ids, ["plain"]);
    // It cancels and requeues them, and does not hide them by that.
    for id in ["high", "low", "grouped"] {
        let _: Vec<String> = older.run("cancel", &[id]).await;
        let _: Vec<String> = older.run("requeue", &[id]).await;
    }
    let mut ids = Vec::new();
    until("they are leased", async || {
        let all = request(&[("a", 9)], 9, HOUR);
        for leased in queue.lease(&all).await.unwrap() {
            ids.push(leased.token.id.to_string());
        }
        ids.len() == 3
    })
    .await;
    ids.sort_unstable();
    assert_eq!(ids, ["grouped", "high", "low"]);
    queue.close().await;
}

/// Both versions do anything, then the older node is gone: each task ends, and only once.
async fn a_node_of_the_version_before_loses_no_task() {
    let server = Server::start(Kind::Redis).await;
    let queue = open(&server).await;
    let mut older = Older::of(&server);
    let mut random = support::random("two versions");
    let (mut held, mut held_by_older) = (Vec::new(), Vec::new());
    for _ in 0..STEPS {
        let id = format!("t{}", random.usize(..IDS));
        let task_type = TYPES[random.usize(..TYPES.len())];
        let is_older = random.bool();
        match random.u8(..10) {
            0..3 if is_older => older.submit(&id, task_type).await,
            0..3 => {
                let task = any_task(&id, task_type, &mut random);
                queue.submit(vec![task]).await.unwrap();
            }
            3..5 if is_older => held_by_older.extend(older.lease(3).await),
            3..5 => {
                let leased = queue.lease(&all_types(3)).await.unwrap();
                held.extend(leased.into_iter().map(|leased| leased.token));
            }
            5 if is_older => {
                if let Some(token) = held_by_older.pop() {
                    let outcome = ["c", "p", "f", "x", "b", "l"][random.usize(..6)];
                    older.finish(&token, outcome).await;
                }
            }
            5 => {
                if let Some(token) = held.pop() {
                    let outcome = match random.u8(..3) {
                        0 => Outcome::Completed { result: "x".into() },
                        1 => Outcome::Released,
                        _ => Outcome::Lost {
                            after: Duration::ZERO,
                            error: "why".into(),
                        },
                    };
                    finish_one(&queue, &token, outcome).await;
                }
            }
            6 if is_older => drop(older.run::<Vec<String>>("cancel", &[&id]).await),
            6 => drop(queue.cancel(&name(&id)).await.unwrap()),
            7 if is_older => drop(older.run::<Vec<String>>("requeue", &[&id]).await),
            7 => drop(queue.requeue(&name(&id)).await.unwrap()),
            8 if is_older => drop(older.run::<redis::Value>("reconcile", &["20"]).await),
            8 => drop(
                queue
                    .purge(&Retention::of(Duration::ZERO), 3)
                    .await
                    .unwrap(),
            ),
            _ if is_older => drop(older.run::<u64>("purge", &["3600000", "3"]).await),
            _ => drop(queue.expired(HOUR, &[], 9).await.unwrap()),
        }
    }
    let page = Page {
        size: 2 * IDS,
        after: None,
    };
    for (id, fence) in held_by_older {
        let id = name(&id);
        let fence = fence.parse().unwrap();
        held.push(LeaseToken { id, fence });
    }
    let released = held.into_iter().map(Finish::released);
    queue.finish(released.collect()).await.unwrap();
    let list = async || queue.list(&Default::default(), &page).await.unwrap().tasks;
    let known: Vec<_> = list().await.into_iter().map(|task| task.id).collect();
    until("every task has ended", async || {
        for leased in queue.lease(&all_types(9)).await.unwrap() {
            let result = "x".into();
            finish_one(&queue, &leased.token, Outcome::Completed { result }).await;
        }
        let all = list().await;
        all.iter().all(|task| task.state.kind().is_terminal())
    })
    .await;
    let ended = list().await;
    assert!(ended.iter().map(|task| &task.id).eq(&known));
    let once = ended.iter().all(|task| task.finishes == 1);
    assert!(once && !ended.is_empty(), "{ended:?}");
    let completed = |task_type: &str| {
        let of_type = ended.iter().filter(|task| {
            task.task_type.as_str() == task_type && task.state.kind() == StateKind::Completed
        });
        of_type.count() as u64
    };
    until("the counters are right", async || {
        let counts = queue.counts().await.unwrap();
        TYPES.iter().all(|task_type| {
            let count = counts.get(&(name(task_type), StateKind::Completed));
            count.copied().unwrap_or(0) == completed(task_type)
        })
    })
    .await;
    queue.close().await;
}

fn all_types(max: usize) -> hostel::queue::LeaseRequest {
    request(&TYPES.map(|task_type| (task_type, 99)), max, HOUR)
}
