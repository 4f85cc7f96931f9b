//! A table of how often things happen. The task `record-event` counts one event or several; the
//! component `rates` keeps the table, answers queries, and publishes a summary to `rates.summary`
//! every so many events. The task is completed only once the event is on disk, and one that is tried
//! again is counted once.

mod table;

use hostel_sdk::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::SystemTime;
use table::{Recent, Saved, Table};

const MAX_NAME_BYTES: usize = 128;

/// How many events lie between two summaries, where the configuration has no `summary_every`.
const SUMMARY_EVERY: u64 = 100;

/// What is submitted as `record-event`.
#[derive(Serialize, Deserialize)]
struct Event {
    name: String,
    #[serde(default = "one")]
    count: u64,
}

fn one() -> u64 {
    1
}

/// What the component is sent, such as `{"query":{}}` or `{"query":{"name":"login"}}`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Request {
    Record { task: String, event: Event },
    Query { name: Option<String> },
}

/// What it answers, and publishes: a rate for each name that was asked for.
type Rates = BTreeMap<String, Rate>;

#[derive(Serialize, Deserialize)]
struct Rate {
    count: u64,
    last_minute: u64,
}

fn record(Json(event): Json<Event>, task: &Task) -> Result<Json<Rates>> {
    if event.name.is_empty() || event.name.len() > MAX_NAME_BYTES {
        let message = format!("an event's name has 1 to {MAX_NAME_BYTES} bytes");
        return Err(TaskError::permanent(message));
    }
    let task_id = task.id().to_owned();
    let request = Request::Record {
        task: task_id,
        event,
    };
    // Half of the time, so that there is some left to say what went wrong.
    let timeout = task.timeout() / 2;
    Ok(messaging::request(
        "rates",
        "record",
        Json(request),
        timeout,
    )?)
}

struct RateTable {
    table: Table,
    recent: Recent,
    store: kv::Store,
    summary_every: u64,
}

impl Component for RateTable {
    type In = Json<Request>;
    type Out = Json<Rates>;

    fn start() -> Result<Self> {
        let summary_every = config::get_as("summary_every")?.unwrap_or(SUMMARY_EVERY);
        let store = kv::open("rates")?;
        let (table, recent) = table::restore(&store)?;
        log::info!("{} events so far", table.total());
        Ok(Self {
            table,
            recent,
            store,
            summary_every,
        })
    }

    fn on_message(&mut self, Json(request): Json<Request>, _: &Message) -> Result<Json<Rates>> {
        match request {
            Request::Record { task, event } => self.record(task, event),
            Request::Query { name: Some(name) } => Ok(Json(self.table.rates(now(), Some(&name)))),
            Request::Query { name: None } => Ok(Json(self.table.rates(now(), None))),
        }
    }
}

impl RateTable {
    /// Counts, saves, and only then remembers: whatever fails has changed nothing. The event and its
    /// task's id are saved as one, or a crash between them could count the event twice.
    fn record(&mut self, task: String, event: Event) -> Result<Json<Rates>> {
        if !self.recent.contains(&task) {
            let counter = self.table.counted(&event.name, event.count, now())?;
            let (slot, id) = self.recent.next(&task);
            self.store.set_many([
                (
                    table::key(&event.name),
                    Json(Saved::Counter(counter.clone())),
                ),
                (slot, Json(id)),
            ])?;
            let before = self.table.total();
            self.table.put(&event.name, counter);
            self.recent.push(task);
            self.summarise(before);
        }
        Ok(Json(self.table.rates(now(), Some(&event.name))))
    }

    /// Publishes the table when the number of events has passed the next mark. The event is counted
    /// by then, so whether anybody hears of it is not its task's concern.
    fn summarise(&self, before: u64) {
        let marks = |total: u64| total.checked_div(self.summary_every);
        if marks(before) != marks(self.table.total()) {
            let rates = Json(self.table.rates(now(), None));
            if let Err(error) = messaging::publish("rates.summary", "summary", rates) {
                log::debug!("no summary: {error}");
            }
        }
    }
}

/// Seconds by the clock on the wall.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

hostel_sdk::plugin! {
    component = RateTable,
    task("record-event", record)
        .description("JSON in: an event's name, and its count unless that is 1; JSON out: its rate")
        .timeout(Duration::from_secs(10)),
}

#[cfg(test)]
mod tests;
