//! The identity of the store of each shard, which the first queue to open the shard writes there. Another
//! identity means that Redis has lost its data, or that another Redis has taken its place.

use parking_lot::Mutex;
use tokio::sync::watch;

/// The identities found so far.
pub(super) struct StoreIdentities {
    known: Mutex<Vec<Option<String>>>,
    /// Counts the shards that were found in another store than before.
    losses: watch::Sender<u64>,
}

impl StoreIdentities {
    pub fn new(shards: u32) -> Self {
        let shards = usize::try_from(shards).unwrap_or_default();
        Self {
            known: Mutex::new(vec![None; shards]),
            losses: watch::Sender::new(0),
        }
    }

    /// Records the store of a shard, and returns whether it is another one than before.
    pub fn record(&self, shard: usize, identity: String) -> bool {
        let before = self
            .known
            .lock()
            .get_mut(shard)
            .and_then(|known| known.replace(identity.clone()));
        let is_other = before.is_some_and(|before| before != identity);
        if is_other {
            self.losses.send_modify(|count| *count += 1);
        }
        is_other
    }

    /// Returns a number that is the same for the same stores, in every version: FNV-1a, 64 bits.
    pub fn fingerprint(&self) -> u64 {
        let known = self.known.lock();
        let words = known
            .iter()
            .flatten()
            .flat_map(|store| store.bytes().chain([b' ']));
        words.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// Changes when a shard is found in another store.
    pub fn losses(&self) -> watch::Receiver<u64> {
        self.losses.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_store_than_before_is_a_loss() {
        let stores = StoreIdentities::new(2);
        let record = |shard, identity: &str| stores.record(shard, identity.into());
        assert!(!record(0, "a") && !record(1, "b") && !record(0, "a"));
        assert!(!stores.losses().has_changed().unwrap());
        let losses = stores.losses();
        assert!(record(1, "c") && !record(1, "c"));
        assert!(losses.has_changed().unwrap());
        let before = stores.fingerprint();
        assert_eq!(before, stores.fingerprint());
        record(0, "d");
        assert_ne!(before, stores.fingerprint());
    }
}
