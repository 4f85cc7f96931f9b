//! The table in memory and its stored form: a counter for each name, and the ids of the last tasks. The
//! caller passes the time.

use super::{Rate, Rates};
use hostel_sdk::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet, VecDeque};

const MAX_NAMES: usize = 10_000;

/// The number of remembered tasks: an upper bound of the tasks between two attempts of one.
const MAX_RECENT: u64 = 10_000;

const MINUTE: u64 = 60;

/// A value in the store.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Saved {
    Counter(Counter),
    /// The id of the `number`th counted task.
    Task {
        number: u64,
        id: String,
    },
}

/// The number of events of one name: in total, and in each of the last seconds with events.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Counter {
    count: u64,
    seconds: VecDeque<(u64, u64)>,
}

impl Counter {
    fn add(&mut self, count: u64, now: u64) {
        self.count = self.count.saturating_add(count);
        match self.seconds.back_mut() {
            // The seconds stay in order if the clock is set back.
            Some((second, sum)) if *second >= now => *sum = sum.saturating_add(count),
            _ => self.seconds.push_back((now, count)),
        }
        self.seconds.retain(|(second, _)| second + MINUTE > now);
    }

    fn rate(&self, now: u64) -> Rate {
        let recent = self.seconds.iter();
        let recent = recent.filter(|(second, _)| second + MINUTE > now);
        Rate {
            count: self.count,
            last_minute: recent.fold(0, |sum, (_, count)| sum.saturating_add(*count)),
        }
    }
}

#[derive(Default)]
pub struct Table {
    counters: BTreeMap<String, Counter>,
    /// The sum of all counts.
    total: u64,
}

impl Table {
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Returns the counter with further events, without changing the table.
    pub fn counted(&self, name: &str, count: u64, now: u64) -> Result<Counter> {
        let counter = self.counters.get(name);
        if counter.is_none() && self.counters.len() >= MAX_NAMES {
            let message = format!("there are already {MAX_NAMES} names of events");
            return Err(TaskError::permanent(message));
        }
        let mut counter = counter.cloned().unwrap_or_default();
        counter.add(count, now);
        Ok(counter)
    }

    /// Replaces a counter with one that counts at least as much.
    pub fn put(&mut self, name: &str, counter: Counter) {
        let count = counter.count;
        let before = self.counters.insert(name.to_owned(), counter);
        let more = count.saturating_sub(before.map_or(0, |before| before.count));
        self.total = self.total.saturating_add(more);
    }

    /// Returns the rate of one name or of all.
    pub fn rates(&self, now: u64, name: Option<&str>) -> Rates {
        let asked = |(other, _): &(&String, &Counter)| name.is_none_or(|name| name == *other);
        let rate = |(name, counter): (&String, &Counter)| (name.clone(), counter.rate(now));
        self.counters.iter().filter(asked).map(rate).collect()
    }
}

/// The ids of the last counted tasks.
#[derive(Default)]
pub struct Recent {
    order: VecDeque<String>,
    known: HashSet<String>,
    /// The number of counted tasks.
    next: u64,
}

impl Recent {
    pub fn contains(&self, id: &str) -> bool {
        self.known.contains(id)
    }

    /// Returns the key and the value that store the next id. The number of keys is fixed, so that the
    /// newest id replaces the oldest.
    pub fn next(&self, id: &str) -> (String, Saved) {
        let place = format!("task:{}", self.next % MAX_RECENT);
        let task = Saved::Task {
            number: self.next,
            id: id.to_owned(),
        };
        (place, task)
    }

    pub fn push(&mut self, id: String) {
        self.next += 1;
        self.known.insert(id.clone());
        self.order.push_back(id);
        if self.order.len() as u64 > MAX_RECENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

/// Returns the key of an event's counter.
pub fn key(name: &str) -> String {
    format!("event:{name}")
}

/// Reads the stored table.
pub fn restore(store: &kv::Store) -> Result<(Table, Recent)> {
    let mut table = Table::default();
    let mut tasks = BTreeMap::new();
    for keys in store.keys()?.chunks(1000) {
        for (key, saved) in keys.iter().zip(store.get_many(keys)?) {
            match (saved, key.strip_prefix("event:")) {
                (Some(Json(Saved::Counter(counter))), Some(name)) => table.put(name, counter),
                (Some(Json(Saved::Task { number, id })), _) => drop(tasks.insert(number, id)),
                _ => {}
            }
        }
    }
    let mut recent = Recent::default();
    for (number, id) in tasks {
        recent.next = number;
        recent.push(id);
    }
    Ok((table, recent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_covers_sixty_seconds() {
        let mut counter = Counter::default();
        for (count, now) in [(1, 1000), (2, 1000), (4, 1030), (8, 1059)] {
            counter.add(count, now);
        }
        let last_minute = |now| counter.rate(now).last_minute;
        assert_eq!(last_minute(1059), 15);
        assert_eq!(last_minute(1060), 12);
        assert_eq!(last_minute(1118), 8);
        assert_eq!(last_minute(1119), 0);
        assert_eq!(counter.rate(9999).count, 15);
    }

    #[test]
    fn old_seconds_are_dropped_and_the_clock_may_go_back() {
        let mut counter = Counter::default();
        for now in 0..1000 {
            counter.add(1, now);
        }
        assert_eq!(counter.seconds.len(), 60);
        counter.add(1, 900);
        assert_eq!(counter.rate(999).last_minute, 61);
    }

    #[test]
    fn the_number_of_remembered_tasks_is_bounded() {
        let mut recent = Recent::default();
        for number in 0..=MAX_RECENT {
            recent.push(number.to_string());
        }
        assert!(!recent.contains("0"));
        assert!(recent.contains("1"));
        assert_eq!(recent.next("x").0, "task:1");
    }
}
