//! The limit of a queue in SQLite: one synced transaction inserts a batch of tasks with their payloads, and
//! another stores their results, on the thread of the caller and with the settings of the queue.

use crate::load::PAYLOAD_BYTES;
use rusqlite::{Connection, params};
use std::time::Instant;

const BATCH: i64 = 500;
const BATCHES: i64 = 100;

const OPEN: &str = "
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA temp_store = MEMORY;
PRAGMA cache_size = -32768;
CREATE TABLE task (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, type INTEGER NOT NULL,
    state INTEGER NOT NULL, at INTEGER NOT NULL);
CREATE TABLE body (seq INTEGER PRIMARY KEY, payload BLOB NOT NULL);
CREATE TABLE result (seq INTEGER PRIMARY KEY, result BLOB NOT NULL);
";

/// Measures the tasks a second.
pub fn per_second() -> f64 {
    let dir = tempfile::tempdir().expect("a directory");
    let mut conn = Connection::open(dir.path().join("bare.db")).expect("a database");
    conn.execute_batch(OPEN).expect("a schema");
    let payload = [7_u8; PAYLOAD_BYTES];
    let begin = Instant::now();
    for batch in 0..BATCHES {
        let range = batch * BATCH..(batch + 1) * BATCH;
        let tx = conn.transaction().expect("a transaction");
        for seq in range.clone() {
            let id = format!("bench-{seq:012}");
            tx.prepare_cached("INSERT INTO task VALUES (?1, ?2, 1, 0, ?1)")
                .and_then(|mut insert| insert.execute(params![seq, id]))
                .expect("a task");
            tx.prepare_cached("INSERT INTO body VALUES (?1, ?2)")
                .and_then(|mut insert| insert.execute(params![seq, payload]))
                .expect("a payload");
        }
        tx.commit().expect("a commit");
        let tx = conn.transaction().expect("a transaction");
        for seq in range {
            tx.prepare_cached("UPDATE task SET state = 2, at = ?1 + 1 WHERE seq = ?1")
                .and_then(|mut update| update.execute([seq]))
                .expect("a task");
            tx.prepare_cached("INSERT INTO result VALUES (?1, ?2)")
                .and_then(|mut insert| insert.execute(params![seq, payload]))
                .expect("a result");
        }
        tx.commit().expect("a commit");
    }
    (BATCH * BATCHES) as f64 / begin.elapsed().as_secs_f64()
}
