//! Brings the schedules of the configuration into the store, when a node starts or reads its configuration
//! again.
//!
//! A schedule of the configuration records the nodes that have it. A node adds itself to those that it
//! has, and its version of them takes the place of the stored one; it leaves those that it no longer has,
//! and a schedule that no node has is removed. So nodes whose configurations differ do not remove each
//! other's schedules.

use super::Schedules;
use crate::{
    queue::{Error, PutSchedule, ScheduleStore, VersionedSchedule},
    schedule::{MAX_DECLARING_NODES, Origin, Record, Schedule, ScheduleSpec},
    task::Name,
};
use std::collections::BTreeSet;

/// The most schedules that are read at once.
const PAGE: usize = 100;

/// What could not be brought into the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Undeclared {
    /// A client has created a schedule of this name.
    pub taken: Vec<Name>,
    /// There are as many schedules as there may be.
    pub full: Vec<Name>,
}

/// Makes the schedules of the configuration of `node` those that are stored.
pub(super) async fn declare(
    schedules: &Schedules,
    node: &Name,
    specs: &[ScheduleSpec],
) -> Result<Undeclared, Error> {
    let store = &*schedules.store;
    let mut undeclared = Undeclared::default();
    for spec in specs {
        while !declare_one(schedules, node, spec, &mut undeclared).await? {}
    }
    let declared: BTreeSet<_> = specs.iter().map(|spec| &spec.name).collect();
    let mut after = None;
    loop {
        let page = store.schedules(after.as_ref(), PAGE).await?;
        for found in page.schedules {
            let name = found.schedule.spec.name.clone();
            if declared.contains(&name) {
                continue;
            }
            let mut found = Some(found);
            // Another node may change it at the same time.
            while let Some(stored) = found
                && !withdraw(store, node, stored).await?
            {
                found = store.schedule(&name).await?;
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(undeclared);
        }
    }
}

/// Returns false if another node was ahead.
async fn declare_one(
    schedules: &Schedules,
    node: &Name,
    spec: &ScheduleSpec,
    undeclared: &mut Undeclared,
) -> Result<bool, Error> {
    let store = &*schedules.store;
    let now = store.schedule_time().await?;
    let corrupt = |why| Error::Corrupt(format!("schedule {}: {why}", spec.name));
    let timing = spec.timing().map_err(corrupt)?;
    let (nodes, expected, record) = match store.schedule(&spec.name).await? {
        None => (BTreeSet::new(), None, Record::new(spec, &timing, now)),
        Some(VersionedSchedule { schedule, version }) => {
            let Origin::Config(nodes) = &schedule.origin else {
                undeclared.taken.push(spec.name.clone());
                return Ok(true);
            };
            if schedule.spec == *spec && nodes.contains(node) {
                return Ok(true);
            }
            let record = schedules.record_of(&schedule, now).await;
            let record = record.replaced(&schedule.spec, spec, &timing, now);
            (nodes.clone(), Some(version), record)
        }
    };
    let mut nodes = nodes;
    if nodes.len() < MAX_DECLARING_NODES {
        nodes.insert(node.clone());
    }
    let schedule = Schedule {
        spec: spec.clone(),
        origin: Origin::Config(nodes),
        record,
    };
    Ok(match store.put_schedule(&schedule, expected).await? {
        PutSchedule::Stored(_) => true,
        PutSchedule::Changed => false,
        PutSchedule::Full => {
            undeclared.full.push(spec.name.clone());
            true
        }
    })
}

/// Takes `node` out of a schedule that its configuration does not have. Returns false if another node
/// was ahead.
async fn withdraw(
    store: &dyn ScheduleStore,
    node: &Name,
    stored: VersionedSchedule,
) -> Result<bool, Error> {
    let VersionedSchedule {
        mut schedule,
        version,
    } = stored;
    let Origin::Config(nodes) = &mut schedule.origin else {
        return Ok(true);
    };
    if !nodes.remove(node) {
        return Ok(true);
    }
    if nodes.is_empty() {
        return store
            .remove_schedule(&schedule.spec.name, Some(version))
            .await;
    }
    let put = store.put_schedule(&schedule, Some(version)).await?;
    Ok(put != PutSchedule::Changed)
}
