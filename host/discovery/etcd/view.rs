//! The last known content of etcd: nodes, services and drain requests, from a snapshot and the changes
//! after it. Pure: callers pass content and time. Subscribers are notified of changes.

use super::{
    keyspace::{Entry, Key, RegisteredNode},
    store_identity::Snapshot,
};
use crate::{
    error::Error,
    record::{NodeRecord, ServiceInfo, copy_within},
};
use hostel_task::Name;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// The last known content of etcd.
pub(super) struct View {
    nodes: BTreeMap<Name, Node>,
    services: BTreeMap<Name, BTreeMap<Name, Service>>,
    services_count: usize,
    /// The services that are being written, and by how many calls.
    pending_services: BTreeMap<(Name, Name), usize>,
    /// The nodes with a drain request, and its revision.
    drained: BTreeMap<Name, i64>,
    /// Nodes that were removed within the last `grace`, and when.
    removed: Vec<(Instant, RegisteredNode)>,
    /// The last revision of etcd that the view contains.
    revision: i64,
    /// The name of the store that the view is of.
    store: Option<Vec<u8>>,
    /// This node's record while it is registered or being registered.
    own: Option<NodeRecord>,
    /// What `nodes` and `drained` return.
    shown: Arc<[NodeRecord]>,
    shown_drained: Arc<BTreeSet<Name>>,
    changed: watch::Sender<u64>,
    /// How long nodes are kept after all of them were removed at once.
    grace: Duration,
    /// When this node's own record was last removed; it may have been written again.
    own_removed: Option<Instant>,
}

/// An unconfirmed node that still listens is kept for this many times the grace, and no longer, since
/// another program may listen there by then.
const MOST_GRACES: u32 = 4;

struct Node {
    registered: RegisteredNode,
    revision: i64,
    /// Set when etcd has lost the node together with all others.
    unconfirmed: Option<Unconfirmed>,
}

/// How long a node is kept that etcd has lost.
struct Unconfirmed {
    until: Instant,
    /// The limit of `until`, however often the node answers.
    at_most: Instant,
}

struct Service {
    info: ServiceInfo,
    revision: i64,
}

impl View {
    pub fn new(grace: Duration) -> Self {
        Self {
            nodes: BTreeMap::new(),
            services: BTreeMap::new(),
            services_count: 0,
            pending_services: BTreeMap::new(),
            drained: BTreeMap::new(),
            removed: Vec::new(),
            revision: 0,
            store: None,
            own: None,
            shown: Arc::new([]),
            shown_drained: Arc::default(),
            changed: watch::Sender::new(0),
            grace,
            own_removed: None,
        }
    }

    /// The nodes, including this one.
    pub fn nodes(&self) -> Arc<[NodeRecord]> {
        self.shown.clone()
    }

    /// The nodes with a drain request, live or not.
    pub fn drained(&self) -> Arc<BTreeSet<Name>> {
        self.shown_drained.clone()
    }

    /// Changes after `nodes` or `drained` has changed, and when nodes become unconfirmed.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The services of a name, unless they have more than `max_bytes` together.
    pub fn services(&self, name: &Name, max_bytes: usize) -> Result<Vec<ServiceInfo>, Error> {
        let ids = self.services.get(name).into_iter();
        let services = ids.flat_map(BTreeMap::values).map(|service| &service.info);
        copy_within(services, max_bytes)
    }

    /// Begins the write of a service, unless it would be one more than `max` together with the others that
    /// are being written. Returns whether it did.
    pub fn begin_service(&mut self, name: &Name, id: &Name, max: usize) -> bool {
        let key = (name.clone(), id.clone());
        if !self.has_service(&key) && !self.pending_services.contains_key(&key) {
            let pending = self.pending_services.keys();
            let added = pending.filter(|key| !self.has_service(key)).count();
            if self.services_count + added >= max {
                return false;
            }
        }
        *self.pending_services.entry(key).or_default() += 1;
        true
    }

    /// Ends the write of a service, whether or not it succeeded.
    pub fn end_service(&mut self, name: &Name, id: &Name) {
        let key = (name.clone(), id.clone());
        if let Some(calls) = self.pending_services.get_mut(&key) {
            *calls -= 1;
            if *calls == 0 {
                self.pending_services.remove(&key);
            }
        }
    }

    fn has_service(&self, (name, id): &(Name, Name)) -> bool {
        self.services
            .get(name)
            .is_some_and(|ids| ids.contains_key(id))
    }

    /// Sets this node's record; `None` when it deregisters.
    pub fn set_own(&mut self, own: Option<NodeRecord>) {
        if own.is_none()
            && let Some(own) = &self.own
        {
            self.nodes.remove(&own.id);
            self.own_removed = None;
        }
        self.own = own;
        self.show();
    }

    /// Whether etcd has this node's record, or needs none.
    pub fn has_own(&self) -> bool {
        let own = self.own.as_ref();
        own.is_none_or(|own| {
            let kept = self.nodes.get(&own.id);
            kept.is_some_and(|node| node.unconfirmed.is_none())
        })
    }

    /// The name of the store that this is a view of; `None` before the first snapshot.
    pub fn store(&self) -> Option<Vec<u8>> {
        self.store.clone()
    }

    /// Returns the nodes whose drain requests etcd has lost: they are in this view and not in the
    /// snapshot, and were not withdrawn. A store with the same name was restored to an earlier time if
    /// its revision is before the request's. A store with another name has lost everything, and its
    /// requests may be written again while it is new.
    pub fn lost_drain_requests(&self, snapshot: &Snapshot) -> Vec<Name> {
        let Some(known) = &self.store else {
            return Vec::new();
        };
        let present: BTreeSet<Key> = snapshot
            .entries
            .iter()
            .map(|(entry, _)| entry.key())
            .collect();
        let is_lost = |revision: i64| match &snapshot.store {
            Some(name) if name == known => revision > snapshot.revision,
            Some(_) => snapshot.is_new,
            None => true,
        };
        let lost = self.drained.iter().filter(|(node, revision)| {
            is_lost(**revision) && !present.contains(&Key::Drained((*node).clone()))
        });
        lost.map(|(node, _)| node.clone()).collect()
    }

    /// Replaces the content by a snapshot that was taken after a time without changes from etcd.
    pub fn load(&mut self, snapshot: Snapshot, now: Instant) {
        // Another store counts its revisions from the start, so nothing here is newer than they are.
        if self.store.is_some() && self.store != snapshot.store {
            self.revision = i64::MAX;
        }
        self.store = snapshot.store;
        self.replace(snapshot.entries, snapshot.revision, now);
    }

    /// Replaces the content by `entries`, which etcd had at `revision`.
    fn replace(&mut self, entries: Vec<(Entry, i64)>, revision: i64, now: Instant) {
        let listed: BTreeSet<Key> = entries.iter().map(|(entry, _)| entry.key()).collect();
        let nodes = self.nodes.iter();
        let nodes = nodes.map(|(id, node)| (Key::Node(id.clone()), node.revision));
        let services = self.services.iter().flat_map(|(name, ids)| {
            let key = |id: &Name| Key::Service(name.clone(), id.clone());
            ids.iter()
                .map(move |(id, service)| (key(id), service.revision))
        });
        let drained = self.drained.iter();
        let drained = drained.map(|(id, &revision)| (Key::Drained(id.clone()), revision));
        // An etcd that was set up anew counts its revisions from the start. Otherwise content with a
        // later revision is newer than the snapshot.
        let restarted = revision < self.revision;
        let missing: Vec<Key> = nodes
            .chain(services)
            .chain(drained)
            .filter(|(key, known)| (restarted || *known <= revision) && !listed.contains(key))
            .map(|(key, _)| key)
            .collect();
        for (entry, changed) in entries {
            if restarted || !self.is_newer(&entry.key(), changed) {
                self.put(entry, changed);
            }
        }
        for key in missing {
            self.remove(&key, now);
        }
        self.keep_if_all_removed(revision, now);
    }

    /// Applies changes of etcd, in order. `None` stands for a deletion.
    pub fn change(&mut self, changes: Vec<(Key, Option<Entry>)>, revision: i64, now: Instant) {
        let mut is_shown = false;
        for (key, entry) in changes {
            is_shown |= key.is_shown();
            match entry {
                Some(entry) => self.put(entry, revision),
                None => self.remove(&key, now),
            }
        }
        if is_shown {
            self.keep_if_all_removed(revision, now);
        } else {
            self.revision = revision;
        }
    }

    /// Applies a write of this node before the watch reports it.
    pub fn apply_write(&mut self, entry: Entry, revision: i64) {
        // Otherwise the watch has reported it already, and possibly later changes.
        if revision > self.revision {
            let is_shown = entry.key().is_shown();
            self.put(entry, revision);
            if is_shown {
                self.show();
            }
        }
    }

    /// Applies a deletion by this node before the watch reports it.
    pub fn apply_delete(&mut self, key: &Key, revision: i64, now: Instant) {
        if revision > self.revision {
            self.remove(key, now);
            if key.is_shown() {
                self.show();
            }
        }
    }

    /// Removes unconfirmed nodes whose time is over, and returns when the next one's is.
    pub fn expire(&mut self, now: Instant) -> Option<Instant> {
        let in_time = |unconfirmed: &Unconfirmed| now < unconfirmed.until;
        self.nodes
            .retain(|_, node| node.unconfirmed.as_ref().is_none_or(in_time));
        self.show();
        let nodes = self.nodes.values();
        let unconfirmed = nodes.filter_map(|node| node.unconfirmed.as_ref());
        unconfirmed.map(|unconfirmed| unconfirmed.until).min()
    }

    /// Returns the unconfirmed nodes with their addresses, except this node.
    pub fn unconfirmed(&self) -> Vec<(Name, String)> {
        let own = self.own.as_ref().map(|own| &own.id);
        self.nodes
            .iter()
            .filter(|(id, node)| node.unconfirmed.is_some() && own != Some(id))
            .map(|(id, node)| (id.clone(), node.registered.record.address.clone()))
            .collect()
    }

    /// Keeps an unconfirmed node for longer, since it listens at its address.
    pub fn probe_answered(&mut self, id: &Name, now: Instant) {
        let node = self.nodes.get_mut(id);
        if let Some(unconfirmed) = node.and_then(|node| node.unconfirmed.as_mut()) {
            unconfirmed.until = (now + self.grace).min(unconfirmed.at_most);
        }
    }

    /// Removes an unconfirmed node, since its address refuses connections.
    pub fn probe_refused(&mut self, id: &Name) {
        let node = self.nodes.get(id);
        if node.is_some_and(|node| node.unconfirmed.is_some()) {
            self.nodes.remove(id);
            self.show();
        }
    }

    fn is_newer(&self, key: &Key, than: i64) -> bool {
        let known = match key {
            Key::Node(id) => self.nodes.get(id).map(|node| node.revision),
            Key::Drained(id) => self.drained.get(id).copied(),
            Key::Service(name, id) => {
                let ids = self.services.get(name);
                ids.and_then(|ids| ids.get(id))
                    .map(|service| service.revision)
            }
        };
        known.is_some_and(|known| known > than)
    }

    fn put(&mut self, entry: Entry, revision: i64) {
        match entry {
            Entry::Node(registered) => {
                let id = registered.record.id.clone();
                self.removed.retain(|(_, node)| node.record.id != id);
                let node = Node {
                    registered,
                    revision,
                    unconfirmed: None,
                };
                self.nodes.insert(id, node);
            }
            Entry::Drained(id) => drop(self.drained.insert(id, revision)),
            Entry::Service(info) => {
                let ids = self.services.entry(info.name.clone()).or_default();
                let service = Service { info, revision };
                if ids.insert(service.info.id.clone(), service).is_none() {
                    self.services_count += 1;
                }
            }
        }
    }

    fn remove(&mut self, key: &Key, now: Instant) {
        match key {
            Key::Node(id) => {
                // Unconfirmed nodes were removed from etcd before, and stay until their time is over.
                let is_confirmed = |node: &Node| node.unconfirmed.is_none();
                if self.nodes.get(id).is_some_and(is_confirmed)
                    && let Some(node) = self.nodes.remove(id)
                {
                    self.removed.push((now, node.registered));
                    if self.own.as_ref().is_some_and(|own| own.id == *id) {
                        self.own_removed = Some(now);
                    }
                }
            }
            Key::Drained(id) => drop(self.drained.remove(id)),
            Key::Service(name, id) => {
                let Some(ids) = self.services.get_mut(name) else {
                    return;
                };
                if ids.remove(id).is_some() {
                    self.services_count -= 1;
                }
                if ids.is_empty() {
                    self.services.remove(name);
                }
            }
        }
    }

    /// Ends a change: if it has removed the last node, keeps those just removed for the grace, in which
    /// they register again if they live.
    ///
    /// A stalled leader of etcd can end all leases at once, which is more likely than the death of all
    /// nodes in the same moment. This node's own record is then removed as well, and may be written
    /// again before the last of the others is removed.
    fn keep_if_all_removed(&mut self, revision: i64, now: Instant) {
        self.revision = revision;
        let grace = self.grace;
        self.removed.retain(|(since, _)| now < *since + grace);
        self.own_removed = self.own_removed.filter(|since| now < *since + grace);
        let own = self.own.as_ref().map(|own| &own.id);
        let is_other = |id: &Name| own != Some(id);
        let is_confirmed = |(id, node): (&Name, &Node)| is_other(id) && node.unconfirmed.is_none();
        let removed = self.removed.iter().map(|(_, node)| &node.record.id);
        let others_removed = removed.filter(|id| is_other(id)).count();
        let at_once = match own {
            Some(_) => self.own_removed.is_some() && others_removed > 0,
            None => others_removed > 1,
        };
        if at_once && !self.nodes.iter().any(is_confirmed) {
            let nodes = self.removed.len();
            tracing::warn!(
                nodes,
                "etcd has lost every node at once; probing them, and keeping them for {grace:?}"
            );
            for (_, registered) in std::mem::take(&mut self.removed) {
                let node = Node {
                    registered,
                    revision,
                    unconfirmed: Some(Unconfirmed {
                        until: now + grace,
                        at_most: now + grace * MOST_GRACES,
                    }),
                };
                self.nodes.insert(node.registered.record.id.clone(), node);
            }
            self.changed.send_modify(|count| *count += 1);
        }
        self.show();
    }

    /// Updates what `nodes` and `drained` return, which copies every record, and notifies subscribers if it has changed.
    fn show(&mut self) {
        let own = self.own.as_ref();
        let others = self.nodes.values().map(|node| &node.registered.record);
        let others = others.filter(|record| own.is_none_or(|own| own.id != record.id));
        let mut shown: Vec<NodeRecord> = own.into_iter().chain(others).cloned().collect();
        shown.sort_by(|a, b| a.id.cmp(&b.id));
        let same = *self.shown == *shown && self.shown_drained.iter().eq(self.drained.keys());
        if !same {
            self.shown = shown.into();
            self.shown_drained = Arc::new(self.drained.keys().cloned().collect());
            self.changed.send_modify(|count| *count += 1);
        }
    }
}

#[cfg(test)]
mod tests;
