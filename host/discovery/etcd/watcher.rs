//! Keeps the view like etcd: lists everything, follows the changes, and begins anew after whatever
//! comes between. While etcd is away the last view serves.

use super::{
    super::Error,
    entry::{Entry, Key},
    server::{ANSWER, Pause, Server},
    store::{self, Listed},
    view::View,
};
use etcd_client::{Client, EventType, GetOptions, KeyValue, WatchOptions, WatchResponse};
use hostel_runtime::health::{Health, Part};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Notify, watch};

/// How many entries one answer of a list holds: with the largest ones, less than a message may.
const PAGE: i64 = 128;
/// How often a watch that is silent is asked for a sign of life, and when it counts as dead.
const ASK_EVERY: Duration = Duration::from_secs(4);
const SILENT: Duration = Duration::from_secs(13);

/// The fault of a view that is not kept up to date.
const STALE: &str = "stale";

/// The view and what is known about it. Shared by all parts of this discovery.
pub(super) struct Seen {
    view: Mutex<View>,
    state: watch::Sender<State>,
    /// This node's own record is not in etcd, though it should be.
    pub own_is_missing: Notify,
    health: Health,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing has been listed yet.
    Empty,
    Fresh,
    /// etcd is away since then.
    Stale(Instant),
}

impl Seen {
    pub fn new(grace: Duration, health: Health) -> Self {
        Self {
            view: Mutex::new(View::new(grace)),
            state: watch::Sender::new(State::Empty),
            own_is_missing: Notify::new(),
            health,
        }
    }

    /// A view is whole after each of its calls, so a panic elsewhere does not spoil it.
    pub fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the first list.
    pub async fn listed(&self) {
        let mut state = self.state.subscribe();
        // The sender is in `self`, so it is not closed.
        let _ = state.wait_for(|state| *state != State::Empty).await;
    }

    /// Since when the view is no longer followed, if it is not.
    pub fn stale_since(&self) -> Option<Instant> {
        match *self.state.borrow() {
            State::Stale(since) => Some(since),
            State::Empty | State::Fresh => None,
        }
    }

    fn fresh(&self) {
        let before = self.state.send_replace(State::Fresh);
        if let State::Stale(since) = before {
            let nodes = self.view().nodes().len();
            let away = since.elapsed();
            tracing::info!(nodes, "etcd is back after {away:.1?}, its view is fresh");
            self.health.clear(Part::Discovery, STALE);
        }
    }

    fn stale(&self, why: &Error) {
        let fell = self.state.send_if_modified(|state| {
            let fresh = *state == State::Fresh;
            if fresh {
                *state = State::Stale(Instant::now());
            }
            fresh
        });
        if fell {
            let nodes = self.view().nodes().len();
            self.health.warn(
                Part::Discovery,
                STALE,
                format!(
                    "the last view of the cluster, of {nodes} nodes, serves; it is stale: {why}"
                ),
            );
        } else {
            tracing::debug!("still no view of the cluster: {why}");
        }
    }

    fn look_for_own(&self) {
        if !self.view().has_own() {
            self.own_is_missing.notify_one();
        }
    }
}

/// Follows etcd until it is dropped.
pub(super) struct Watcher {
    pub server: Arc<Server>,
    pub seen: Arc<Seen>,
    pub prefix: String,
}

impl Watcher {
    pub async fn run(self) {
        let mut pause = Pause::new();
        loop {
            let since = Instant::now();
            let Err(why) = self.follow().await;
            self.seen.stale(&why);
            if since.elapsed() > SILENT {
                pause = Pause::new();
            }
            pause.wait().await;
        }
    }

    async fn follow(&self) -> Result<std::convert::Infallible, Error> {
        let mut client = self.server.connect().await?;
        let revision = self.look(&mut client).await?;
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(revision + 1)
            .with_progress_notify();
        let watch = client.watch(format!("{}/", self.prefix), Some(options));
        let mut watch = self.server.within(watch).await?;
        self.seen.fresh();
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                message = watch.message() => {
                    heard = Instant::now();
                    match message.map_err(|error| self.server.explain(&error))? {
                        Some(message) => self.take(&message)?,
                        None => return Err(Error::Unavailable("etcd closed the watch".into())),
                    }
                }
                () = tokio::time::sleep(ASK_EVERY) => {
                    if heard.elapsed() > SILENT {
                        return Err(self.server.silent());
                    }
                    self.server.within(watch.request_progress()).await?;
                }
            }
        }
    }

    fn take(&self, message: &WatchResponse) -> Result<(), Error> {
        if message.canceled() {
            let why = match message.compact_revision() {
                0 => message.cancel_reason().to_owned(),
                compacted => format!("its history was compacted up to {compacted}"),
            };
            return Err(Error::Unavailable(format!("etcd ended the watch: {why}")));
        }
        // One message may hold several revisions, in order.
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
            self.seen.view().change(change, revision, Instant::now());
        }
        self.seen.look_for_own();
        Ok(())
    }

    /// Takes over everything as of one revision, which it returns. What etcd has lost and this node
    /// still knows is brought there before.
    async fn look(&self, client: &mut Client) -> Result<i64, Error> {
        let mut listed = self.list(client).await?;
        let lost = self.seen.view().lost_wishes(&listed);
        if listed.store.is_none() || !lost.is_empty() {
            store::restore(&self.server, client, &self.prefix, &listed, lost).await?;
            listed = self.list(client).await?;
        }
        let revision = listed.revision;
        self.seen.view().take(listed, Instant::now());
        self.seen.look_for_own();
        Ok(revision)
    }

    async fn list(&self, client: &mut Client) -> Result<Listed, Error> {
        let name = store::name_path(&self.prefix).into_bytes();
        let new = store::new_path(&self.prefix).into_bytes();
        let end = end_of(&self.prefix);
        let mut from = format!("{}/", self.prefix).into_bytes();
        let mut listed = Listed::default();
        loop {
            let options = GetOptions::new()
                .with_range(end.clone())
                .with_limit(PAGE)
                .with_revision(listed.revision);
            let mut page = self
                .server
                .within(client.get(from.clone(), Some(options)))
                .await?;
            if listed.revision == 0 {
                listed.revision = page.header().map_or(0, |header| header.revision());
            }
            let more = page.more();
            let pairs = page.take_kvs();
            if let Some(last) = pairs.last() {
                from = last.key().to_vec();
                from.push(0);
            }
            for pair in &pairs {
                if pair.key() == name {
                    listed.store = Some(pair.value().to_vec());
                }
                listed.is_new |= pair.key() == new;
            }
            listed.entries.extend(pairs.iter().filter_map(|pair| {
                let key = Key::parse(&self.prefix, pair.key())?;
                Some((parse(&key, pair)?, pair.mod_revision()))
            }));
            if !more {
                return Ok(listed);
            }
        }
    }
}

/// The first key behind all that begin with the prefix and a `/`.
fn end_of(prefix: &str) -> Vec<u8> {
    // `0` follows `/`.
    format!("{prefix}0").into_bytes()
}

/// `None` when it cannot be read, as what a newer version writes may not be.
fn parse(key: &Key, pair: &KeyValue) -> Option<Entry> {
    match Entry::parse(key, pair.value()) {
        Ok(entry) => Some(entry),
        Err(why) => {
            tracing::warn!(key = %String::from_utf8_lossy(pair.key()), "an entry in etcd cannot be read: {why}");
            None
        }
    }
}

const _: () = assert!(ASK_EVERY.as_secs() + ANSWER.as_secs() < SILENT.as_secs());
