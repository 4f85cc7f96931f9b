//! A queue whose connection to Redis is slow: what clients read, and what its node leases, costs no lease.

use super::{
    queue::{name, request, task, task_with},
    queue_redis::{open, settings, trial},
    redis_faults::completed,
};
use crate::support::{
    proxy::Proxy,
    servers::{Kind, Server},
};
use hostel::{
    config,
    queue::{Filter, LeaseToken, Page, RedisQueue, Renew, Renewal, StatusRead, TaskQueue},
    task::State,
};
use libtest_mimic::Trial;
use std::{sync::Arc, time::Duration};
use tokio::task::JoinHandle;

/// The bytes of a second. A connection is expected to carry a quarter of a MiB.
const RATE: usize = 300_000;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("reading_costs_no_lease", reading_costs_no_lease),
        trial(
            "leases_hold_when_their_tasks_arrive",
            leases_hold_when_their_tasks_arrive,
        ),
    ]
}

/// Opens a queue behind a slow connection.
async fn open_slowly(server: &Server) -> (RedisQueue, Proxy) {
    let address = server.url();
    let proxy = Proxy::with_bandwidth(address.trim_start_matches("redis://"), RATE).await;
    let url = format!("redis://{}", proxy.address());
    let mut settings = settings(server);
    settings.server = config::Redis::at(&url, "test").unwrap();
    (RedisQueue::open(&settings).await.unwrap(), proxy)
}

/// Queries expired leases as another node does, but more often, and fails if there is one.
fn watch_leases(queue: Arc<RedisQueue>, ttl: Duration) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let expired = queue.expired(ttl, &[], 9).await.unwrap();
            assert!(expired.is_empty(), "{expired:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
}

async fn stop(watching: JoinHandle<()>) {
    watching.abort();
    let ended = watching.await.unwrap_err();
    assert!(ended.is_cancelled(), "a lease has expired");
}

async fn renew(queue: &RedisQueue, tokens: &[LeaseToken], ttl: Duration) {
    let renews: Vec<_> = tokens.iter().cloned().map(Renew::from).collect();
    let renewed = queue.renew(&renews, ttl).await.unwrap();
    assert!(renewed.iter().all(|it| *it == Renewal::Held), "{renewed:?}");
}

async fn reading_costs_no_lease() {
    const BYTES: usize = 400_000;
    const TASKS: usize = 800;
    let ttl = Duration::from_secs(2);
    let server = Server::start(Kind::Redis).await;
    let queue = Arc::new(open(&server).await);
    let ids = ["a", "b", "c"];
    let large = ids.map(|id| task(id, "large", b"x"));
    queue.submit(large.into()).await.unwrap();
    let leased = queue.lease(&request(&[("large", 3)], 3, ttl)).await;
    let finished = completed(&leased.unwrap(), &[7; BYTES]);
    queue.finish(finished).await.unwrap();
    // Their metadata alone would keep the connection busy for longer than a lease.
    let metadata = "m".repeat(1000);
    let listed = (0..TASKS).map(|n| task_with(&format!("t{n}"), "waits", b"", &[("k", &metadata)]));
    queue.submit(listed.collect()).await.unwrap();
    queue
        .submit(vec![task("held", "echo", b"x")])
        .await
        .unwrap();

    let (slow, _proxy) = open_slowly(&server).await;
    let watching = watch_leases(queue.clone(), ttl);
    let leased = slow.lease(&request(&[("echo", 1)], 1, ttl)).await.unwrap();
    let tokens = [leased[0].token.clone()];
    let page = Page {
        size: 1000,
        after: None,
    };
    let read = async {
        let (filter, [a, b, c]) = (Filter::default(), ids.map(name));
        tokio::join!(
            slow.get_status(&a, BYTES),
            slow.get_status(&b, BYTES),
            slow.get(&c),
            slow.list(&filter, &page),
        )
    };
    let renewing = async {
        loop {
            renew(&slow, &tokens, ttl).await;
            tokio::time::sleep(ttl / 3).await;
        }
    };
    let (a, b, c, listed) = tokio::select! {
        read = read => read,
        () = renewing => unreachable!(),
    };
    stop(watching).await;
    for read in [a, b] {
        let Some(StatusRead::Task(task)) = read.unwrap() else {
            panic!("it is not too large");
        };
        assert!(matches!(task.state, State::Completed { result, .. } if result.len() == BYTES));
    }
    let task = c.unwrap().unwrap();
    assert!(matches!(task.state, State::Completed { result, .. } if result.len() == BYTES));
    assert_eq!(listed.unwrap().tasks.len(), ids.len() + TASKS + 1);
    slow.close().await;
    queue.close().await;
}

async fn leases_hold_when_their_tasks_arrive() {
    const TASKS: usize = 15;
    let (ttl, short_ttl) = (Duration::from_secs(3), Duration::from_secs(1));
    let server = Server::start(Kind::Redis).await;
    let queue = Arc::new(open(&server).await);
    let (slow, _proxy) = open_slowly(&server).await;
    let many = (0..TASKS).map(|n| task(&format!("t{n}"), "many", &[7; 100_000]));
    queue.submit(many.collect()).await.unwrap();
    // Takes longer on its way than its lease lasts.
    let large = task("large", "large", &[7; 500_000]);
    queue.submit(vec![large]).await.unwrap();

    let watching = watch_leases(queue.clone(), ttl);
    let mut tokens: Vec<LeaseToken> = Vec::new();
    while tokens.len() < TASKS {
        let left = TASKS - tokens.len();
        let leased = slow.lease(&request(&[("many", left)], left, ttl)).await;
        let leased = leased.unwrap();
        assert!(!leased.is_empty());
        tokens.extend(leased.into_iter().map(|leased| leased.token));
        renew(&slow, &tokens, ttl).await;
    }
    let all = request(&[("large", 1)], 1, short_ttl);
    let leased = slow.lease(&all).await.unwrap();
    tokens.push(leased[0].token.clone());
    renew(&slow, &tokens, ttl).await;
    stop(watching).await;
    slow.close().await;
    queue.close().await;
}
