//! Splits a batch into parts that one script can take, and puts the answers together again.

use super::shard_client::ShardClient;
use crate::Error;
use hostel_task::TaskId;

/// The most tasks and bytes of one script. Lua could take some thousands of tasks.
pub(super) const MAX_TASKS: usize = 500;
pub(super) const MAX_BYTES: usize = 8 << 20;

/// A shard, and the positions of its items in the whole batch.
pub(super) type Part = (usize, Vec<usize>);

/// Splits items by shard and by what one script can take. The parts of each shard are in the order of the
/// batch.
pub(super) fn split_by_shard<T>(
    client: &ShardClient,
    items: &[T],
    id: impl Fn(&T) -> &TaskId,
    size: impl Fn(&T) -> usize,
) -> Vec<Part> {
    split_by(
        client.tags.len(),
        items,
        |item| client.shard_of(id(item)),
        size,
    )
}

/// Does the same for items of which `shard_of` returns the shard.
pub(super) fn split_by<T>(
    shards: usize,
    items: &[T],
    shard_of: impl Fn(&T) -> usize,
    size: impl Fn(&T) -> usize,
) -> Vec<Part> {
    let mut parts = Vec::new();
    // Each shard's last part and its bytes.
    let mut last = vec![(Vec::new(), 0); shards];
    for (position, item) in items.iter().enumerate() {
        let shard = shard_of(item);
        let (part, bytes) = &mut last[shard];
        let more = size(item);
        if part.len() == MAX_TASKS || (*bytes + more > MAX_BYTES && !part.is_empty()) {
            parts.push((shard, std::mem::take(part)));
            *bytes = 0;
        }
        part.push(position);
        *bytes += more;
    }
    let last = last.into_iter().map(|(part, _)| part).enumerate();
    parts.extend(last.filter(|(_, part)| !part.is_empty()));
    parts
}

/// Returns the answers in the order of the batch. Items of a part that failed have the answer
/// `unconfirmed`; `Err` if every part failed. `what` completes "cannot ...".
pub(super) fn reassemble_available<A: Clone>(
    client: &ShardClient,
    what: &str,
    count: usize,
    answers: Vec<(Part, Result<Vec<A>, Error>)>,
    unconfirmed: A,
) -> Result<Vec<A>, Error> {
    let mut reassembled = vec![unconfirmed; count];
    let answers = answers.into_iter().map(|((shard, positions), answers)| {
        let answers = answers.map(|answers| positions.into_iter().zip(answers));
        (shard, answers)
    });
    let available = client.collect_available(what, answers)?;
    for (position, answer) in available.into_iter().flatten() {
        reassembled[position] = answer;
    }
    Ok(reassembled)
}

/// Returns the answers in the order of the batch; `Corrupt` if one is missing.
pub(super) fn reassemble<A>(count: usize, answers: Vec<Vec<(usize, A)>>) -> Result<Vec<A>, Error> {
    let mut answers: Vec<(usize, A)> = answers.into_iter().flatten().collect();
    if answers.len() != count {
        let returned = answers.len();
        return Err(Error::Corrupt(format!(
            "the scripts answered {returned} of {count} items"
        )));
    }
    answers.sort_unstable_by_key(|&(position, _)| position);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}
