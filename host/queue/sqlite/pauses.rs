//! Pausing and resuming types: in the table, and in the copy of it in the index, which leases look at.

use super::{encoding::ms, transaction::Transaction};
use hostel_sqlite::StatementError;
use hostel_task::{MAX_PAUSED_TYPES, Name, TypePause};
use rusqlite::params;
use std::sync::Arc;

impl Transaction<'_> {
    /// Pauses a type, or changes the reason of its pause; `None` if too many others are paused.
    pub fn pause_type(
        &mut self,
        task_type: &Name,
        reason: Option<&Arc<str>>,
    ) -> Result<Option<TypePause>, StatementError> {
        let paused = &self.index.paused;
        let since = match paused.get(task_type) {
            Some(pause) => pause.since,
            None if paused.len() >= MAX_PAUSED_TYPES => return Ok(None),
            None => self.clock.to_wall(self.clock.now()),
        };
        let sql = "INSERT OR REPLACE INTO paused_type (type, since, reason) VALUES (?1, ?2, ?3)";
        let values = params![
            task_type.as_str(),
            ms(since),
            reason.map(|reason| &**reason)
        ];
        self.conn.prepare_cached(sql)?.execute(values)?;
        let reason = reason.cloned();
        let pause = TypePause { since, reason };
        Arc::make_mut(&mut self.index.paused).insert(task_type.clone(), pause.clone());
        Ok(Some(pause))
    }

    /// Ends the pause of a type, and returns whether it was paused.
    pub fn resume_type(&mut self, task_type: &Name) -> Result<bool, StatementError> {
        if !self.index.paused.contains_key(task_type) {
            return Ok(false);
        }
        let sql = "DELETE FROM paused_type WHERE type = ?1";
        self.conn
            .prepare_cached(sql)?
            .execute([task_type.as_str()])?;
        Arc::make_mut(&mut self.index.paused).remove(task_type);
        // The request that waits for tasks is given those of the type.
        self.has_pending = true;
        Ok(true)
    }
}
