//! What can only be caused or seen from inside: failed commits, a full file, failing statements, and the
//! content of the tables. The contract itself is tested by the conformance suite.

use super::{SqliteKeyValue, transaction::Transaction};
use crate::{Bucket, Change, Error, KeyValue};
use hostel_config::{Config, KeyValueLimits};
use hostel_runtime::health::Health;
use hostel_sqlite::SyncLevel;
use hostel_task::Name;
use std::{convert::identity, time::Duration};
use tempfile::TempDir;

async fn open() -> (TempDir, SqliteKeyValue) {
    let dir = tempfile::tempdir().unwrap();
    let limits = KeyValueLimits {
        max_plugin_bytes: 1 << 30,
        max_value_bytes: 4 << 20,
        ..Config::default().keyvalue.limits
    };
    let store = SqliteKeyValue::open(
        &dir.path().join("kv.db"),
        1 << 20,
        &limits,
        &Health::default(),
    )
    .await
    .unwrap();
    (dir, store)
}

fn bucket(store: &SqliteKeyValue, name: &str) -> Bucket {
    let plugin = Name::parse("plugin", "p").unwrap();
    store.bucket(&plugin, name).unwrap()
}

fn set(key: &str, bytes: usize) -> Vec<Change> {
    vec![Change::Set {
        key: key.into(),
        value: vec![7; bytes],
    }]
}

async fn inject(store: &SqliteKeyValue, sql: &'static str) -> Result<(), Error> {
    let run = move |tx: &mut Transaction<'_>| Ok(tx.conn.execute_batch(sql)?);
    store.writer.execute(SyncLevel::Full, run, identity).await
}

/// Tries until the store has recovered.
async fn until_ok<T>(mut attempt: impl AsyncFnMut() -> Result<T, Error>) -> T {
    for _ in 0..100 {
        if let Ok(value) = attempt().await {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it did not recover");
}

fn number(dir: &TempDir, sql: &str) -> i64 {
    let conn = rusqlite::Connection::open(dir.path().join("kv.db")).unwrap();
    conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// The SQL of what all plugins should be charged.
const CHARGED: &str = "SELECT
    (SELECT ifnull(sum(2 * octet_length(name) + 64), 0) FROM store)
    + (SELECT ifnull(sum(2 * octet_length(key) + octet_length(value) + 64), 0) FROM entry)";

#[tokio::test]
async fn a_failed_commit_is_an_unknown_outcome_and_heals() {
    let (_dir, store) = open().await;
    let at = bucket(&store, "s");
    store.apply(&at, set("before", 1)).await.unwrap();
    // The batch's own COMMIT fails, because its transaction has ended.
    for ended_by in ["COMMIT", "ROLLBACK"] {
        let failed = inject(&store, ended_by).await.unwrap_err();
        assert!(matches!(failed, Error::Unavailable { .. }), "{failed}");
        until_ok(async || store.apply(&at, set(ended_by, 1)).await).await;
    }
    let keys = ["before", "COMMIT", "ROLLBACK"].map(String::from).to_vec();
    assert_eq!(store.exists(&at, keys).await.unwrap(), [true; 3]);
    store.close().await;
}

#[tokio::test]
async fn a_failing_or_rejected_operation_fails_alone() {
    let (dir, store) = open().await;
    let at = bucket(&store, "s");
    store.apply(&at, set("text", 3)).await.unwrap();
    // Sent at once, so that they share a transaction.
    let (first, faulty, refused, second) = tokio::join!(
        store.apply(&at, set("first", 1)),
        inject(
            &store,
            "INSERT INTO plugin VALUES (77, 'half', 0); INSERT INTO nowhere VALUES (1)"
        ),
        store.increment(&at, "text".into(), 1),
        store.apply(&at, set("second", 1)),
    );
    first.unwrap();
    second.unwrap();
    assert!(matches!(faulty.unwrap_err(), Error::Unavailable { .. }));
    assert!(matches!(refused.unwrap_err(), Error::Invalid(_)));
    assert_eq!(number(&dir, "SELECT count(*) FROM plugin"), 1);
    assert_eq!(number(&dir, "SELECT count(*) FROM entries"), 3);
    store.close().await;
}

#[tokio::test]
async fn a_full_file_refuses_and_recovers() {
    let (_dir, store) = open().await;
    let at = bucket(&store, "s");
    store.apply(&at, set("kept", 10)).await.unwrap();
    inject(&store, "PRAGMA max_page_count = 40").await.unwrap();
    let error = store.apply(&at, set("big", 1 << 20)).await.unwrap_err();
    let Error::Unavailable {
        reason,
        outcome_unknown: false,
    } = &error
    else {
        panic!("{error}");
    };
    assert!(
        reason.contains("full") && reason.contains("keyvalue.reserve_bytes"),
        "{reason}"
    );
    assert_eq!(
        store.exists(&at, vec!["kept".into()]).await.unwrap(),
        [true]
    );
    // A new connection has no limit on the page count.
    until_ok(async || store.apply(&at, set("big", 1 << 20)).await).await;
    store.close().await;
}

#[tokio::test]
async fn the_counted_bytes_are_the_stored_bytes() {
    let (dir, store) = open().await;
    let counted = "SELECT sum(bytes) FROM plugin";
    let there = CHARGED;
    for step in 0..40 {
        let at = bucket(&store, ["a", "b"][step % 2]);
        let change = match step % 5 {
            4 => vec![Change::Delete {
                key: format!("k{}", step % 7),
            }],
            _ => set(&format!("k{}", step % 7), step * 13),
        };
        store.apply(&at, change).await.unwrap();
        store.increment(&at, "number".into(), 99).await.unwrap();
        assert_eq!(
            number(&dir, counted),
            number(&dir, there),
            "after step {step}"
        );
    }
    // Deleting everything leaves only the plugin's name.
    for store_name in ["a", "b"] {
        let at = bucket(&store, store_name);
        let keys = store.list(&at, None).await.unwrap().keys;
        let all = keys.into_iter().map(|key| Change::Delete { key });
        store.apply(&at, all.collect()).await.unwrap();
    }
    assert_eq!(number(&dir, counted), 0);
    assert_eq!(number(&dir, "SELECT count(*) FROM store"), 0);
    store.close().await;
}

#[tokio::test]
async fn a_plugin_above_a_lowered_limit_may_shrink() {
    let (dir, store) = open().await;
    let at = bucket(&store, "s");
    store.apply(&at, set("a", 1000)).await.unwrap();
    store.apply(&at, set("b", 1000)).await.unwrap();
    store.close().await;
    let limits = KeyValueLimits {
        max_plugin_bytes: 500,
        ..store.limits.clone()
    };
    let store = SqliteKeyValue::open(
        &dir.path().join("kv.db"),
        1 << 20,
        &limits,
        &Health::default(),
    )
    .await
    .unwrap();
    let error = store.apply(&at, set("c", 1)).await.unwrap_err();
    assert!(error.to_string().contains("keyvalue.max_plugin_bytes"));
    store.apply(&at, set("a", 10)).await.unwrap();
    let delete = vec![Change::Delete { key: "b".into() }];
    store.apply(&at, delete).await.unwrap();
    store.apply(&at, set("c", 1)).await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn deleted_space_is_returned_also_by_files_that_could_not_return_any() {
    let (dir, store) = open().await;
    store.close().await;
    let path = dir.path().join("kv.db");
    let older = rusqlite::Connection::open(&path).unwrap();
    older
        .execute_batch("PRAGMA journal_mode = DELETE; PRAGMA auto_vacuum = NONE; VACUUM")
        .unwrap();
    drop(older);
    assert_eq!(number(&dir, "PRAGMA auto_vacuum"), 0);
    let limits = store.limits.clone();
    let store = SqliteKeyValue::open(&path, 0, &limits, &Health::default())
        .await
        .unwrap();
    let at = bucket(&store, "s");
    for n in 0..8 {
        store
            .apply(&at, set(&format!("k{n}"), 1 << 20))
            .await
            .unwrap();
    }
    let size = || path.metadata().unwrap().len();
    until_ok(async || {
        if size() > 4 << 20 {
            return Ok(());
        }
        store.apply(&at, set("more", 4 << 20)).await
    })
    .await;
    let keys = store.list(&at, None).await.unwrap().keys;
    let deletions = keys.into_iter().map(|key| Change::Delete { key });
    store.apply(&at, deletions.collect()).await.unwrap();
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if size() < 1 << 20 {
            return store.close().await;
        }
    }
    panic!("the file still has {} bytes", size());
}

#[tokio::test]
async fn a_damaged_value_or_account_affects_nothing_else() {
    let (dir, store) = open().await;
    let at = bucket(&store, "s");
    for key in ["bad", "good", "schön\0"] {
        store.apply(&at, set(key, 10)).await.unwrap();
    }
    inject(&store, "UPDATE entry SET value = 1.5 WHERE key = 'bad'")
        .await
        .unwrap();
    inject(&store, "UPDATE plugin SET bytes = 'much'")
        .await
        .unwrap();
    let error = store.get(&at, vec!["bad".into()]).await.unwrap_err();
    assert!(
        matches!(&error, Error::Corrupt(what) if what.contains("bad")),
        "{error}"
    );
    let good = store.get(&at, vec!["good".into()]).await.unwrap();
    assert_eq!(good, [Some(vec![7; 10])]);
    store.apply(&at, set("bad", 20)).await.unwrap();
    assert_eq!(
        store.get(&at, vec!["bad".into()]).await.unwrap(),
        [Some(vec![7; 20])]
    );
    let there = CHARGED;
    assert_eq!(
        number(&dir, "SELECT sum(bytes) FROM plugin"),
        number(&dir, there)
    );
    // What was counted again is given back to the byte.
    let delete = ["bad", "good", "schön\0"].map(|key| Change::Delete { key: key.into() });
    store.apply(&at, delete.into()).await.unwrap();
    assert_eq!(number(&dir, "SELECT sum(bytes) FROM plugin"), 0);
    store.close().await;
}

#[tokio::test]
async fn accounts_of_an_earlier_version_are_counted_again() {
    let (dir, store) = open().await;
    for (name, key) in [("s", "k"), ("schön", "☃\0")] {
        store
            .apply(&bucket(&store, name), set(key, 9))
            .await
            .unwrap();
    }
    store.close().await;
    let path = dir.path().join("kv.db");
    let older = rusqlite::Connection::open(&path).unwrap();
    let first = "UPDATE plugin SET bytes = 1 + 9 + 64 + 4 + 9 + 64; PRAGMA user_version = 1";
    older.execute_batch(first).unwrap();
    drop(older);
    let store = SqliteKeyValue::open(&path, 0, &store.limits, &Health::default())
        .await
        .unwrap();
    assert_eq!(
        number(&dir, "SELECT bytes FROM plugin"),
        number(&dir, CHARGED)
    );
    for (name, key) in [("s", "k"), ("schön", "☃\0")] {
        let delete = vec![Change::Delete { key: key.into() }];
        store.apply(&bucket(&store, name), delete).await.unwrap();
    }
    assert_eq!(number(&dir, "SELECT bytes FROM plugin"), 0);
    store.close().await;
}

/// The file of a plugin that stores little but names has about the bytes that it is charged.
#[tokio::test]
async fn the_charged_bytes_bound_the_file() {
    const BYTES: u64 = 256 << 10;
    for has_many_stores in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv.db");
        let limits = KeyValueLimits {
            max_plugin_bytes: BYTES,
            ..Config::default().keyvalue.limits
        };
        let store = SqliteKeyValue::open(&path, 0, &limits, &Health::default())
            .await
            .unwrap();
        for number in 0.. {
            let (name, key) = if has_many_stores {
                (format!("{number:0128}"), "k".to_owned())
            } else {
                ("s".to_owned(), format!("{number:0512}"))
            };
            if let Err(error) = store.apply(&bucket(&store, &name), set(&key, 0)).await {
                assert!(matches!(error, Error::Limit(_)), "{error}");
                break;
            }
        }
        store.close().await;
        let size = path.metadata().unwrap().len();
        assert!(size < BYTES + BYTES / 2, "{size} bytes");
    }
}
