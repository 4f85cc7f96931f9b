//! Random operations on a store, compared with maps in memory. The seed is printed when they differ;
//! `HOSTEL_TEST_SEED` runs the same operations again.

use super::helpers::{Bucket, Change, Error, Store, delete, limits, name_cost, plugin, set};
use hostel_task::Name;
use std::collections::BTreeMap;

const STEPS: usize = 600;
const PLUGINS: usize = 2;
const STORES: [&str; 2] = ["a", "b"];
const KEYS: usize = 40;

type Entries = BTreeMap<String, Vec<u8>>;

struct Model {
    store: Store,
    random: fastrand::Rng,
    /// By plugin and store.
    places: Vec<Vec<(Bucket, Entries)>>,
    refused: usize,
}

/// Prints the seed when the run panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed was HOSTEL_TEST_SEED={}", self.0);
        }
    }
}

pub(super) async fn random_operations_match_the_model(store: Store) {
    let given = std::env::var("HOSTEL_TEST_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |text| text.parse().unwrap());
    let _seed = Seed(seed);
    let stores = |plugin: Name| {
        let bucket = |name| store.bucket(&plugin, name).unwrap();
        STORES.map(|name| (bucket(name), Entries::new())).to_vec()
    };
    let places = (0..PLUGINS).map(|_| stores(plugin())).collect();
    let mut model = Model {
        store: store.clone(),
        random: fastrand::Rng::with_seed(seed),
        places,
        refused: 0,
    };
    for _ in 0..STEPS {
        let at = (
            model.random.usize(..PLUGINS),
            model.random.usize(..STORES.len()),
        );
        match model.random.u32(..100) {
            0..45 => model.apply(at).await,
            45..65 => model.increment(at).await,
            65..90 => model.get(at).await,
            _ => model.list(at).await,
        }
    }
    assert!(model.refused > 0, "the limit was never reached");
    for plugin in 0..PLUGINS {
        for store in 0..STORES.len() {
            model.list((plugin, store)).await;
        }
    }
}

fn usage(stores: &[(Bucket, Entries)]) -> u64 {
    let stores = stores.iter().filter(|(_, entries)| !entries.is_empty());
    let bytes = |(key, value): (&String, &Vec<u8>)| name_cost(key) + value.len() as u64;
    let of_store = |(bucket, entries): &(Bucket, Entries)| {
        name_cost(bucket.store()) + entries.iter().map(bytes).sum::<u64>()
    };
    stores.map(of_store).sum()
}

impl Model {
    fn key(&mut self) -> String {
        format!("k{}", self.random.usize(..KEYS))
    }

    fn value(&mut self) -> Vec<u8> {
        match self.random.u32(..3) {
            0 => self.random.u16(..).to_string().into_bytes(),
            _ => vec![self.random.u8(..); self.random.usize(..limits().max_value_bytes)],
        }
    }

    /// Takes over `changed` if the store applied it, which has to be if it is within the limit.
    fn settle(&mut self, at: (usize, usize), changed: Entries, answer: Result<(), Error>) {
        let before = usage(&self.places[at.0]);
        let old = std::mem::replace(&mut self.places[at.0][at.1].1, changed);
        let after = usage(&self.places[at.0]);
        if after > before && after > limits().max_plugin_bytes {
            let why = answer.unwrap_err().to_string();
            assert!(why.contains(&format!("would keep {after} bytes")), "{why}");
            self.places[at.0][at.1].1 = old;
            self.refused += 1;
        } else {
            answer.unwrap();
        }
    }

    async fn apply(&mut self, at: (usize, usize)) {
        let count = self.random.usize(1..4);
        let changes: Vec<Change> = (0..count)
            .map(|_| match self.random.u32(..10) {
                0..8 => {
                    let (key, value) = (self.key(), self.value());
                    set(&key, &value)
                }
                _ => delete(&self.key()),
            })
            .collect();
        let values = changes.iter().map(|change| match change {
            Change::Set { value, .. } => value.len(),
            Change::Delete { .. } => 0,
        });
        if values.sum::<usize>() > limits().max_batch_bytes {
            return;
        }
        let (bucket, entries) = &self.places[at.0][at.1];
        let mut changed = entries.clone();
        for change in &changes {
            match change.clone() {
                Change::Set { key, value } => changed.insert(key, value),
                Change::Delete { key } => changed.remove(&key),
            };
        }
        let answer = self.store.apply(bucket, changes).await;
        self.settle(at, changed, answer);
    }

    async fn increment(&mut self, at: (usize, usize)) {
        let (key, delta) = (self.key(), self.random.u64(..1000));
        let (bucket, entries) = &self.places[at.0][at.1];
        let answer = self.store.increment(bucket, key.clone(), delta).await;
        let number = entries.get(&key).map_or(Some(0), |value| {
            let text = str::from_utf8(value).ok()?;
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u64>().ok())?
        });
        let Some(number) = number else {
            assert!(matches!(answer, Err(Error::Invalid(_))), "{answer:?}");
            return;
        };
        let sum = number + delta;
        let mut changed = entries.clone();
        changed.insert(key, sum.to_string().into_bytes());
        let answer = answer.map(|given| assert_eq!(given, sum));
        self.settle(at, changed, answer);
    }

    async fn get(&mut self, at: (usize, usize)) {
        let keys = vec![self.key(), self.key()];
        let (bucket, entries) = &self.places[at.0][at.1];
        let expected: Vec<_> = keys.iter().map(|key| entries.get(key).cloned()).collect();
        let there: Vec<bool> = expected.iter().map(Option::is_some).collect();
        assert_eq!(
            self.store.exists(bucket, keys.clone()).await.unwrap(),
            there
        );
        assert_eq!(self.store.get(bucket, keys).await.unwrap(), expected);
    }

    async fn list(&mut self, at: (usize, usize)) {
        let (bucket, entries) = &self.places[at.0][at.1];
        let mut keys = self.store.list(bucket, None).await.unwrap().keys;
        keys.sort();
        assert!(keys.iter().eq(entries.keys()), "{keys:?}");
    }
}
