//! Keeps the view up to date: loads a snapshot, follows the changes after it, and begins again after
//! every failure. While etcd is away the last view serves.

use super::{
    cluster_view::ClusterView,
    keyspace::{Entry, Key},
    server::{ANSWER, Server, backoff},
    store_identity::{self, Snapshot},
};
use crate::error::Error;
use etcd_client::{Client, EventType, GetOptions, KeyValue, WatchOptions, WatchResponse};
use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

/// How many entries one page of a snapshot has, and the most bytes of its message: etcd takes requests of up
/// to 1.5 MiB, so a page of the largest values has 24 MiB.
const PAGE: i64 = 16;
const PAGE_BYTES: usize = 32 << 20;
/// How often an idle watch is asked for its progress, and when it counts as dead.
const PROGRESS_EVERY: Duration = Duration::from_secs(4);
const SILENT: Duration = Duration::from_secs(13);

/// Watches etcd until it is dropped.
pub(super) struct Watcher {
    pub server: Arc<Server>,
    pub view: Arc<ClusterView>,
    pub prefix: String,
}

impl Watcher {
    pub async fn run(self) {
        let mut backoff = backoff();
        loop {
            let since = Instant::now();
            let Err(why) = self.watch().await;
            self.view.set_stale(&why);
            if since.elapsed() > SILENT {
                backoff.reset();
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// Loads a snapshot and applies changes until something fails.
    async fn watch(&self) -> Result<Infallible, Error> {
        let mut client = self.server.connect().await?;
        let revision = self.load(&mut client).await?;
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(revision + 1)
            // Many large changes at once come in several messages, and not in one that is too large.
            .with_fragment()
            .with_progress_notify();
        let watch = client.watch(format!("{}/", self.prefix), Some(options));
        let mut watch = self.server.within(watch).await?;
        self.view.set_fresh();
        let mut last_message = Instant::now();
        loop {
            tokio::select! {
                message = watch.message() => {
                    last_message = Instant::now();
                    match message.map_err(|error| self.server.explain(&error))? {
                        Some(message) => self.apply(&message)?,
                        None => return Err(Error::Unavailable("etcd closed the watch".into())),
                    }
                }
                () = tokio::time::sleep(PROGRESS_EVERY) => {
                    if last_message.elapsed() > SILENT {
                        return Err(self.server.no_answer());
                    }
                    self.server.within(watch.request_progress()).await?;
                }
            }
        }
    }

    fn apply(&self, message: &WatchResponse) -> Result<(), Error> {
        if message.canceled() {
            let why = match message.compact_revision() {
                0 => message.cancel_reason().to_owned(),
                compacted => format!("its history was compacted up to {compacted}"),
            };
            return Err(Error::Unavailable(format!("etcd ended the watch: {why}")));
        }
        // One message may have several revisions, in order.
        let changes = message.events().iter().filter_map(|event| {
            let pair = event.kv()?;
            let key = Key::parse(&self.prefix, pair.key())?;
            let entry = match event.event_type() {
                EventType::Delete => None,
                EventType::Put => Some(parse(&key, pair)?),
            };
            Some((pair.mod_revision(), key, entry))
        });
        for (revision, key, entry) in changes {
            let change = vec![(key, entry)];
            self.view.lock().change(change, revision, Instant::now());
        }
        self.view.check_own();
        Ok(())
    }

    /// Loads a snapshot into the view, and returns its revision. Before that it restores drain requests
    /// that etcd has lost and this node still knows.
    async fn load(&self, client: &mut Client) -> Result<i64, Error> {
        let mut snapshot = self.snapshot(client).await?;
        let lost = self.view.lock().lost_drain_requests(&snapshot);
        if snapshot.store.is_none() || !lost.is_empty() {
            store_identity::restore(&self.server, client, &self.prefix, &snapshot, lost).await?;
            snapshot = self.snapshot(client).await?;
        }
        let revision = snapshot.revision;
        self.view.lock().load(snapshot, Instant::now());
        self.view.check_own();
        Ok(revision)
    }

    /// Reads everything below the prefix at one revision, page by page.
    async fn snapshot(&self, client: &Client) -> Result<Snapshot, Error> {
        let name = store_identity::name_path(&self.prefix).into_bytes();
        let new = store_identity::new_path(&self.prefix).into_bytes();
        let end = end_of(&self.prefix);
        let mut reader = client.kv_client().max_decoding_message_size(PAGE_BYTES);
        let mut from = format!("{}/", self.prefix).into_bytes();
        let mut snapshot = Snapshot::default();
        loop {
            let options = GetOptions::new()
                .with_range(end.clone())
                .with_limit(PAGE)
                .with_revision(snapshot.revision);
            let mut page = self
                .server
                .within(reader.get(from.clone(), Some(options)))
                .await?;
            if snapshot.revision == 0 {
                snapshot.revision = page.header().map_or(0, |header| header.revision());
            }
            let more = page.more();
            let pairs = page.take_kvs();
            if let Some(last) = pairs.last() {
                from = last.key().to_vec();
                from.push(0);
            }
            for pair in &pairs {
                if pair.key() == name {
                    snapshot.store = Some(pair.value().to_vec());
                }
                snapshot.is_new |= pair.key() == new;
            }
            snapshot.entries.extend(pairs.iter().filter_map(|pair| {
                let key = Key::parse(&self.prefix, pair.key())?;
                Some((parse(&key, pair)?, pair.mod_revision()))
            }));
            if !more {
                return Ok(snapshot);
            }
        }
    }
}

/// Returns the end of the range of keys that begin with the prefix and a `/`.
fn end_of(prefix: &str) -> Vec<u8> {
    // `0` follows `/`.
    format!("{prefix}0").into_bytes()
}

/// Parses an entry; `None` if it cannot be read, as may be with one that a newer version wrote.
fn parse(key: &Key, pair: &KeyValue) -> Option<Entry> {
    match Entry::parse(key, pair.value()) {
        Ok(entry) => Some(entry),
        Err(why) => {
            tracing::warn!(key = %String::from_utf8_lossy(pair.key()), "an entry in etcd cannot be read: {why}");
            None
        }
    }
}

const _: () = assert!(PROGRESS_EVERY.as_secs() + ANSWER.as_secs() < SILENT.as_secs());
