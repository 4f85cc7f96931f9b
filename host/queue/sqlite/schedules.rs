//! The schedules in the queue's file: a table of their own, which the queue's writer changes.

use super::{encoding::ms, queue::SqliteQueue, transaction::Transaction};
use crate::{
    error::Error,
    schedule_store::{
        AdvanceSchedule, DueSchedules, MAX_SCHEDULES, PutSchedule, SchedulePage, ScheduleStore,
        VersionedSchedule, decode, encode, encode_record,
    },
};
use async_trait::async_trait;
use hostel_schedule::Schedule;
use hostel_sqlite::{StatementError, SyncLevel, WriteCost};
use hostel_task::{Name, UnixMs};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::{convert::identity, sync::Arc};

/// A row: its name, version, `spec` and `record`.
type Stored = (String, i64, String, String);

fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
}

fn read((name, version, spec, record): Stored) -> Result<VersionedSchedule, Error> {
    decode(&name, version.unsigned_abs(), &spec, &record)
}

/// Reads rows, and returns the names of those that cannot be read as well.
fn read_all(rows: Vec<Stored>) -> (Vec<VersionedSchedule>, Vec<String>) {
    let (mut schedules, mut damaged) = (Vec::new(), Vec::new());
    for row in rows {
        let name = row.0.clone();
        match read(row) {
            Ok(schedule) => schedules.push(schedule),
            Err(_) => damaged.push(name),
        }
    }
    (schedules, damaged)
}

/// A schedule as it is written.
struct Written {
    name: String,
    spec: String,
    record: String,
    next: Option<i64>,
}

fn version(number: u64) -> i64 {
    // No version is as large as that.
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Transaction<'_> {
    fn next_schedule_version(&self) -> Result<i64, StatementError> {
        let sql = "UPDATE schedule_version SET version = version + 1 RETURNING version";
        let mut statement = self.conn.prepare_cached(sql)?;
        Ok(statement.query_row([], |row| row.get(0))?)
    }

    /// The inner error is the reason why the disk has no room for it.
    fn put_schedule(
        &self,
        schedule: &Written,
        expected: Option<i64>,
    ) -> Result<Result<PutSchedule, Arc<str>>, StatementError> {
        let find = "SELECT version FROM schedule WHERE name = ?1";
        let mut find = self.conn.prepare_cached(find)?;
        let found: Option<i64> = find
            .query_row([&schedule.name], |row| row.get(0))
            .optional()?;
        if found != expected {
            return Ok(Ok(PutSchedule::Changed));
        }
        if let Some(reason) = &self.refusal {
            return Ok(Err(Arc::clone(reason)));
        }
        if found.is_none() {
            let sql = "SELECT count(*) FROM schedule";
            let count: i64 = self.conn.query_row(sql, [], |row| row.get(0))?;
            if usize::try_from(count).unwrap_or(usize::MAX) >= MAX_SCHEDULES {
                return Ok(Ok(PutSchedule::Full));
            }
        }
        let version = self.next_schedule_version()?;
        let Written {
            name,
            spec,
            record,
            next,
        } = schedule;
        let sql = "INSERT OR REPLACE INTO schedule (name, version, next, spec, record)
            VALUES (?1, ?2, ?3, ?4, ?5)";
        let mut put = self.conn.prepare_cached(sql)?;
        put.execute(params![name, version, next, spec, record])?;
        Ok(Ok(PutSchedule::Stored(version.unsigned_abs())))
    }

    fn remove_schedule(&self, name: &str, expected: Option<i64>) -> Result<bool, StatementError> {
        let sql = "DELETE FROM schedule WHERE name = ?1 AND version = ifnull(?2, version)";
        let mut statement = self.conn.prepare_cached(sql)?;
        Ok(statement.execute(params![name, expected])? > 0)
    }

    fn advance_schedule(
        &self,
        name: &str,
        expected: i64,
        record: &str,
        next: Option<i64>,
    ) -> Result<bool, StatementError> {
        let version = self.next_schedule_version()?;
        let sql = "UPDATE schedule SET version = ?3, record = ?4, next = ?5
            WHERE name = ?1 AND version = ?2";
        let mut statement = self.conn.prepare_cached(sql)?;
        Ok(statement.execute(params![name, expected, version, record, next])? > 0)
    }
}

fn due(
    conn: &Connection,
    now: i64,
    max: i64,
) -> Result<(Vec<Stored>, Option<i64>), StatementError> {
    let sql = "SELECT name, version, spec, record FROM schedule WHERE next <= ?1
        ORDER BY next, name LIMIT ?2";
    let mut due = conn.prepare_cached(sql)?;
    let due = due.query_map([now, max], stored)?;
    let due: Vec<Stored> = due.collect::<Result<_, _>>()?;
    // If all that are due are in the answer, the next one is later.
    let after = if i64::try_from(due.len()).is_ok_and(|count| count < max) {
        now
    } else {
        i64::MIN
    };
    let sql = "SELECT min(next) FROM schedule WHERE next > ?1";
    let mut next = conn.prepare_cached(sql)?;
    Ok((due, next.query_row([after], |row| row.get(0))?))
}

#[async_trait]
impl ScheduleStore for SqliteQueue {
    async fn schedule_time(&self) -> Result<UnixMs, Error> {
        Ok(self.clock.to_wall(self.clock.now()))
    }

    async fn put_schedule(
        &self,
        schedule: &Schedule,
        expected: Option<u64>,
    ) -> Result<PutSchedule, Error> {
        let [spec, record] = encode(schedule)?;
        let cost = WriteCost {
            sync_level: SyncLevel::Full,
            bytes: (spec.len() + record.len()) as u64,
            adds: true,
        };
        let written = Written {
            name: schedule.spec.name.to_string(),
            spec,
            record,
            next: schedule.record.next.map(ms),
        };
        let expected = expected.map(version);
        let run = move |tx: &mut Transaction<'_>| tx.put_schedule(&written, expected);
        let put = self.writer.execute(cost, run, identity).await?;
        put.map_err(|reason| Error::Full {
            reason: reason.to_string(),
        })
    }

    async fn remove_schedule(&self, name: &Name, expected: Option<u64>) -> Result<bool, Error> {
        let (name, expected) = (name.clone(), expected.map(version));
        let run = move |tx: &mut Transaction<'_>| tx.remove_schedule(name.as_str(), expected);
        self.writer.execute(SyncLevel::Full, run, identity).await
    }

    async fn schedule(&self, name: &Name) -> Result<Option<VersionedSchedule>, Error> {
        let name = name.to_string();
        let query = move |conn: &Connection| {
            let sql = "SELECT name, version, spec, record FROM schedule WHERE name = ?1";
            let mut statement = conn.prepare_cached(sql)?;
            Ok(statement.query_row([name], stored).optional()?)
        };
        let found: Option<Stored> = self.tasks.query::<_, Error>(query).await?;
        found.map(read).transpose()
    }

    async fn schedules(&self, after: Option<&Name>, max: usize) -> Result<SchedulePage, Error> {
        let after = after.map(Name::to_string).unwrap_or_default();
        let limit = i64::try_from(max).unwrap_or(i64::MAX);
        let query = move |conn: &Connection| {
            let sql = "SELECT name, version, spec, record FROM schedule WHERE name > ?1
                ORDER BY name LIMIT ?2";
            let mut statement = conn.prepare_cached(sql)?;
            let found = statement.query_map(params![after, limit], stored)?;
            Ok(found.collect::<Result<Vec<Stored>, _>>()?)
        };
        let found = self.tasks.query::<_, Error>(query).await?;
        let last = found.last().filter(|_| found.len() >= max);
        let next = last.and_then(|(name, ..)| Name::parse("schedule name", name).ok());
        let (schedules, damaged) = read_all(found);
        Ok(SchedulePage {
            schedules,
            next,
            damaged,
        })
    }

    async fn due_schedules(&self, max: usize) -> Result<DueSchedules, Error> {
        let now = self.schedule_time().await?;
        let max = i64::try_from(max).unwrap_or(i64::MAX);
        let query = move |conn: &Connection| due(conn, ms(now), max);
        let (found, next) = self.tasks.query::<_, Error>(query).await?;
        let (due, damaged) = read_all(found);
        let next = next.map(|next| UnixMs(u64::try_from(next).unwrap_or(0)));
        Ok(DueSchedules {
            now,
            due,
            next,
            damaged,
        })
    }

    async fn advance_schedules(&self, advances: &[AdvanceSchedule]) -> Result<Vec<bool>, Error> {
        if advances.is_empty() {
            return Ok(Vec::new());
        }
        let mut changes = Vec::with_capacity(advances.len());
        for advance in advances {
            let record = encode_record(&advance.record)?;
            let (name, next) = (advance.name.to_string(), advance.record.next.map(ms));
            changes.push((name, version(advance.expected), record, next));
        }
        let run = move |tx: &mut Transaction<'_>| {
            let changes = changes.iter();
            changes
                .map(|(name, expected, record, next)| {
                    tx.advance_schedule(name, *expected, record, *next)
                })
                .collect()
        };
        self.writer.execute(SyncLevel::Full, run, identity).await
    }
}
