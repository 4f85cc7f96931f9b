//! The conformance suite of the store of limits over Redis, and what only Redis shows.

use super::{
    queue::{self, LimitCase, finish_one, limited, name, request, with_options},
    queue_redis::{HOUR, settings, trial},
};
use crate::support::servers::{Kind, Server};
use hostel::{
    config,
    queue::{LimitStore, Opened, PutLimits, RedisQueue, Submitted, TaskQueue},
    task::{
        GivenLimit, GivenLimits, GroupLimits, LimitScope, Limits, Outcome, PendingLimits,
        TaskOptions,
    },
};
use libtest_mimic::Trial;
use std::{collections::HashMap, sync::Arc};

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for case in queue::limit_cases() {
        for (name, shards) in [
            (format!("limits::{}", case.name()), 1),
            (format!("limits::{}_in_three_shards", case.name()), 3),
        ] {
            trials.push(trial(&name, move || on_redis(case, shards)));
        }
    }
    trials
}

/// Uses everything that limits are made of, with a task of the group g.
pub(super) async fn use_all(queue: &RedisQueue) {
    let scope = LimitScope::Type(name("echo"));
    let given = GivenLimits {
        max_pending: Some(GivenLimit::Max(9)),
        ..GivenLimits::default()
    };
    for limits in [given, GivenLimits::default()] {
        let stored = queue.limits(0).await.unwrap();
        let version = stored.map_or(0, |stored| stored.version);
        let put = queue.put_limits(&scope, &limits, version).await.unwrap();
        assert!(matches!(put, PutLimits::Stored(_)), "{put:?}");
    }
    let mut request = limited(request(&[("echo", 9)], 9, HOUR), "echo", 99);
    let each = Limits {
        max_concurrency: Some(1),
        max_cluster_concurrency: Some(1),
        max_rate: "1/s".parse().ok(),
        max_pending: None,
    };
    let named = HashMap::new();
    let types = Arc::make_mut(&mut request.types);
    let echo = types.get_mut(&name("echo")).unwrap();
    echo.max_rate = "1/s".parse().ok();
    echo.groups = Some(Arc::new(GroupLimits { each, named }));
    let pending = PendingLimits {
        of_type: Some(999),
        of_group: Some(999),
    };
    let options = TaskOptions {
        group: Some(name("g")),
        ..TaskOptions::default()
    };
    let submission = with_options("limited", "echo", options).limited(pending);
    let submitted = queue.submit(vec![submission]).await.unwrap();
    assert_eq!(submitted, [Submitted::Created]);
    queue.next_due(&request).await.unwrap();
    let leased = queue.lease(&request).await.unwrap();
    for task in leased {
        finish_one(queue, &task.token, Outcome::Cancelled).await;
    }
}

async fn on_redis(case: LimitCase, shards: u32) {
    let server = Server::start(Kind::Redis).await;
    let settings = config::RedisQueue {
        shards,
        ..settings(&server)
    };
    let open = || async { Opened::new(RedisQueue::open(&settings).await.unwrap()) };
    case.run(open).await;
}
