//! What this queue's node runs, told to a shard once and not with every lease: scripts look it up under a
//! number (`script/want.lua`). A shard forgets it after some seconds, or with all its data, and is told
//! again.

use super::core::Core;
use crate::{Error, LeaseRequest, RequestedType, RequestedTypes};
use hostel_task::Name;
use redis::ScriptInvocation;
use std::sync::Arc;

/// More than any room, and still a whole number for a script.
const MUCH: usize = 1 << 52;

/// What one shard was told last.
#[derive(Default)]
pub(super) struct Told {
    number: u64,
    what: Option<(Arc<RequestedTypes>, Name, Vec<Name>)>,
}

impl Told {
    /// The number under which the shard knows what is wanted; tells it first if that is something else
    /// than before.
    pub async fn tell(
        &mut self,
        core: &Core,
        shard: usize,
        want: &LeaseRequest,
    ) -> Result<u64, Error> {
        let same = self.what.as_ref().is_some_and(|(types, node, labels)| {
            Arc::ptr_eq(types, &want.types) && *node == want.node && *labels == want.labels
        });
        if same {
            return Ok(self.number);
        }
        self.what = None;
        self.number += 1;
        let shards = core.tags.len();
        let () = core
            .call(shard, &core.scripts.want, |call| {
                let targets: Vec<_> = want.targets().map(|target| target.to_string()).collect();
                call.arg(self.number).arg(targets.len()).arg(targets);
                for (name, wanted) in &*want.types {
                    call.arg(name.as_str()).arg(wanted.max.min(MUCH));
                    call.arg(share(wanted, shard, shards));
                    call.arg(wanted.needs.memory_bytes.min(MUCH));
                    call.arg(wanted.needs.pool_slots.min(MUCH));
                }
            })
            .await?;
        let what = (want.types.clone(), want.node.clone(), want.labels.clone());
        self.what = Some(what);
        Ok(self.number)
    }

    /// The shard has forgotten it.
    pub fn forget(&mut self) {
        self.what = None;
    }
}

/// Says what is wanted, as `wants` of `script/common.lua` reads it.
pub(super) fn say(call: &mut ScriptInvocation<'_>, number: u64, want: &LeaseRequest) {
    call.arg(number)
        .arg(want.only.as_ref().map_or("", Name::as_str));
    call.arg(want.available.memory_bytes.min(MUCH));
    call.arg(want.available.pool_slots.min(MUCH));
    call.arg(u8::from(want.allow_suspect));
    let targets: Vec<_> = want.targets().map(|target| target.to_string()).collect();
    call.arg(targets.len()).arg(targets);
    for (task_type, &left) in &want.remaining {
        call.arg(task_type.as_str()).arg(left.min(MUCH));
    }
}

/// How many of a type may run in a shard, as scripts take it: -1 stands for any number.
fn share(wanted: &RequestedType, shard: usize, shards: usize) -> i64 {
    let max = wanted.max_cluster_concurrency;
    let share = max.map(|max| share_of(max, shard, shards));
    share
        .and_then(|share| i64::try_from(share).ok())
        .unwrap_or(-1)
}

/// A limit over all nodes, divided among the shards: each script sees its own shard alone. No share
/// is zero, so that no shard's tasks wait for ever; with more shards than the limit says, as many
/// may run as there are shards.
fn share_of(max: usize, shard: usize, shards: usize) -> usize {
    (max / shards + usize::from(shard < max % shards)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_limit() {
        for (max, shards) in [(1, 1), (7, 3), (8, 4), (100, 7)] {
            let sum: usize = (0..shards).map(|shard| share_of(max, shard, shards)).sum();
            assert_eq!(sum, max);
        }
        assert_eq!(share_of(1, 2, 3), 1);
    }
}
