//! What this node last saw in etcd: nodes and services, from a list and the changes after it. Asks
//! nobody and has no clock; the caller brings both. Who listens is told when something has changed.

use super::{
    super::{NodeRecord, ServiceInfo},
    entry::{Announced, Entry, Key},
    store::Listed,
};
use hostel_task::Name;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// All that is known.
pub(super) struct View {
    nodes: BTreeMap<Name, Node>,
    services: BTreeMap<Name, BTreeMap<Name, Service>>,
    services_count: usize,
    /// Who shall take no new task, with the revision that says so.
    drained: BTreeMap<Name, i64>,
    /// Nodes that went within the last `grace`, and when.
    gone: Vec<(Instant, Announced)>,
    /// The last revision of etcd that is in here.
    revision: i64,
    /// The name of the store that all of this is from.
    store: Option<Vec<u8>>,
    /// What this node says of itself, as long as it wants to be known.
    own: Option<NodeRecord>,
    /// What callers get.
    shown: Arc<[NodeRecord]>,
    shown_drained: Arc<BTreeSet<Name>>,
    changed: watch::Sender<u64>,
    /// How long nodes are kept after all of them have gone at once.
    grace: Duration,
    /// When this node's own record went the last time; it may be back.
    own_went: Option<Instant>,
}

/// Nodes in doubt that still listen are kept for this many times the grace: at some time something
/// else may listen there.
const MOST_GRACES: u32 = 4;

struct Node {
    announced: Announced,
    revision: i64,
    /// etcd does not have it any more, but it does not have the others either.
    doubt: Option<Doubt>,
}

/// How long a node that may have gone is kept.
struct Doubt {
    until: Instant,
    /// However often it answers.
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
            drained: BTreeMap::new(),
            gone: Vec::new(),
            revision: 0,
            store: None,
            own: None,
            shown: Arc::new([]),
            shown_drained: Arc::default(),
            changed: watch::Sender::new(0),
            grace,
            own_went: None,
        }
    }

    /// The nodes, this one included.
    pub fn nodes(&self) -> Arc<[NodeRecord]> {
        self.shown.clone()
    }

    /// Who shall take no new task, there or not.
    pub fn drained(&self) -> Arc<BTreeSet<Name>> {
        self.shown_drained.clone()
    }

    /// Changes after `nodes` or `drained` has, and when nodes fall into doubt.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub fn services(&self, name: &Name) -> Vec<ServiceInfo> {
        let ids = self
            .services
            .get(name)
            .into_iter()
            .flat_map(BTreeMap::values);
        ids.map(|service| service.info.clone()).collect()
    }

    pub fn has_service(&self, name: &Name, id: &Name) -> bool {
        self.services
            .get(name)
            .is_some_and(|ids| ids.contains_key(id))
    }

    pub fn services_count(&self) -> usize {
        self.services_count
    }

    /// What this node says of itself from now on; `None` when it leaves.
    pub fn set_own(&mut self, own: Option<NodeRecord>) {
        if own.is_none()
            && let Some(own) = &self.own
        {
            self.nodes.remove(&own.id);
            self.own_went = None;
        }
        self.own = own;
        self.show();
    }

    /// Whether etcd has what this node says of itself.
    pub fn has_own(&self) -> bool {
        let own = self.own.as_ref();
        own.is_none_or(|own| {
            let kept = self.nodes.get(&own.id);
            kept.is_some_and(|node| node.doubt.is_none())
        })
    }

    /// The name of the store that this is a view of; `None` before the first list.
    pub fn store(&self) -> Option<Vec<u8>> {
        self.store.clone()
    }

    /// The wishes that etcd has lost: they are known here and not there, and nobody has taken them
    /// back. A store that still has its name was put back to an earlier time if its revisions do not
    /// reach the wish. One with another name lost everything, and may be told as long as it is new.
    pub fn lost_wishes(&self, listed: &Listed) -> Vec<Name> {
        let Some(known) = &self.store else {
            return Vec::new();
        };
        let there: BTreeSet<Key> = listed
            .entries
            .iter()
            .map(|(entry, _)| entry.key())
            .collect();
        let is_lost = |revision: i64| match &listed.store {
            Some(name) if name == known => revision > listed.revision,
            Some(_) => listed.is_new,
            None => true,
        };
        let lost = self.drained.iter().filter(|(node, revision)| {
            is_lost(**revision) && !there.contains(&Key::Drained((*node).clone()))
        });
        lost.map(|(node, _)| node.clone()).collect()
    }

    /// All of a list that was made after a time in which nothing was heard of etcd.
    pub fn take(&mut self, listed: Listed, now: Instant) {
        // Another store counts its revisions from the start; nothing here is newer than they are.
        if self.store.is_some() && self.store != listed.store {
            self.revision = i64::MAX;
        }
        self.store = listed.store;
        self.replace(listed.entries, listed.revision, now);
    }

    /// Everything that etcd had at `revision`, after a time in which nothing was heard of it.
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
        // etcd may have been set up anew, and its revisions count from the start again. Else what came
        // here after the list was made is newer than it.
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
        self.settle(revision, now);
    }

    /// What has changed in etcd, in order. A `None` was deleted.
    pub fn change(&mut self, changes: Vec<(Key, Option<Entry>)>, revision: i64, now: Instant) {
        for (key, entry) in changes {
            match entry {
                Some(entry) => self.put(entry, revision),
                None => self.remove(&key, now),
            }
        }
        self.settle(revision, now);
    }

    /// Something that this node wrote itself, before it is heard of as a change.
    pub fn wrote(&mut self, entry: Entry, revision: i64) {
        // Else the change has come already, and maybe the next one too.
        if revision > self.revision {
            self.put(entry, revision);
            self.show();
        }
    }

    /// Something that this node deleted itself, likewise.
    pub fn erased(&mut self, key: &Key, revision: i64, now: Instant) {
        if revision > self.revision {
            self.remove(key, now);
            self.show();
        }
    }

    /// Forgets the doubtful whose time is over; returns when to look again.
    pub fn expire(&mut self, now: Instant) -> Option<Instant> {
        let in_time = |doubt: &Doubt| now < doubt.until;
        self.nodes
            .retain(|_, node| node.doubt.as_ref().is_none_or(in_time));
        self.show();
        let doubts = self.nodes.values().filter_map(|node| node.doubt.as_ref());
        doubts.map(|doubt| doubt.until).min()
    }

    /// Who is in doubt, and where to ask for it. This node knows that it is there.
    pub fn doubtful(&self) -> Vec<(Name, String)> {
        let own = self.own.as_ref().map(|own| &own.id);
        let doubtful = self.nodes.iter();
        let doubtful = doubtful.filter(|(id, node)| node.doubt.is_some() && own != Some(id));
        let address = |node: &Node| node.announced.record.address.clone();
        doubtful
            .map(|(id, node)| (id.clone(), address(node)))
            .collect()
    }

    /// Somebody listens where a node in doubt was.
    pub fn answered(&mut self, id: &Name, now: Instant) {
        let node = self.nodes.get_mut(id);
        if let Some(doubt) = node.and_then(|node| node.doubt.as_mut()) {
            doubt.until = (now + self.grace).min(doubt.at_most);
        }
    }

    /// Nobody listens where a node in doubt was.
    pub fn refused(&mut self, id: &Name) {
        if self.nodes.get(id).is_some_and(|node| node.doubt.is_some()) {
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
            Entry::Node(announced) => {
                let id = announced.record.id.clone();
                self.gone.retain(|(_, gone)| gone.record.id != id);
                let node = Node {
                    announced,
                    revision,
                    doubt: None,
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
                // The doubtful are gone already, and wait for their time.
                let sure = |node: &Node| node.doubt.is_none();
                if self.nodes.get(id).is_some_and(sure)
                    && let Some(node) = self.nodes.remove(id)
                {
                    self.gone.push((now, node.announced));
                    if self.own.as_ref().is_some_and(|own| own.id == *id) {
                        self.own_went = Some(now);
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

    /// After a whole change. A leader of etcd that stalls can end all leases at once; that all nodes
    /// have died in the same moment is less likely. So when none is left, those that have just gone
    /// are kept for a while, in which they register again if they live. This node's own record has
    /// gone with them, and may be back before the last of them goes.
    fn settle(&mut self, revision: i64, now: Instant) {
        self.revision = revision;
        let grace = self.grace;
        self.gone.retain(|(since, _)| now < *since + grace);
        self.own_went = self.own_went.filter(|since| now < *since + grace);
        let own = self.own.as_ref().map(|own| &own.id);
        let is_other = |id: &Name| own != Some(id);
        let sure = |(id, node): (&Name, &Node)| is_other(id) && node.doubt.is_none();
        let gone = self.gone.iter().map(|(_, gone)| &gone.record.id);
        let others_gone = gone.filter(|id| is_other(id)).count();
        let at_once = match own {
            Some(_) => self.own_went.is_some() && others_gone > 0,
            None => others_gone > 1,
        };
        if at_once && !self.nodes.iter().any(sure) {
            let nodes = self.gone.len();
            tracing::warn!(
                nodes,
                "every node has gone from etcd at once; asking them, and keeping them for {grace:?}"
            );
            for (_, announced) in std::mem::take(&mut self.gone) {
                let node = Node {
                    announced,
                    revision,
                    doubt: Some(Doubt {
                        until: now + grace,
                        at_most: now + grace * MOST_GRACES,
                    }),
                };
                self.nodes.insert(node.announced.record.id.clone(), node);
            }
            self.changed.send_modify(|count| *count += 1);
        }
        self.show();
    }

    fn show(&mut self) {
        let own = self.own.as_ref();
        let others = self.nodes.values().map(|node| &node.announced.record);
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
