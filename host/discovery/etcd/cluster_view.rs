//! The view that all parts of the etcd discovery share, and whether it is up to date.

use super::view::View;
use crate::error::Error;
use hostel_runtime::health::{Health, Part};
use parking_lot::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// The fault of a view that is not kept up to date.
const STALE: &str = "stale";

/// A shared `View` with its state.
pub(super) struct ClusterView {
    view: Mutex<View>,
    state: watch::Sender<State>,
    /// Signalled when this node's own record is not in etcd, though it should be.
    pub own_is_missing: Notify,
    health: Health,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// No snapshot has been loaded yet.
    Empty,
    Fresh,
    /// etcd is away since then.
    Stale(Instant),
}

impl ClusterView {
    pub fn new(grace: Duration, health: Health) -> Self {
        Self {
            view: Mutex::new(View::new(grace)),
            state: watch::Sender::new(State::Empty),
            own_is_missing: Notify::new(),
            health,
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, View> {
        self.view.lock()
    }

    /// Waits for the first snapshot.
    pub async fn loaded(&self) {
        let mut state = self.state.subscribe();
        // The sender is in `self`, so it is not closed.
        let _ = state.wait_for(|state| *state != State::Empty).await;
    }

    /// Since when the view is not kept up to date; `None` while it is.
    pub fn stale_since(&self) -> Option<Instant> {
        match *self.state.borrow() {
            State::Stale(since) => Some(since),
            State::Empty | State::Fresh => None,
        }
    }

    /// Records that a watch keeps the view up to date.
    pub fn set_fresh(&self) {
        let before = self.state.send_replace(State::Fresh);
        if let State::Stale(since) = before {
            let nodes = self.lock().nodes().len();
            let away = since.elapsed();
            tracing::info!(
                nodes,
                "etcd is back after {away:.1?}, the view of the cluster is fresh"
            );
            self.health.clear(Part::Discovery, STALE);
        }
    }

    /// Records that the watch has failed.
    pub fn set_stale(&self, why: &Error) {
        let was_fresh = self.state.send_if_modified(|state| {
            let was_fresh = *state == State::Fresh;
            if was_fresh {
                *state = State::Stale(Instant::now());
            }
            was_fresh
        });
        if !was_fresh {
            tracing::debug!("still no view of the cluster: {why}");
            return;
        }
        let nodes = self.lock().nodes().len();
        self.health.warn(
            Part::Discovery,
            STALE,
            format!("the last view of the cluster, of {nodes} nodes, serves; it is stale: {why}"),
        );
    }

    /// Signals `own_is_missing` if this node's record is not in the view.
    pub fn check_own(&self) {
        if !self.lock().has_own() {
            self.own_is_missing.notify_one();
        }
    }
}
