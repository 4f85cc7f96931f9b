//! The limits in force on this node: what the configuration gives, and what was set at run time as of the
//! latest look at the store. `hostel_task` decides which of them win.

use super::{
    error::Error,
    limit_store::{LimitStore, StoredLimits},
};
use hostel_config::Config;
use hostel_runtime::{log_limit::LogLimit, untrusted::Untrusted};
use hostel_task::{DeclaredLimits, Limits, Name, PendingLimits, Submission, TypeLimits};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::watch;

/// How often a node looks for changes of the limits.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The limits of task types and of their groups.
pub struct LimitTable {
    store: Option<Arc<dyn LimitStore>>,
    /// What the configuration gives, by task type.
    configured: HashMap<Name, DeclaredLimits>,
    runtime: watch::Sender<Arc<StoredLimits>>,
    log_limit: LogLimit,
}

impl LimitTable {
    /// Makes a table without limits, and without a store of any.
    pub fn empty() -> Self {
        Self {
            store: None,
            configured: HashMap::new(),
            runtime: watch::Sender::new(Arc::default()),
            log_limit: LogLimit::of_retries(),
        }
    }

    /// Makes the table of a node, and reads what is stored.
    pub async fn open(config: &Config, store: Arc<dyn LimitStore>) -> Result<Self, Error> {
        let mut configured = HashMap::new();
        for (task_type, overrides) in config.plugin.values().flat_map(|plugin| &plugin.task) {
            let limits = DeclaredLimits {
                config: overrides.limits(),
                config_group: overrides.group.limits(),
                ..DeclaredLimits::default()
            };
            // Of several plugins with the same type, one serves it: the first by its name.
            if limits != DeclaredLimits::default() {
                configured.entry(task_type.clone()).or_insert(limits);
            }
        }
        let table = Self {
            store: Some(store),
            configured,
            ..Self::empty()
        };
        table.look().await?;
        Ok(table)
    }

    /// Returns the limits in force of a type, which declares `declared` if a plugin of this node serves it.
    pub fn of(&self, task_type: &Name, declared: Option<&DeclaredLimits>) -> TypeLimits {
        let runtime = self.runtime();
        TypeLimits::new(
            task_type,
            &self.declared(task_type, declared),
            &runtime.limits,
        )
    }

    /// Returns the limits of pending tasks that a submission is held to.
    pub fn pending_limits(&self, task: &Submission) -> PendingLimits {
        let runtime = self.runtime();
        if self.configured.is_empty() && runtime.limits.is_empty() {
            return PendingLimits::default();
        }
        let (task_type, group) = (task.task_type(), task.group());
        let declared = self.declared(task_type, None);
        let of_type = declared.of_type(task_type, &runtime.limits).limits();
        let of_group = group.map_or_else(Limits::default, |group| {
            declared
                .of_group(task_type, group, &runtime.limits)
                .limits()
        });
        PendingLimits {
            of_type: of_type.max_pending,
            of_group: of_group.max_pending,
        }
    }

    /// Returns the limits that were set at run time, as last seen.
    pub fn runtime(&self) -> Arc<StoredLimits> {
        self.runtime.borrow().clone()
    }

    /// Returns the types that have limits by the configuration or since they were set, in no order.
    pub fn task_types(&self) -> Vec<Name> {
        let runtime = self.runtime();
        let set = runtime.limits.task_types().cloned();
        self.configured.keys().cloned().chain(set).collect()
    }

    /// Changes after each change of the limits.
    pub fn changed(&self) -> watch::Receiver<Arc<StoredLimits>> {
        self.runtime.subscribe()
    }

    /// The store of limits that are set at run time, if there is one.
    pub fn store(&self) -> Option<&Arc<dyn LimitStore>> {
        self.store.as_ref()
    }

    /// Reads what is stored now.
    pub async fn look(&self) -> Result<(), Error> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        let known = self.runtime();
        let Some(stored) = store.limits(known.version).await? else {
            return Ok(());
        };
        if !stored.damaged.is_empty()
            && let Some(left_out) = self.log_limit.permit()
        {
            let scopes = Untrusted::new(stored.damaged.join(", "));
            tracing::warn!(
                left_out,
                "limits that cannot be read count as none: {scopes}"
            );
        }
        self.runtime.send_replace(Arc::new(stored));
        Ok(())
    }

    /// Looks for changes, for ever. While the store does not answer, the limits stay as they were.
    pub async fn follow(&self) {
        let limit = LogLimit::of_retries();
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            if let Err(error) = self.look().await
                && let Some(left_out) = limit.permit()
            {
                tracing::warn!(left_out, "cannot read the limits of task types: {error}");
            }
        }
    }

    fn declared(&self, task_type: &Name, declared: Option<&DeclaredLimits>) -> DeclaredLimits {
        let configured = || self.configured.get(task_type).copied();
        declared.copied().or_else(configured).unwrap_or_default()
    }
}
