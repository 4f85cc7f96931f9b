//! The fuzz target of the scripts' arguments: a few calls with arguments as hostile as a caller of the queue
//! can make them, against a Redis. Every call has an answer, and the reconciliation finds nothing to repair.
//! Some inputs damage records as well, as another program under the same prefix would: then the reconciliation has
//! to come to an end, and a damaged record may cost no other task its answer.
//!
//! `fuzz/fuzz_targets/script_arguments.rs` includes this file. `inputs` has the arguments.

// A path, since a file that is included looks for its modules elsewhere.
#[path = "redis_arguments/inputs.rs"]
mod inputs;

use crate::support::servers::{Kind, Server};
use hostel::{
    config,
    queue::{
        Error, Filter, Finish, Finished, LeaseToken, Page, RedisQueue, Renew, Renewal, Submitted,
        TaskQueue,
    },
    task::{ErrorClass, ExecutedBy, Name, Progress, Retention, StateKind, Submission},
};
use hostel_fuzz::{Choices, Target as FuzzTarget};
use inputs::{action, count, name, outcome, request, submission, text, time};
use std::sync::LazyLock;
use tokio::runtime::Runtime;

pub const SCRIPT_ARGUMENTS: FuzzTarget = FuzzTarget {
    name: "script_arguments",
    seeds: Vec::new,
    check,
};

/// The script itself, since its own turn comes after seconds.
const RECONCILE: &str = concat!(
    include_str!("../../host/queue/redis/scripts/shared/base.lua"),
    include_str!("../../host/queue/redis/scripts/shared/library.lua"),
    include_str!("../../host/queue/redis/scripts/reconcile.lua"),
);

/// How many calls of the script come by all tasks and all sets, at least.
const RECONCILE_CALLS: usize = 8;

/// How many calls one input makes, at most.
const STEPS: usize = 24;

/// What is stored of a task, by the key of its shard and the id.
const PLACES: [&str; 3] = ["task", "end", "past"];

/// Values that a damaged place may have, and parts of them.
const VALUES: [&[u8]; 9] = [
    b"",
    b"x",
    b"nan",
    b"\n\n",
    b"3677589133910016 0000000000000 0000000000 0000 -f\n\n{\"lane\":\"echo\"}\npayload",
    b"3677589133910016 1795698346793 0000000002 0009 +a\n1 7 + b - inf\n{\"lane\":\"a@node:b\"}\n",
    b"3677589133910016 3677589133910017 a a@node:b - k",
    b"c 1795698346793 0 - a\n{\"fence\":\"1\"}\nresult",
    b"1p12345678\n{\"error\":7}\n",
];

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

thread_local! {
    // Killed when the thread ends.
    static SERVER: Server = RUNTIME.block_on(Server::start(Kind::Redis));
}

#[cfg(not(fuzzing))]
pub fn trials() -> Vec<libtest_mimic::Trial> {
    let run = || async {
        let thread = std::thread::spawn(|| SCRIPT_ARGUMENTS.run());
        thread.join().expect("no input failed");
    };
    let name = "queue::redis::fuzz_script_arguments";
    vec![crate::support::trial_needing(
        name,
        Kind::Redis.is_installed(),
        run,
    )]
}

fn check(bytes: &[u8]) {
    SERVER.with(|server| RUNTIME.block_on(check_with(server, Choices::new(bytes))));
}

async fn check_with(server: &Server, mut choices: Choices<'_>) {
    command(server, &["FLUSHALL"]).await;
    let url = server.url();
    let settings = config::RedisQueue {
        server: config::Redis::at(&url, "test").expect("a sound url"),
        shards: 1,
        max_open_tasks: *choices.one_of(&[1000, 1, 3, usize::MAX]),
        replicas: 0,
        reserve_percent: config::RedisQueue::RESERVE_PERCENT,
    };
    let queue = RedisQueue::open(&settings).await.expect("an open queue");
    let mut calls = Calls {
        server,
        queue: &queue,
        tokens: Vec::new(),
        is_damaged: false,
    };
    for _ in 0..STEPS {
        if choices.is_empty() {
            break;
        }
        calls.step(&mut choices).await;
    }
    let is_damaged = calls.is_damaged;
    let mut repaired = reconcile(server).await;
    for _ in 0..3 {
        if !is_damaged || repaired == 0 {
            break;
        }
        repaired = reconcile(server).await;
    }
    assert_eq!(repaired, 0, "the reconciliation found something to repair");
    queue.close().await;
}

async fn command(server: &Server, words: &[&str]) -> redis::Value {
    server.command(words).await.expect("an answer")
}

/// Goes through all tasks and sets, and returns how much was repaired.
async fn reconcile(server: &Server) -> u64 {
    let mut all = 0;
    for _ in 0..RECONCILE_CALLS {
        let words = [
            "EVAL",
            RECONCILE,
            "2",
            "{test:0}",
            "{test:0}:shard",
            "test",
            "100",
        ];
        let answer = command(server, &words).await;
        let (repaired, _): (u64, u64) =
            redis::FromRedisValue::from_redis_value(answer).expect("two numbers");
        all += repaired;
    }
    all
}

/// The calls of one input.
struct Calls<'s> {
    server: &'s Server,
    queue: &'s RedisQueue,
    /// What was leased so far.
    tokens: Vec<LeaseToken>,
    is_damaged: bool,
}

impl Calls<'_> {
    async fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.below(17) {
            0..4 => self.submit(choices).await,
            4..6 => self.lease(choices).await,
            6 => self.renew(choices).await,
            7..9 => self.finish(choices).await,
            9 => self.expired(choices).await,
            10..12 => {
                let action = action(choices);
                let ids = 1 + choices.below(4);
                let ids: Vec<Name> = (0..ids).map(|_| name(choices)).collect();
                let acted = self.queue.act(&action, &ids).await;
                self.answered("act", acted.map(drop));
            }
            12 => self.look(choices).await,
            13 => self.list(choices).await,
            14 => {
                let max = count(choices);
                let expired = self.queue.expire(max).await.expect("expired");
                assert!(expired <= max);
            }
            15 => {
                let (age, max) = (time(choices), count(choices));
                let purged = self
                    .queue
                    .purge(&Retention::of(age), max)
                    .await
                    .expect("a purge");
                assert!(purged <= max);
            }
            _ => self.damage(choices).await,
        }
    }

    /// A call about one task may say that its record is damaged, if it is.
    fn answered(&self, what: &str, answer: Result<(), Error>) {
        match answer {
            Ok(()) => {}
            Err(Error::Corrupt(_)) if self.is_damaged => {}
            Err(error) => panic!("{what}: {error}"),
        }
    }

    async fn submit(&self, choices: &mut Choices<'_>) {
        let tasks = (0..=choices.below(4)).map(|_| submission(choices));
        let tasks: Vec<Submission> = tasks.collect();
        let again = choices.one_of(&tasks).clone();
        let count = tasks.len();
        let submitted = self.queue.submit(tasks).await.expect("submitted");
        assert_eq!(submitted.len(), count);
        // A task that was refused for the number of open ones does not exist.
        let compared = self.queue.compare(&again).await.expect("compared");
        let exists = matches!(compared, Some(Submitted::Existing | Submitted::Conflict));
        let was_full = submitted.contains(&Submitted::Full);
        assert!(exists || (compared.is_none() && was_full), "{compared:?}");
    }

    async fn lease(&mut self, choices: &mut Choices<'_>) {
        let request = request(choices);
        let leased = self.queue.lease(&request).await.expect("leased");
        assert!(leased.len() <= request.max);
        self.tokens
            .extend(leased.into_iter().map(|leased| leased.token));
    }

    fn token(&self, choices: &mut Choices<'_>) -> LeaseToken {
        if self.tokens.is_empty() || choices.below(4) == 3 {
            let (id, fence) = (name(choices), choices.number());
            return LeaseToken { id, fence };
        }
        choices.one_of(&self.tokens).clone()
    }

    async fn renew(&self, choices: &mut Choices<'_>) {
        let held = (0..choices.below(4)).map(|_| Renew {
            token: self.token(choices),
            progress: choices.flag().then(|| {
                let (done, total) = (choices.number(), choices.number());
                Progress::new(done, total, &text(choices))
            }),
        });
        let held: Vec<Renew> = held.collect();
        let renewed = self.queue.renew(&held, time(choices)).await;
        let renewed = renewed.expect("renewed");
        assert_eq!(renewed.len(), held.len());
        assert!(!renewed.contains(&Renewal::Unconfirmed));
    }

    async fn finish(&self, choices: &mut Choices<'_>) {
        let ended = (0..choices.below(4)).map(|_| {
            Finish::new(
                self.token(choices),
                outcome(choices),
                choices.maybe(|choices| ExecutedBy {
                    node: name(choices),
                    plugin: name(choices),
                    plugin_version: text(choices).into(),
                }),
            )
        });
        let ended: Vec<Finish> = ended.collect();
        let count = ended.len();
        let finished = self.queue.finish(ended).await.expect("finished");
        assert_eq!(finished.len(), count);
        assert!(!finished.contains(&Finished::Unconfirmed));
        assert!(self.is_damaged || !finished.contains(&Finished::Corrupt));
    }

    async fn expired(&mut self, choices: &mut Choices<'_>) {
        let except = (0..choices.below(3)).map(|_| name(choices));
        let except: Vec<Name> = except.collect();
        let (ttl, max) = (time(choices), count(choices));
        let expired = self.queue.expired(ttl, &except, max).await;
        let expired = expired.expect("a look for what is lost");
        assert!(expired.len() <= max);
        assert!(expired.iter().all(|lost| !except.contains(&lost.task_type)));
        self.tokens
            .extend(expired.into_iter().map(|lost| lost.token));
    }

    async fn look(&self, choices: &mut Choices<'_>) {
        let (id, request) = (name(choices), request(choices));
        let task = self.queue.get(&id).await.expect("a look");
        let is_corrupt = task.is_some_and(|task| task.error_class == Some(ErrorClass::Corrupt));
        assert!(self.is_damaged || !is_corrupt, "{id} is damaged");
        self.queue.counts().await.expect("counts");
        self.queue.next_due(&request).await.expect("what is due");
        self.queue
            .oldest_blocked(&request)
            .await
            .expect("what is blocked");
    }

    async fn list(&self, choices: &mut Choices<'_>) {
        let filter = Filter {
            state: choices.maybe(|choices| *choices.one_of(&StateKind::ALL)),
            task_type: choices.maybe(name),
            group: choices.maybe(name),
            tag: choices.maybe(name),
            node: choices.maybe(name),
            plugin: choices.maybe(name),
            ..Filter::default()
        };
        let tokens = [
            "p1-a",
            "p18446744073709551615-a",
            "p3700000000000000-order:4711",
        ];
        let mut page = Page {
            size: count(choices),
            after: choices.maybe(|choices| choices.near_text(&tokens)),
        };
        for _ in 0..3 {
            let listing = match self.queue.list(&filter, &page).await {
                Err(Error::BadPage) if page.after.is_some() => return,
                listing => listing.expect("a page"),
            };
            assert!(listing.tasks.len() <= page.size.max(1));
            page.after = listing.next;
            if page.after.is_none() {
                return;
            }
        }
    }

    /// Spoils a part of what is stored of a task, if there is one.
    async fn damage(&mut self, choices: &mut Choices<'_>) {
        let id = name(choices);
        let exists = command(self.server, &["EXISTS", &format!("{{test:0}}:task:{id}")]).await;
        if exists == redis::Value::Int(0) {
            return;
        }
        self.is_damaged = true;
        let value = choices.near(&VALUES);
        let value = String::from_utf8_lossy(&value).into_owned();
        let key = format!("{{test:0}}:{}:{id}", choices.one_of(&PLACES));
        let at = choices.below(70).to_string();
        let words = match choices.below(5) {
            0 => vec!["HSET", "{test:0}:run", id.as_str(), &value],
            1 => vec!["HDEL", "{test:0}:run", id.as_str()],
            2 => vec!["DEL", &key],
            3 => vec!["SETRANGE", &key, &at, &value],
            _ => vec!["SET", &key, &value],
        };
        command(self.server, &words).await;
    }
}
