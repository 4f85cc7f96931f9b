//! Reads the changes of all shards from a cursor, which has a place in the events of each. Any node that shares
//! the queue goes on from the cursor of another.

use super::{event::Event, shard_client::ShardClient};
use crate::{ChangesRead, Error, LoggedChange};
use hostel_task::UnixMs;

/// How far the changes of a queue were read.
struct Cursor {
    /// Tells the store from another, in which the places mean nothing.
    store: u64,
    places: Vec<Place>,
}

/// How far the events of a shard were read.
#[derive(Clone, Copy)]
struct Place {
    /// The id of the last event that was read, at least in part.
    event: (u64, u64),
    /// The number of the next change.
    next: u64,
}

/// Whether changes were missed, the number of the next change after all of them, the id of the latest event,
/// and events with changes that were not read: id and fields.
type Answer = (u8, u64, String, Vec<(String, Vec<String>)>);

/// Returns up to `max` changes after a cursor, and none without one.
pub(super) async fn read(
    client: &ShardClient,
    after: Option<&str>,
    max: usize,
) -> Result<ChangesRead, Error> {
    let Some(after) = after else {
        return begin(client, false).await;
    };
    let mut cursor = Cursor::parse(after).ok_or(Error::BadCursor)?;
    let shards = cursor.places.len();
    if cursor.store != client.stores.fingerprint() || shards != client.tags.len() {
        return begin(client, true).await;
    }
    // Another shard comes first as the changes go on, so that none is always last.
    let sum: u64 = cursor
        .places
        .iter()
        .fold(0, |sum, place| sum.wrapping_add(place.next));
    let start = usize::try_from(sum % shards as u64).unwrap_or(0);
    let mut changes = Vec::new();
    for step in 0..shards {
        let (shard, left) = ((start + step) % shards, max - changes.len());
        if left == 0 {
            break;
        }
        let place = cursor.places[shard];
        let (is_missed, _, _, events) = call(client, shard, Some(place), left).await?;
        if is_missed == 1 {
            return begin(client, true).await;
        }
        for (id, fields) in events {
            let event = (id.as_str(), fields.as_slice());
            read_event(&mut cursor, shard, event, max, &mut changes);
        }
    }
    Ok(ChangesRead {
        changes,
        cursor: cursor.format(),
        resync: false,
    })
}

/// Adds the changes of an event that were not read before, and moves the cursor behind each.
fn read_event(
    cursor: &mut Cursor,
    shard: usize,
    (id, fields): (&str, &[String]),
    max: usize,
    changes: &mut Vec<LoggedChange>,
) {
    let event = Event::parse(fields.get(2..).unwrap_or_default());
    let (Some(id), Some(first)) = (parse_id(id), event.first) else {
        return;
    };
    for (number, (_, change)) in (first..).zip(event.changes) {
        if number < cursor.places[shard].next {
            continue;
        }
        if changes.len() == max {
            return;
        }
        cursor.places[shard] = Place {
            event: id,
            next: number + 1,
        };
        changes.extend(change.map(|change| LoggedChange {
            change,
            at: UnixMs(id.0),
            cursor: cursor.format(),
        }));
    }
}

/// Returns the cursor behind all changes.
async fn begin(client: &ShardClient, resync: bool) -> Result<ChangesRead, Error> {
    let store = client.stores.fingerprint();
    let mut places = Vec::with_capacity(client.tags.len());
    for shard in client.shards() {
        let (_, next, latest, _) = call(client, shard, None, 0).await?;
        let event = parse_id(&latest).unwrap_or_default();
        places.push(Place { event, next });
    }
    Ok(ChangesRead {
        changes: Vec::new(),
        cursor: Cursor { store, places }.format(),
        resync,
    })
}

async fn call(
    client: &ShardClient,
    shard: usize,
    place: Option<Place>,
    max: usize,
) -> Result<Answer, Error> {
    let (event, next) = match place {
        Some(Place { event, next }) => (format!("{}-{}", event.0, event.1), next),
        None => Default::default(),
    };
    let read = client.call(shard, &client.scripts.changes, |call| {
        call.arg(event).arg(next).arg(max);
    });
    read.await
}

/// Parses the id of an event: a time in milliseconds, and a number within it.
fn parse_id(id: &str) -> Option<(u64, u64)> {
    let (time, number) = id.split_once('-')?;
    Some((time.parse().ok()?, number.parse().ok()?))
}

impl Cursor {
    /// Parses what `format` has written.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.strip_prefix('r')?.split('-');
        let store = hex(words.next()?)?;
        let places = words.map(|word| {
            let mut numbers = word.split('.').map(hex);
            let mut number = || numbers.next().flatten();
            let place = Place {
                event: (number()?, number()?),
                next: number()?,
            };
            Some(place)
        });
        let places: Vec<Place> = places.collect::<Option<_>>()?;
        Some(Self { store, places }).filter(|cursor| cursor.format() == text)
    }

    fn format(&self) -> String {
        let mut text = format!("r{:x}", self.store);
        for Place { event, next } in &self.places {
            text.push_str(&format!("-{:x}.{:x}.{next:x}", event.0, event.1));
        }
        text
    }
}

fn hex(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was_written() {
        for text in ["r0", "rab-1.0.2", "rffffffffffffffff-0.0.0-1a2b3c.7.ff"] {
            assert_eq!(Cursor::parse(text).unwrap().format(), text);
        }
        for text in [
            "",
            "r",
            "m1-1",
            "r1-",
            "r1-1",
            "r1-1.1",
            "r1-1.1.1.1",
            "r01",
            "r1-+1.1.1",
            "r1-1.1.1 ",
            "R1",
        ] {
            assert!(Cursor::parse(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn an_event_is_read_in_parts() {
        let start = Place {
            event: (7, 0),
            next: 11,
        };
        let mut cursor = Cursor {
            store: 1,
            places: vec![start],
        };
        let fields = ["from", "queue", "p", "echo a b c$ d", "#", "10"].map(str::to_owned);
        let mut read = |max| {
            let mut changes = Vec::new();
            read_event(&mut cursor, 0, ("9-3", &fields[..]), max, &mut changes);
            let ids = changes.iter().map(|it| it.change.id.to_string());
            (ids.collect::<Vec<_>>(), cursor.format())
        };
        // The first change was read before, and the third is malformed.
        assert_eq!(read(1), (vec!["b".to_owned()], "r1-9.3.c".to_owned()));
        assert_eq!(read(9), (vec!["d".to_owned()], "r1-9.3.e".to_owned()));
        assert_eq!(read(9).0.len(), 0);
    }
}
