//! The identity of an etcd's data: a name that is written once, under `PREFIX/store`.
//!
//! Another name means that etcd has lost its data. Nodes then write drain requests again that they still
//! know of, for a short time only, and only until one is withdrawn. The view decides which were lost.

use super::{
    keyspace::{Entry, Key},
    server::{Server, lease_seconds},
};
use crate::error::Error;
use etcd_client::{Client, Compare, CompareOp, PutOptions, Txn, TxnOp};
use hostel_task::Name;
use std::time::Duration;
use uuid::Uuid;

/// For how long after a store was named nodes may restore drain requests of its predecessor. A node that
/// was away for longer cannot know which ones were withdrawn meanwhile.
const NEW: Duration = Duration::from_secs(30);

/// Everything that etcd had at one revision.
#[derive(Default)]
pub(super) struct Snapshot {
    pub entries: Vec<(Entry, i64)>,
    pub revision: i64,
    /// The name of this store; `None` while it has none.
    pub store: Option<Vec<u8>>,
    /// Whether it was named within the last `NEW`.
    pub is_new: bool,
}

/// The key of a store's name.
pub(super) fn name_path(prefix: &str) -> String {
    format!("{prefix}/store")
}

/// The key that exists for as long as a store is new.
pub(super) fn new_path(prefix: &str) -> String {
    format!("{prefix}/store-is-new")
}

/// Names the store if it has no name, and writes the drain requests that it has lost.
pub(super) async fn restore(
    server: &Server,
    client: &mut Client,
    prefix: &str,
    snapshot: &Snapshot,
    lost: Vec<Name>,
) -> Result<(), Error> {
    let (name, new) = (name_path(prefix), new_path(prefix));
    let is_absent = |key: String| Compare::create_revision(key, CompareOp::Equal, 0);
    if snapshot.store.is_none() {
        let lease = client.lease_grant(lease_seconds(NEW), None);
        let lease = server.within(lease).await?.id();
        let while_new = PutOptions::new().with_lease(lease);
        let id = format!("\"{}\"", Uuid::now_v7());
        let txn = Txn::new().when([is_absent(name.clone())]).and_then([
            TxnOp::put(name.clone(), id, None),
            TxnOp::put(new.clone(), "{}", Some(while_new)),
        ]);
        // If another node was first, its name stands.
        server.within(client.txn(txn)).await?;
    }
    for node in lost {
        let key = Key::Drained(node.clone()).path(prefix);
        let value = Entry::Drained(node.clone())
            .value()
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        let may_restore = match &snapshot.store {
            Some(id) if !snapshot.is_new => {
                Compare::value(name.clone(), CompareOp::Equal, id.clone())
            }
            Some(_) | None => Compare::create_revision(new.clone(), CompareOp::Greater, 0),
        };
        let txn = Txn::new()
            .when([is_absent(key.clone()), may_restore])
            .and_then([TxnOp::put(key, value, None)]);
        if server.within(client.txn(txn)).await?.succeeded() {
            tracing::warn!(%node, "etcd has lost its data: wrote this node's drain request again");
        }
    }
    Ok(())
}

/// Deletes a drain request in the store that the view is of, and returns the revision. `Err` if this is
/// another store. Afterwards no node restores requests of a predecessor.
pub(super) async fn delete_drain_request(
    server: &Server,
    client: &mut Client,
    prefix: &str,
    request: &Key,
    known: Option<Vec<u8>>,
) -> Result<i64, Error> {
    let name = name_path(prefix);
    let same = match known {
        Some(id) => Compare::value(name, CompareOp::Equal, id),
        None => Compare::create_revision(name, CompareOp::Equal, 0),
    };
    let txn = Txn::new().when([same]).and_then([
        TxnOp::delete(request.path(prefix), None),
        TxnOp::delete(new_path(prefix), None),
    ]);
    let done = server.within(client.txn(txn)).await?;
    if !done.succeeded() {
        return Err(Error::Unavailable(
            "etcd has lost its data, and this node has not read the new data yet; try again".into(),
        ));
    }
    Ok(done.header().map_or(0, |header| header.revision()))
}
