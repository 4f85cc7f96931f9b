//! Reads what is stored of a task without a script. In a Redis Cluster the keys of a slot that moves are found
//! one by one, while a script is refused until all of them have moved.

use super::{
    record::{self, Parts},
    shard_client::ShardClient,
};
use crate::Error;
use futures_util::future::{try_join, try_join4};
use hostel_task::TaskId;
use redis::cmd;

/// The most bytes of a record without its payload, or of an end without its result.
const HEAD: usize = 256 << 10;

/// Reads a task, with its record and that of its end as a whole if they have no more than so many bytes.
pub(super) async fn read(
    client: &ShardClient,
    id: &TaskId,
    (max_record, max_end): (usize, usize),
) -> Result<Option<Parts>, Error> {
    // The lease before the end: a task that ends in between has one of them.
    let (lease, lease_end) = read_lease(client, id).await?;
    let past = async {
        let mut get = cmd("GET");
        get.arg(client.key("past", id));
        client.short::<Option<Vec<u8>>>(&get).await
    };
    let progress = async {
        let mut get = cmd("HGET");
        let tag = &client.tags[client.shard_of(id)];
        get.arg(format!("{tag}:progress")).arg(id.as_str());
        client.short::<Option<Vec<u8>>>(&get).await
    };
    let values = try_join4(
        read_value(
            client,
            client.key("end", id),
            max_end,
            record::end_head_bytes,
        ),
        past,
        progress,
        read_value(
            client,
            client.key("task", id),
            max_record,
            record::head_bytes,
        ),
    );
    let ((end, end_size), past, progress, (record, size)) = values.await?;
    let (past, progress) = (past.unwrap_or_default(), progress.unwrap_or_default());
    let parts = (
        record, size, lease, lease_end, end, end_size, past, progress,
    );
    Ok((size > 0).then_some(parts))
}

/// Reads the value of a lease and its end; both are empty if there is none.
async fn read_lease(client: &ShardClient, id: &TaskId) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let tag = &client.tags[client.shard_of(id)];
    let mut get = cmd("HGET");
    get.arg(format!("{tag}:run")).arg(id.as_str());
    let lease: Option<Vec<u8>> = client.short(&get).await?;
    let Some(lease) = lease else {
        return Ok(Default::default());
    };
    let Some(task_type) = record::type_of_lease(&lease) else {
        return Ok((lease, Vec::new()));
    };
    let mut get = cmd("ZSCORE");
    get.arg(format!("{tag}:leases:{task_type}"))
        .arg(id.as_str());
    let end: Option<Vec<u8>> = client.short(&get).await?;
    Ok((lease, end.unwrap_or_default()))
}

/// Reads a value and its size; of one with more than `max` bytes only its head, whose size `head` returns.
async fn read_value(
    client: &ShardClient,
    key: String,
    max: usize,
    head: fn(&[u8]) -> usize,
) -> Result<(Vec<u8>, usize), Error> {
    let (mut length, mut get) = (cmd("STRLEN"), cmd("GETRANGE"));
    length.arg(&key);
    let most = max.max(HEAD);
    get.arg(&key).arg(0).arg(most - 1);
    let length = async { client.short::<usize>(&length).await };
    // Sent together, so most often they say the same. Otherwise the caller reads the value again.
    let read = try_join(length, client.read::<Vec<u8>>(most, &get));
    let (size, mut value) = read.await?;
    if size > max {
        value.truncate(head(&value));
    }
    Ok((value, size))
}
