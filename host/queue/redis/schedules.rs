//! The schedules of a queue in Redis: scripts over the queue's first shard (`scripts/schedules`).

use super::{queue::RedisQueue, shard_client::ShardClient};
use crate::{
    error::Error,
    schedule_store::{
        AdvanceSchedule, DueSchedules, MAX_SCHEDULES, PutSchedule, SchedulePage, ScheduleStore,
        VersionedSchedule, decode, encode, encode_record,
    },
};
use async_trait::async_trait;
use hostel_schedule::Schedule;
use hostel_task::{Name, UnixMs};
use redis::Script;
use std::sync::LazyLock;

/// The shard that has the schedules.
const SHARD: usize = 0;

/// The most bytes of the schedules that one script returns, without the last one's.
const MAX_BYTES: usize = 1 << 20;

/// The most bytes of one stored schedule: its payload, twice as long if it is no text, its metadata and
/// its record.
const ONE_BYTES: usize = 512 << 10;

macro_rules! script {
    ($flags:literal, $name:literal) => {
        Script::new(concat!(
            $flags,
            include_str!("scripts/schedules/common.lua"),
            include_str!(concat!("scripts/schedules/", $name, ".lua")),
        ))
    };
}

struct Scripts {
    /// Makes a new schedule: refused by Redis while its memory is full.
    create: Script,
    put: Script,
    remove: Script,
    get: Script,
    list: Script,
    due: Script,
    advance: Script,
}

static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts {
    create: script!("", "put"),
    put: script!("#!lua flags=allow-oom\n", "put"),
    remove: script!("#!lua flags=allow-oom\n", "remove"),
    get: script!("#!lua flags=no-writes\n", "get"),
    list: script!("#!lua flags=no-writes\n", "list"),
    due: script!("#!lua flags=allow-oom\n", "due"),
    advance: script!("#!lua flags=allow-oom\n", "advance"),
});

/// Writes a time as an argument; nothing for none.
fn argument(time: Option<UnixMs>) -> String {
    time.map(|time| time.0.to_string()).unwrap_or_default()
}

/// Reads names, versions, `s` and `r` of schedules. Returns the names of those that cannot be read.
fn read(answer: &[String]) -> (Vec<VersionedSchedule>, Vec<String>) {
    let (mut schedules, mut damaged) = (Vec::new(), Vec::new());
    for fields in answer.chunks_exact(4) {
        match read_one(&fields[0], &fields[1..]) {
            Ok(schedule) => schedules.push(schedule),
            Err(_) => damaged.push(fields[0].clone()),
        }
    }
    (schedules, damaged)
}

fn read_one(name: &str, fields: &[String]) -> Result<VersionedSchedule, Error> {
    let [version, spec, record] = fields else {
        return Err(Error::Corrupt(format!("schedule {name} lacks fields")));
    };
    let version = version.parse().map_err(|_| {
        Error::Corrupt(format!(
            "schedule {name} cannot be read: its version is no number"
        ))
    })?;
    decode(name, version, spec, record)
}

async fn due(client: &ShardClient, max: usize) -> Result<DueSchedules, Error> {
    let bytes = MAX_BYTES + ONE_BYTES;
    let answer: Vec<String> = client
        .call_for_read(SHARD, &SCRIPTS.due, bytes, |call| {
            call.arg(max).arg(MAX_BYTES);
        })
        .await?;
    let corrupt = || Error::Corrupt("the script of due schedules has another answer".into());
    let [now, next, schedules @ ..] = answer.as_slice() else {
        return Err(corrupt());
    };
    let now = now.parse().map_err(|_| corrupt())?;
    let (due, damaged) = read(schedules);
    Ok(DueSchedules {
        now: UnixMs(now),
        due,
        next: next.parse().ok().map(UnixMs),
        damaged,
    })
}

#[async_trait]
impl ScheduleStore for RedisQueue {
    async fn schedule_time(&self) -> Result<UnixMs, Error> {
        Ok(due(self.client()?, 0).await?.now)
    }

    async fn put_schedule(
        &self,
        schedule: &Schedule,
        expected: Option<u64>,
    ) -> Result<PutSchedule, Error> {
        let [spec, record] = encode(schedule)?;
        let script = match expected {
            None => &SCRIPTS.create,
            Some(_) => &SCRIPTS.put,
        };
        let expected = expected.map(|version| version.to_string());
        let bytes = spec.len() + record.len();
        let answer: String = self
            .client()?
            .call_with_bulk_args(SHARD, script, bytes, |call| {
                call.arg(schedule.spec.name.as_str())
                    .arg(expected.unwrap_or_default())
                    .arg(spec)
                    .arg(record)
                    .arg(argument(schedule.record.next))
                    .arg(MAX_SCHEDULES);
            })
            .await?;
        Ok(match answer.as_str() {
            "changed" => PutSchedule::Changed,
            "full" => PutSchedule::Full,
            version => PutSchedule::Stored(version.parse().map_err(|_| {
                Error::Corrupt(format!(
                    "the version {version:?} of a schedule is no number"
                ))
            })?),
        })
    }

    async fn remove_schedule(&self, name: &Name, expected: Option<u64>) -> Result<bool, Error> {
        let expected = expected.map(|version| version.to_string());
        let removed: u8 = self
            .client()?
            .call(SHARD, &SCRIPTS.remove, |call| {
                call.arg(name.as_str()).arg(expected.unwrap_or_default());
            })
            .await?;
        Ok(removed == 1)
    }

    async fn schedule(&self, name: &Name) -> Result<Option<VersionedSchedule>, Error> {
        let answer: Vec<String> = self
            .client()?
            .call_for_read(SHARD, &SCRIPTS.get, ONE_BYTES, |call| {
                call.arg(name.as_str());
            })
            .await?;
        if answer.is_empty() {
            return Ok(None);
        }
        read_one(name.as_str(), &answer).map(Some)
    }

    async fn schedules(&self, after: Option<&Name>, max: usize) -> Result<SchedulePage, Error> {
        let from = after.map_or("", Name::as_str);
        let answer: Vec<String> = self
            .client()?
            .call_for_read(SHARD, &SCRIPTS.list, MAX_BYTES + ONE_BYTES, |call| {
                call.arg(from).arg(max).arg(MAX_BYTES);
            })
            .await?;
        let Some((last, fields)) = answer.split_first() else {
            return Err(Error::Corrupt(
                "the script that lists schedules has another answer".into(),
            ));
        };
        let (schedules, damaged) = read(fields);
        Ok(SchedulePage {
            schedules,
            next: Name::parse("schedule name", last).ok(),
            damaged,
        })
    }

    async fn due_schedules(&self, max: usize) -> Result<DueSchedules, Error> {
        due(self.client()?, max).await
    }

    async fn advance_schedules(&self, advances: &[AdvanceSchedule]) -> Result<Vec<bool>, Error> {
        if advances.is_empty() {
            return Ok(Vec::new());
        }
        let records = advances
            .iter()
            .map(|advance| encode_record(&advance.record));
        let records = records.collect::<Result<Vec<_>, _>>()?;
        let bytes = records.iter().map(String::len).sum();
        let answer: Vec<i64> = self
            .client()?
            .call_with_bulk_args(SHARD, &SCRIPTS.advance, bytes, |call| {
                for (advance, record) in advances.iter().zip(records) {
                    call.arg(advance.name.as_str())
                        .arg(advance.expected.to_string())
                        .arg(record)
                        .arg(argument(advance.record.next));
                }
            })
            .await?;
        Ok(answer.into_iter().map(|stored| stored == 1).collect())
    }
}
