//! A table of event rates. The task `record-event` counts one or more events; the component `rates` keeps
//! the table, answers queries, and publishes a summary to `rates.summary` after a number of events. A
//! task completes once its event is on disk. Retries are counted once.

mod table;

use hostel_sdk::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::SystemTime;
use table::{Recent, Saved, Table};

const MAX_NAME_BYTES: usize = 128;

/// The default of `summary_every`, the number of events between two summaries.
const SUMMARY_EVERY: u64 = 100;

/// The payload of `record-event`.
#[derive(Serialize, Deserialize)]
struct Event {
    name: String,
    #[serde(default = "one")]
    count: u64,
}

fn one() -> u64 {
    1
}

/// The payload of a message to the component, such as `{"query":{}}` or `{"query":{"name":"login"}}`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Request {
    Record { task: String, event: Event },
    Query { name: Option<String> },
}

/// The payload of an answer or a summary: the rate of each requested name.
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
    // Half of the timeout, so that there is time left to return an error.
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
    /// Counts an event, saves it, and then updates the memory, so that a failure changes nothing. The
    /// event and the id of its task are saved together; otherwise a crash between the two could count
    /// the event twice.
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

    /// Publishes the table when the number of events has passed the next multiple of `summary_every`.
    /// The event is already counted, so a failure does not fail its task.
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

/// Returns the wall-clock time in seconds.
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
