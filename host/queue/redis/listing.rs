//! Pages of tasks: those of all shards, newest first, that pass a filter.

use super::{
    attempts::STEP,
    record::{self, Parts},
    shard_client::ShardClient,
};
use crate::{Error, Filter, Listing, Page};
use futures_util::future::try_join_all;
use hostel_task::{Name, Task};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// The most tasks of a page.
const MAX_PAGE: usize = 1000;

/// The most tasks that one script lists, so that it delays no submission.
const LIST: usize = 128;

/// The most bytes of the tasks that one script lists, without the last task's.
const LIST_BYTES: usize = 256 << 10;

/// How long tasks are searched for one page, if they can only be found by what executed them or by their times.
const SEARCH_TIME: Duration = Duration::from_millis(15);

/// An id that is before all others.
const FIRST_ID: &str = "0";

/// The position of a task in the order of submission, and its id, as Redis returned them.
type Position = (String, String);

/// Parses a page token: the position of the last task of the previous page.
pub(super) fn parse_token(token: Option<&str>) -> Result<Option<Position>, Error> {
    let Some(token) = token else {
        return Ok(None);
    };
    let position = || {
        let (order, id) = token.strip_prefix('p')?.split_once('-')?;
        order.parse::<u64>().ok()?;
        Name::parse("task id", id).ok()?;
        let plain = order.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| (order.to_owned(), id.to_owned()))
    };
    position().map(Some).ok_or(Error::BadPage)
}

/// Where one script stopped, and the id and the order of each task with what is stored of it.
type Rows = (String, String, Vec<(String, String, Parts)>);

/// The tasks of a shard.
struct OfShard {
    found: Vec<(u64, Task)>,
    /// How far the shard was searched, if that was not to its end.
    searched: Option<(u64, String)>,
}

/// Returns the newest tasks of all shards after the given position that pass the filter.
pub(super) async fn list(
    client: &ShardClient,
    filter: &Filter,
    page: &Page,
    after: Option<Position>,
) -> Result<Listing, Error> {
    let (size, since) = (page.size.clamp(1, MAX_PAGE), Instant::now());
    let after = first_position(filter, after);
    // One task more than the page shows whether there is a next page.
    let shards = client
        .shards()
        .map(|shard| list_shard(client, shard, filter, size + 1, after.clone(), since));
    let mut found = Vec::new();
    let mut searched: Option<(u64, String)> = None;
    for shard in try_join_all(shards).await? {
        found.extend(shard.found);
        // Beyond this place, one shard may have tasks that are not found yet.
        searched = searched.max(shard.searched);
    }
    if let Some((order, id)) = &searched {
        found.retain(|(of, task)| (of, task.id.as_str()) >= (order, id.as_str()));
    }
    found.sort_unstable_by(|(a, x), (b, y)| (b, &y.id).cmp(&(a, &x.id)));
    let more = found.len() > size;
    found.truncate(size);
    let last = found.last().filter(|_| more);
    let last = last.map(|(order, task)| (*order, task.id.to_string()));
    Ok(Listing {
        next: last
            .or(searched)
            .map(|(order, id)| format!("p{order}-{id}")),
        tasks: found.into_iter().map(|(_, task)| task).collect(),
    })
}

/// Returns where a page begins: after the previous one, and with the last task that was submitted in time.
fn first_position(filter: &Filter, after: Option<Position>) -> Option<Position> {
    let Some(until) = filter.submitted.until else {
        return after;
    };
    let until = until.0.saturating_mul(STEP);
    let is_after = |(order, _): &Position| order.parse().is_ok_and(|order: u64| order < until);
    let bound = || (until.to_string(), FIRST_ID.to_owned());
    Some(after.filter(is_after).unwrap_or_else(bound))
}

/// Returns a task as lists show it.
fn without_metadata(task: Task) -> Task {
    Task {
        metadata: Arc::default(),
        ..task
    }
}

async fn list_shard(
    client: &ShardClient,
    shard: usize,
    filter: &Filter,
    size: usize,
    mut after: Option<Position>,
    since: Instant,
) -> Result<OfShard, Error> {
    let mut found = Vec::new();
    let is_search = filter.needs_search();
    let from = filter
        .submitted
        .from
        .map_or(0, |from| from.0.saturating_mul(STEP));
    loop {
        let left = if is_search { LIST } else { size - found.len() };
        let (order, id, rows): Rows = client
            .call_for_read(shard, &client.scripts.list, LIST_BYTES, |call| {
                let state = filter.state.map(|state| record::letter(state).to_string());
                let (order, id) = after.take().unwrap_or_default();
                call.arg(state.unwrap_or_default());
                call.arg(filter.task_type.as_ref().map_or("", Name::as_str));
                call.arg(filter.group.as_ref().map_or("", Name::as_str));
                call.arg(filter.tag.as_ref().map_or("", Name::as_str));
                call.arg(order).arg(id);
                call.arg(left.min(LIST)).arg(LIST_BYTES);
            })
            .await?;
        for (id, order, parts) in rows {
            // An entry with an invalid id is not a task.
            if let (Ok(id), Ok(order)) = (Name::parse("task id", &id), order.parse()) {
                let task = without_metadata(record::task(id, parts));
                if !is_search || filter.selects(&task) {
                    found.push((order, task));
                }
            }
        }
        let stopped = order.parse().unwrap_or(0);
        if order.is_empty() || found.len() >= size || (is_search && stopped < from) {
            let searched = None;
            return Ok(OfShard { found, searched });
        }
        let id = if id.is_empty() {
            FIRST_ID.to_owned()
        } else {
            id
        };
        if is_search && since.elapsed() > SEARCH_TIME {
            let searched = Some((stopped, id));
            return Ok(OfShard { found, searched });
        }
        after = Some((order, id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TimeRange;
    use hostel_task::UnixMs;

    #[test]
    fn a_search_begins_with_the_last_task_that_was_submitted_in_time() {
        let until = |ms| Filter {
            submitted: TimeRange {
                from: None,
                until: Some(UnixMs(ms)),
            },
            ..Filter::default()
        };
        let position = |order: u64| (order.to_string(), "a".to_owned());
        let bound = Some((2048.to_string(), FIRST_ID.to_owned()));
        assert_eq!(first_position(&until(1), None), bound);
        assert_eq!(first_position(&until(1), Some(position(9000))), bound);
        let earlier = Some(position(2000));
        assert_eq!(first_position(&until(1), earlier.clone()), earlier);
        assert_eq!(first_position(&Filter::default(), earlier.clone()), earlier);
        assert!(first_position(&until(u64::MAX), None).is_some());
    }
}
