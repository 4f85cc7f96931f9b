//! The writer's statements, prepared once for each connection.

use rusqlite::{Connection, Statement};

macro_rules! statements {
    ($($name:ident: $sql:expr;)*) => {
        pub(super) struct Statements<'c> {
            $(pub $name: Statement<'c>,)*
        }

        impl<'c> Statements<'c> {
            pub fn prepare(conn: &'c Connection) -> rusqlite::Result<Self> {
                Ok(Self { $($name: conn.prepare($sql)?,)* })
            }
        }
    };
}

statements! {
    insert_symbol: "INSERT INTO word (word, text) VALUES (?1, ?2)";
    // Inserts nothing when the id is taken.
    insert_task: "INSERT INTO task
        (seq, id, type, state, at, fence, attempt, finishes, cancel_asked, submitted_at)
        VALUES (?1, ?2, ?3, 0, ?4, ?5, 0, 0, 0, ?6) ON CONFLICT (id) DO NOTHING";
    insert_body: "INSERT INTO body (seq, metadata, payload) VALUES (?1, ?2, ?3)";
    insert_options: "INSERT INTO task_options (seq, options, start_by) VALUES (?1, ?2, ?3)";
    insert_label: "INSERT OR IGNORE INTO label (kind, name, seq) VALUES (?1, ?2, ?3)";
    set_keep: "UPDATE task SET keep = ?2 WHERE seq = ?1";
    options: "SELECT options, priority FROM task_options WHERE seq = ?1";
    // Leaves the options as they were given, which a submission is compared with.
    set_priority: "INSERT INTO task_options (seq, priority) VALUES (?1, ?2)
        ON CONFLICT (seq) DO UPDATE SET priority = excluded.priority";
    clear_start_by: "UPDATE task_options SET start_by = NULL WHERE seq = ?1";
    submitted_at: "SELECT submitted_at FROM task WHERE seq = ?1";
    expire: "UPDATE task SET state = 3, at = ?2, error = ?3, error_class = 'expired',
        finishes = finishes + 1 WHERE seq = ?1 AND state = 0 RETURNING id";
    key_holder: "SELECT id FROM unique_key WHERE type = ?1 AND key = ?2 AND (open = 1 OR until > ?3)";
    take_key: "INSERT OR REPLACE INTO unique_key (type, key, id, until, open)
        VALUES (?1, ?2, ?3, ?4, 1)";
    delete_key: "DELETE FROM unique_key WHERE type = ?1 AND key = ?2 AND id = ?3 AND until <= ?4";
    close_key: "UPDATE unique_key SET open = 0 WHERE type = ?1 AND key = ?2 AND id = ?3";
    purge_keys: "DELETE FROM unique_key WHERE (type, key) IN (SELECT type, key FROM unique_key
        WHERE open = 0 AND until <= ?1 ORDER BY until LIMIT ?2)";
    store_rate: "INSERT OR REPLACE INTO rate (type, in_group, units, at) VALUES (?1, ?2, ?3, ?4)";
    delete_rate: "DELETE FROM rate WHERE type = ?1 AND in_group = ?2";
    waiting: "SELECT id, attempt, fence, metadata, payload, losses
        FROM task JOIN body USING (seq) WHERE seq = ?1";
    lease: "UPDATE task SET state = 1, at = ?2, fence = ?3, attempt = ?4, started_at = ?5, node = ?6,
        progress = NULL WHERE seq = ?1";
    // The end of a lease, or the due time.
    set_at: "UPDATE task SET at = ?2 WHERE seq = ?1";
    set_error: "UPDATE task SET error = ?2 WHERE seq = ?1";
    set_progress: "UPDATE task SET progress = ?2 WHERE seq = ?1";
    // Keeps the previous error unless there is a new one.
    finish: "UPDATE task SET state = ?2, at = ?3, attempt = ?4, finishes = finishes + ?5,
        cancel_asked = 0, error = ifnull(?6, error),
        ran_node = ?7, ran_plugin = ?8, ran_version = ?9,
        ran_class = ?10, cpu_us = ?11, peak_memory = ?12, log_bytes = ?13 WHERE seq = ?1";
    // Keeps what executed the latest counted attempt.
    release: "UPDATE task SET state = ?2, at = ?3, attempt = ?4, finishes = finishes + ?5,
        cancel_asked = 0 WHERE seq = ?1";
    lose: "UPDATE task SET state = ?2, at = ?3, attempt = ?4, finishes = finishes + ?5,
        cancel_asked = 0, losses = losses + 1, error = ?6,
        ran_node = NULL, ran_plugin = NULL, ran_version = NULL WHERE seq = ?1";
    insert_result: "INSERT OR REPLACE INTO result (seq, result) VALUES (?1, ?2)";
    find: "SELECT seq, type, state, at, losses FROM task WHERE id = ?1";
    cancel: "UPDATE task SET state = 4, at = ?2, finishes = finishes + 1, error = ifnull(?3, error)
        WHERE seq = ?1";
    request_cancel: "UPDATE task SET cancel_asked = 1, cancel_reason = ?2 WHERE seq = ?1";
    requeue: "UPDATE task SET state = 0, at = ?2, attempt = 0, finishes = 0, started_at = NULL,
        losses = 0, error_class = NULL, cancel_reason = NULL, ran_class = NULL
        WHERE seq = ?1";
    record_attempt: "INSERT INTO attempts
        (seq, n, number, class, error, started_at, ended_at, node, plugin, version,
            cpu_us, peak_memory, log_bytes)
        SELECT seq, 1 + ifnull((SELECT max(n) FROM attempts WHERE attempts.seq = task.seq), 0),
            ?2, ?3, ?4, started_at, ?5, ifnull(?6, node), ?7, ?8, ?9, ?10, ?11
        FROM task WHERE seq = ?1 RETURNING n";
    // What the row has of an attempt is overwritten when the task is tried again.
    move_attempt: "INSERT INTO attempts
        (seq, n, number, class, error, started_at, ended_at, node, plugin, version,
            cpu_us, peak_memory, log_bytes)
        SELECT seq, 1 + ifnull((SELECT max(n) FROM attempts WHERE attempts.seq = task.seq), 0),
            attempt, ran_class, error, started_at, at, ifnull(ran_node, node), ran_plugin, ran_version,
            cpu_us, peak_memory, log_bytes
        FROM task WHERE seq = ?1 AND ran_class IS NOT NULL RETURNING n";
    drop_attempts: "DELETE FROM attempts WHERE seq = ?1 AND n <= ?2";
    // Ended tasks of a state and a route, and those with a time of their own; each has its index.
    ended: "SELECT seq, type, state, id,
            (SELECT ifnull(options, '{}') FROM task_options WHERE task_options.seq = task.seq)
        FROM task INDEXED BY task_ended
        WHERE state >= 2 AND keep IS NULL AND state = ?1 AND type = ?2 AND at <= ?3
        ORDER BY at LIMIT ?4";
    kept_ended: "SELECT seq, type, state, id,
            (SELECT ifnull(options, '{}') FROM task_options WHERE task_options.seq = task.seq)
        FROM task WHERE state >= 2 AND keep IS NOT NULL AND at + keep <= ?1
        ORDER BY at + keep LIMIT ?2";
    delete_task: "DELETE FROM task WHERE seq = ?1";
    delete_body: "DELETE FROM body WHERE seq = ?1";
    delete_result: "DELETE FROM result WHERE seq = ?1";
    delete_label: "DELETE FROM label WHERE kind = ?1 AND name = ?2 AND seq = ?3";
    delete_options: "DELETE FROM task_options WHERE seq = ?1";
    delete_attempts: "DELETE FROM attempts WHERE seq = ?1";
    delete_damaged: "DELETE FROM damaged WHERE seq = ?1";
    store_next_seq: "UPDATE meta SET next_seq = max(next_seq, ?1)";
}
