//! The arguments of the scripts that select waiting tasks. The task types of this node are registered with
//! a shard once and not sent with every lease: the scripts look them up under a number
//! (`scripts/register_types.lua`). A shard that has lost them, after some seconds or with all its data,
//! says so.

use super::{lease_sequence::RegisteredTypes, shard_client::ShardClient};
use crate::{Error, LeaseRequest};
use hostel_task::Name;
use redis::ScriptInvocation;

/// Stands for "unlimited": larger than any limit, and still a whole number in Lua.
const UNLIMITED: usize = 1 << 52;

/// Returns the number under which the shard knows the task types of `request`, and registers them first
/// if it does not.
pub(super) async fn register(
    types: &mut RegisteredTypes,
    client: &ShardClient,
    shard: usize,
    request: &LeaseRequest,
) -> Result<u64, Error> {
    if let Some(number) = types.number_for(request) {
        return Ok(number);
    }
    let number = types.next_number();
    let () = client
        .call(shard, &client.scripts.register_types, |call| {
            call.arg(number);
            push_targets(call, request);
            for (name, requested) in &*request.types {
                call.arg(name.as_str())
                    .arg(requested.max.min(UNLIMITED))
                    .arg(requested.needs.memory_bytes.min(UNLIMITED))
                    .arg(requested.needs.pool_slots.min(UNLIMITED));
            }
        })
        .await?;
    types.set(request);
    Ok(number)
}

/// Adds the arguments that `scripts/shared/request.lua` reads.
pub(super) fn push(call: &mut ScriptInvocation<'_>, number: u64, request: &LeaseRequest) {
    call.arg(number)
        .arg(request.only.as_ref().map_or("", Name::as_str))
        .arg(request.available.memory_bytes.min(UNLIMITED))
        .arg(request.available.pool_slots.min(UNLIMITED))
        .arg(u8::from(request.allow_suspect));
    push_targets(call, request);
    for (task_type, &remaining) in &request.remaining {
        call.arg(task_type.as_str()).arg(remaining.min(UNLIMITED));
    }
}

fn push_targets(call: &mut ScriptInvocation<'_>, request: &LeaseRequest) {
    let targets: Vec<_> = request.targets().map(|target| target.to_string()).collect();
    call.arg(targets.len()).arg(targets);
}
