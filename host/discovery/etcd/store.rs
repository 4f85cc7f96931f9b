//! Which etcd this is, by a key that is written once: `PREFIX/store`. Another one there means that etcd
//! has lost what it knew. Then wishes that nodes still know of are written again, for a short while only,
//! and not after anybody has taken one back. What a lost wish is, is the view's matter.

use super::{
    super::Error,
    announcement::seconds,
    entry::{Entry, Key},
    server::Server,
};
use etcd_client::{Client, Compare, CompareOp, PutOptions, Txn, TxnOp};
use hostel_task::Name;
use std::time::Duration;
use uuid::Uuid;

/// For how long after a store has got its name nodes may bring it what the one before knew. Whoever
/// was away for longer cannot know what has been taken back meanwhile.
const NEW: Duration = Duration::from_secs(30);

/// All that etcd had at one revision.
#[derive(Default)]
pub(super) struct Listed {
    pub entries: Vec<(Entry, i64)>,
    pub revision: i64,
    /// The name of this store; `None` while it has none.
    pub store: Option<Vec<u8>>,
    /// It got its name a short while ago.
    pub is_new: bool,
}

/// Where a store's name stands.
pub(super) fn name_path(prefix: &str) -> String {
    format!("{prefix}/store")
}

/// What stands there for as long as a store is new.
pub(super) fn new_path(prefix: &str) -> String {
    format!("{prefix}/store-is-new")
}

/// Gives the store a name if it has none, and writes wishes that it has lost.
pub(super) async fn restore(
    server: &Server,
    client: &mut Client,
    prefix: &str,
    listed: &Listed,
    lost: Vec<Name>,
) -> Result<(), Error> {
    let (name, new) = (name_path(prefix), new_path(prefix));
    let is_absent = |key: String| Compare::create_revision(key, CompareOp::Equal, 0);
    if listed.store.is_none() {
        let lease = client.lease_grant(seconds(NEW), None);
        let lease = server.within(lease).await?.id();
        let while_new = PutOptions::new().with_lease(lease);
        let id = format!("\"{}\"", Uuid::now_v7());
        let txn = Txn::new().when([is_absent(name.clone())]).and_then([
            TxnOp::put(name.clone(), id, None),
            TxnOp::put(new.clone(), "{}", Some(while_new)),
        ]);
        // Somebody else may have been first, which is as good.
        server.within(client.txn(txn)).await?;
    }
    for node in lost {
        let key = Key::Drained(node.clone()).path(prefix);
        let value = Entry::Drained(node.clone())
            .value()
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        let may = match &listed.store {
            Some(id) if !listed.is_new => {
                Compare::value(name.clone(), CompareOp::Equal, id.clone())
            }
            Some(_) | None => Compare::create_revision(new.clone(), CompareOp::Greater, 0),
        };
        let txn = Txn::new()
            .when([is_absent(key.clone()), may])
            .and_then([TxnOp::put(key, value, None)]);
        if server.within(client.txn(txn)).await?.succeeded() {
            tracing::warn!(%node, "etcd has lost its data: wrote again that this node is drained");
        }
    }
    Ok(())
}

/// Takes a wish back, in the store that the view knows and in no other. From then on nobody brings
/// anything from before. `Err` where this is another store; returns the revision.
pub(super) async fn take_back(
    server: &Server,
    client: &mut Client,
    prefix: &str,
    wish: &Key,
    known: Option<Vec<u8>>,
) -> Result<i64, Error> {
    let name = name_path(prefix);
    let same = match known {
        Some(id) => Compare::value(name, CompareOp::Equal, id),
        None => Compare::create_revision(name, CompareOp::Equal, 0),
    };
    let txn = Txn::new().when([same]).and_then([
        TxnOp::delete(wish.path(prefix), None),
        TxnOp::delete(new_path(prefix), None),
    ]);
    let done = server.within(client.txn(txn)).await?;
    match done.succeeded() {
        true => Ok(done.header().map_or(0, |header| header.revision())),
        false => Err(Error::Unavailable(
            "etcd has lost its data, and this node has yet to see what is there; try again".into(),
        )),
    }
}
