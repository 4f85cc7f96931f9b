//! The key-value store without a node: durable writes a second, compared with one caller that syncs each
//! append.

use crate::{fsync, median, report::Row, rounds, runtime};
use hostel::{
    Config,
    config::{KeyValueBackend, SqliteKeyValue},
    health::Health,
    keyvalue::{self, Change},
    task::Name,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

const CALLERS: [usize; 3] = [1, 32, 128];
const TIME: Duration = Duration::from_secs(2);
const KEYS: usize = 100;

pub fn rows() -> Vec<Row> {
    let row = |callers| {
        // The disk is measured again each time, because its speed varies.
        let measured: Vec<(f64, f64)> = rounds(|_| {
            let syncs = 1000.0 / fsync::p50_ms(300);
            (syncs, runtime().block_on(sets_per_second(callers)))
        });
        let (syncs, ours) = measured.into_iter().unzip();
        let what = format!("key-value sets of 256 bytes, {callers} at once");
        Row::new(what, "/s", median(ours)).beside("4 KiB appended and synced", median(syncs))
    };
    CALLERS.map(row).into()
}

async fn sets_per_second(callers: usize) -> f64 {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = hostel::config::KeyValue {
        backend: KeyValueBackend::Sqlite(SqliteKeyValue {
            path: dir.path().join("kv.db"),
            reserve_bytes: 0,
        }),
        ..Config::default().keyvalue
    };
    let store = keyvalue::open(&settings, &Health::default())
        .await
        .expect("a store");
    let plugin = Name::parse("plugin", "bench").expect("a name");
    let bucket = Arc::new(store.bucket(&plugin, "bench").expect("a bucket"));
    let begin = Instant::now();
    let mut running = JoinSet::new();
    for caller in 0..callers {
        let (store, bucket) = (store.clone(), bucket.clone());
        running.spawn(async move {
            let mut count: usize = 0;
            while begin.elapsed() < TIME {
                // Never the stored value, for which SQLite would not write and sync anything.
                let mut value = vec![7; 256];
                value[..8].copy_from_slice(&count.to_le_bytes());
                let key = format!("{caller}-{}", count % KEYS);
                let set = Change::Set { key, value };
                store.apply(&bucket, vec![set]).await.expect("a set");
                count += 1;
            }
            count
        });
    }
    let sets: usize = running.join_all().await.into_iter().sum();
    let took = begin.elapsed();
    store.close().await;
    sets as f64 / took.as_secs_f64()
}
