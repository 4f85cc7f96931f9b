//! Which store each shard is in, by an identity that the first queue to open it writes there. Another
//! one means that Redis has lost its data, or that another Redis has taken its place. Calls nothing.

use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// The identities found so far.
pub(super) struct Stores {
    known: Mutex<Vec<Option<String>>>,
    /// How often a shard was found in another store than before.
    lost: watch::Sender<u64>,
}

impl Stores {
    pub fn new(shards: u32) -> Self {
        let shards = usize::try_from(shards).unwrap_or_default();
        Self {
            known: Mutex::new(vec![None; shards]),
            lost: watch::Sender::new(0),
        }
    }

    /// Takes down where a shard was found; `true` when that is another store than before.
    pub fn found(&self, shard: usize, identity: String) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known
            .get_mut(shard)
            .and_then(|it| it.replace(identity.clone()));
        let is_other = before.is_some_and(|before| before != identity);
        if is_other {
            self.lost.send_modify(|times| *times += 1);
        }
        is_other
    }

    /// Changes when a shard is found in another store.
    pub fn lost(&self) -> watch::Receiver<u64> {
        self.lost.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_store_than_before_is_a_loss() {
        let stores = Stores::new(2);
        let found = |shard, identity: &str| stores.found(shard, identity.into());
        assert!(!found(0, "a") && !found(1, "b") && !found(0, "a"));
        assert!(!stores.lost().has_changed().unwrap());
        let lost = stores.lost();
        assert!(found(1, "c") && !found(1, "c"));
        assert!(lost.has_changed().unwrap());
    }
}
