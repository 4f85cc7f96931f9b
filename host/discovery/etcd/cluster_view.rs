//! The view that all parts of the etcd discovery share, and whether it is up to date.

use super::view::View;
use crate::{error::Error, record::ServiceInfo};
use hostel_runtime::health::{Health, Part};
use hostel_task::Name;
use parking_lot::{Mutex, MutexGuard};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
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

    /// Begins the write of a service, which counts towards `max` until the result is dropped, and from
    /// then on if it is in the view.
    pub fn begin_service(
        self: &Arc<Self>,
        service: &ServiceInfo,
        max: usize,
    ) -> Result<PendingService, Error> {
        let (name, id) = (&service.name, &service.id);
        if !self.lock().begin_service(name, id, max) {
            return Err(Error::Full { limit: max });
        }
        Ok(PendingService {
            view: self.clone(),
            name: name.clone(),
            id: id.clone(),
        })
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

/// A service that is being written.
pub(super) struct PendingService {
    view: Arc<ClusterView>,
    name: Name,
    id: Name,
}

impl Drop for PendingService {
    fn drop(&mut self) {
        self.view.lock().end_service(&self.name, &self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::keyspace::Entry, *};
    use std::collections::BTreeMap;

    #[test]
    fn services_that_are_being_written_count_towards_the_limit() {
        let name = |text| Name::parse("name", text).unwrap();
        let service = |id| ServiceInfo {
            id: name(id),
            name: name("web"),
            address: "a:1".into(),
            metadata: BTreeMap::new(),
            ttl: None,
        };
        let view = Arc::new(ClusterView::new(Duration::from_secs(15), Health::default()));
        let begin = |id| view.begin_service(&service(id), 2);
        let (first, second) = (begin("a").unwrap(), begin("b").unwrap());
        assert!(matches!(begin("c"), Err(Error::Full { limit: 2 })));
        // A second write of a service adds none.
        drop(begin("a").unwrap());
        assert!(begin("c").is_err());
        // The first one fails.
        drop(first);
        drop(begin("c").unwrap());
        // The second one is written, and counts once.
        view.lock().apply_write(Entry::Service(service("b")), 1);
        let third = begin("c").unwrap();
        drop(second);
        assert!(begin("d").is_err());
        drop(third);
        assert!(begin("d").is_ok());
    }
}
