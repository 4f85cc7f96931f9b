//! Task types: which nodes run them, how many tasks they have, and their limits, which clients change at run
//! time. `hostel_task` decides which limits are in force, and `queue::LimitStore` stores them.

use crate::{
    discovery::ServiceDiscovery,
    plugin::PluginHost,
    queue::{self, LimitTable, PutLimits, TaskQueue},
    task::{GivenLimits, LimitScope, Name, StateKind, TypeLimits},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// How often a change is tried again that others got ahead of.
const ATTEMPTS: usize = 16;

/// The task types of a cluster, as this node knows them.
#[derive(Clone)]
pub struct Types {
    queue: Arc<dyn TaskQueue>,
    discovery: Arc<dyn ServiceDiscovery>,
    plugins: Arc<PluginHost>,
    limits: Arc<LimitTable>,
}

/// What is known of a task type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeStatus {
    /// The name of the type.
    pub name: Name,
    /// The live nodes that run it.
    pub nodes: Vec<Name>,
    /// How many tasks it has in each state, in the order of `StateKind::ALL`.
    pub counts: [u64; 5],
    /// Its limits and those of its groups, with the configuration and the plugins of this node.
    pub limits: TypeLimits,
}

/// Why limits were not changed, or types not read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There are too many.
    #[error(
        "{} task types and groups have limits that were set at run time, and no more may; reset some",
        queue::MAX_LIMITS
    )]
    Full,
    /// Others changed limits each time this change was tried.
    #[error("others keep changing the limits at the same time; try again")]
    Contended,
    /// This node has no store of limits.
    #[error("this node keeps no limits that are set at run time")]
    NoStore,
    /// The queue failed.
    #[error(transparent)]
    Queue(#[from] queue::Error),
}

impl Types {
    /// Creates the view of a node.
    pub fn new(
        queue: Arc<dyn TaskQueue>,
        discovery: Arc<dyn ServiceDiscovery>,
        plugins: Arc<PluginHost>,
        limits: Arc<LimitTable>,
    ) -> Self {
        Self {
            queue,
            discovery,
            plugins,
            limits,
        }
    }

    /// Returns up to `max` types whose names follow `after`, in the order of their names, and the name that
    /// the next page follows. These are the types that live nodes run, that have tasks, or that have limits.
    pub async fn list(
        &self,
        after: Option<&Name>,
        max: usize,
    ) -> Result<(Vec<TypeStatus>, Option<Name>), Error> {
        let counts = self.counts().await?;
        let nodes = self.discovery.nodes();
        let served = nodes
            .iter()
            .flat_map(|node| node.task_types.iter().cloned());
        let limited = self.limits.task_types();
        let names: BTreeSet<Name> = served
            .chain(counts.keys().cloned())
            .chain(limited)
            .filter(|name| after.is_none_or(|after| name > after))
            .collect();
        let is_last = names.len() <= max;
        let page: Vec<_> = names
            .into_iter()
            .take(max)
            .map(|name| self.status(name, &counts))
            .collect();
        let last = page.last().filter(|_| !is_last);
        let next = last.map(|status| status.name.clone());
        Ok((page, next))
    }

    /// Returns what is known of one type.
    pub async fn get(&self, name: Name) -> Result<TypeStatus, Error> {
        let counts = self.counts().await?;
        Ok(self.status(name, &counts))
    }

    /// Changes the limits of a scope that are set at run time, or with `reset` forgets all of them before.
    /// They are in force on this node when this returns, and on the others about a second later.
    pub async fn set_limits(
        &self,
        scope: &LimitScope,
        change: GivenLimits,
        reset: bool,
    ) -> Result<(), Error> {
        let store = self.limits.store().ok_or(Error::NoStore)?;
        for _ in 0..ATTEMPTS {
            self.limits.look().await?;
            let known = self.limits.runtime();
            let stored = known.limits.get(scope);
            let kept = if reset {
                GivenLimits::default()
            } else {
                stored
            };
            let limits = kept.with(change);
            if limits == stored {
                return Ok(());
            }
            match store.put_limits(scope, &limits, known.version).await? {
                PutLimits::Stored(_) => {
                    // It is stored: if this fails, the next look finds it.
                    if let Err(error) = self.limits.look().await {
                        tracing::debug!("cannot read the limits that were stored: {error}");
                    }
                    return Ok(());
                }
                PutLimits::Changed => {}
                PutLimits::Full => return Err(Error::Full),
            }
        }
        Err(Error::Contended)
    }

    async fn counts(&self) -> Result<BTreeMap<Name, [u64; 5]>, Error> {
        let counts = self.queue.counts().await;
        let counts = counts.map_err(queue::Error::as_read_error)?;
        let mut by_type: BTreeMap<Name, [u64; 5]> = BTreeMap::new();
        for ((task_type, state), count) in counts {
            by_type.entry(task_type).or_default()[state as usize] = count;
        }
        Ok(by_type)
    }

    fn status(&self, name: Name, counts: &BTreeMap<Name, [u64; 5]>) -> TypeStatus {
        let nodes = self.discovery.nodes();
        let runs = nodes.iter().filter(|node| node.task_types.contains(&name));
        let handler = self.plugins.catalog().resolve(name.as_str());
        let declared = handler.map(|handler| handler.task_type.limits);
        TypeStatus {
            nodes: runs.map(|node| node.id.clone()).collect(),
            counts: counts.get(&name).copied().unwrap_or_default(),
            limits: self.limits.of(&name, declared.as_ref()),
            name,
        }
    }
}

impl TypeStatus {
    /// Returns how many tasks are in a state.
    pub fn count(&self, state: StateKind) -> u64 {
        self.counts[state as usize]
    }
}
