//! The SQLite queue without a node: processor time for the three steps of a task, two of which are
//! synced to disk.

use crate::{
    machine, median,
    report::{Aim, Row},
    rounds, runtime,
};
use bytes::Bytes;
use hostel::{
    config::Sqlite,
    health::Health,
    queue::{Finish, LeaseRequest, SqliteQueue, TaskQueue},
    task::{ExecutedBy, Name, Outcome, Submission, SubmissionLimits},
};
use std::{collections::BTreeMap, time::Duration};

const BATCH: usize = 128;
const BATCHES: usize = 150;

pub fn rows() -> Vec<Row> {
    let cpu = median(rounds(|_| runtime().block_on(measure())));
    let what = format!("queue alone: submit, lease and finish, {BATCH} at once, processor time");
    vec![Row::new(what, "µs/task", cpu).aim(Aim::AtMost(12.0))]
}

async fn measure() -> f64 {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = Sqlite {
        path: dir.path().join("queue.db"),
        max_open_tasks: 1_000_000,
        max_batch: 512,
        reserve_bytes: 1 << 20,
    };
    let queue = SqliteQueue::open(&settings, &Health::default())
        .await
        .expect("a queue");
    let name = |given: &str| Name::parse("name", given).expect("a name");
    let ttl = Duration::from_secs(15);
    let request = LeaseRequest::for_type(name("bench"), name("echo"), BATCH, ttl);
    let ran = ExecutedBy {
        node: name("bench"),
        plugin: name("echo"),
        plugin_version: "1.0.0".into(),
    };
    let mut spent = Duration::ZERO;
    for batch in 0..BATCHES {
        let tasks = (0..BATCH)
            .map(|index| submission(batch * BATCH + index))
            .collect();
        let begin = machine::cpu_time();
        queue.submit(tasks).await.expect("a submit");
        let leased = queue.lease(&request).await.expect("a lease");
        assert_eq!(leased.len(), BATCH);
        let ended = leased.into_iter().map(|leased| {
            Finish::new(
                leased.token,
                Outcome::Completed {
                    result: leased.payload,
                },
                Some(ran.clone()),
            )
        });
        queue.finish(ended.collect()).await.expect("a finish");
        spent += machine::cpu_time() - begin;
    }
    queue.close().await;
    spent.as_secs_f64() * 1e6 / (BATCH * BATCHES) as f64
}

fn submission(number: usize) -> Submission {
    let limits = SubmissionLimits {
        payload_bytes: 1024,
        metadata_entries: 0,
        metadata_bytes: 0,
    };
    let id = format!("bench-{number:012}");
    let payload = Bytes::from(vec![7; 256]);
    Submission::new(&id, "echo", payload, BTreeMap::new(), &limits).expect("a submission")
}
