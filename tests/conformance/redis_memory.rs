//! A Redis whose memory is full refuses only submissions.

use super::{
    queue::{name, request, task},
    queue_redis::{HOUR, say, trial, until},
    redis_faults::{completed, has, open},
};
use crate::support::servers::{Kind, Server};
use hostel::{
    queue::{Cancel, Error, Finished, Page, Renew, Renewal, Requeue, Submitted, TaskQueue},
    task::Retention,
};
use libtest_mimic::Trial;
use std::time::Duration;

pub fn trials() -> Vec<Trial> {
    let case = "a_full_memory_refuses_submissions_only";
    vec![
        trial(case, || a_full_memory_refuses_submissions_only(1)),
        trial(&format!("{case}_in_three_shards"), || {
            a_full_memory_refuses_submissions_only(3)
        }),
    ]
}

/// Returns the memory that counts against maxmemory, without the buffers of the append-only file.
async fn used_memory(server: &Server) -> u64 {
    let info = say(server, &["INFO", "memory"]).await;
    let info: String = redis::FromRedisValue::from_redis_value(info).unwrap();
    let number = |name: &str| -> u64 {
        let value = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
        info.lines().find_map(value).unwrap()
    };
    number("used_memory:") - number("mem_not_counted_for_evict:")
}

async fn a_full_memory_refuses_submissions_only(shards: u32) {
    static PAYLOAD: [u8; 20_000] = [7; 20_000];
    let server = Server::start(Kind::Redis).await;
    let (queue, health) = open(&server, shards).await;
    let limit = async |bytes: u64| {
        let bytes = bytes.to_string();
        say(&server, &["CONFIG", "SET", "maxmemory", &bytes]).await;
    };
    let most = used_memory(&server).await + (12 << 20);
    limit(most).await;
    let submit = async |number: usize| {
        let task = task(&format!("t{number}"), "echo", &PAYLOAD);
        let answers = queue.submit(vec![task]).await;
        answers.map(|mut answers| answers.remove(0))
    };
    let mut accepted = 0;
    let reason = loop {
        match submit(accepted).await {
            Ok(answer) => assert_eq!(answer, Submitted::Created),
            Err(Error::Full { reason }) => break reason,
            Err(other) => panic!("{other:?}"),
        }
        accepted += 1;
    };
    assert!(
        accepted > 100 && reason.contains("queue.reserve_percent"),
        "{reason}"
    );
    let used = used_memory(&server).await;
    assert!(used < most * 95 / 100, "the reserve is left free: {used}");
    assert_eq!(submit(0).await.unwrap(), Submitted::Existing);
    until("health shows it", async || has(&health, "full")).await;

    // Far beyond the limit of Redis everything else continues, and a queue can be opened.
    limit(1).await;
    assert!(matches!(submit(accepted).await, Err(Error::Full { .. })));
    assert_eq!(submit(0).await.unwrap(), Submitted::Existing);
    let (other, _) = open(&server, shards).await;
    let id = name("t0");
    assert_eq!(other.cancel(&id).await.unwrap(), Cancel::Cancelled);
    assert_eq!(other.requeue(&id).await.unwrap(), Requeue::Requeued);
    let mut ended = 0;
    while ended < accepted {
        let all = request(&[("echo", accepted)], accepted, HOUR);
        let leased = other.lease(&all).await.unwrap();
        let tokens = leased.iter().map(|leased| leased.token.clone().into());
        let tokens: Vec<Renew> = tokens.collect();
        let renewed = other.renew(&tokens, HOUR).await.unwrap();
        assert!(renewed.iter().all(|it| *it == Renewal::Held));
        let finished = other.finish(completed(&leased, &[1; 1000])).await.unwrap();
        assert!(finished.iter().all(|it| *it == Finished::Applied));
        assert!(!leased.is_empty(), "{ended} of {accepted}");
        ended += leased.len();
    }
    assert!(other.expired(HOUR, &[], 9).await.unwrap().is_empty());
    let page = Page {
        size: 9,
        after: None,
    };
    let listed = other.list(&Default::default(), &page).await.unwrap();
    assert_eq!(listed.tasks.len(), 9);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let gone = other
        .purge(&Retention::of(Duration::ZERO), usize::MAX)
        .await
        .unwrap();
    assert_eq!(gone, accepted);

    limit(most).await;
    until("there is room again", async || {
        submit(accepted + 1).await.is_ok()
    })
    .await;
    until("the fault is over", async || !has(&health, "full")).await;
    other.close().await;
    queue.close().await;
}
