//! Admission of guests: pool slots, since an exhausted pool answers with an error and not with a wait,
//! and memory, so that the limits of all guests together stay within the machine. Components live
//! long, so they have a share of their own of both and never take from the tasks' share.

use super::sizing::{self, Shares};
use hostel_config as config;
use hostel_runtime::budget::{Budget, Reservation};
use hostel_task::Resources;
use std::sync::Arc;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

const TOTAL_SETTING: &str = "plugins.max_total_memory_bytes";
const COMPONENT_SETTING: &str = "plugins.max_component_memory_bytes";

/// The share of the node's memory and slots that a guest takes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestKind {
    /// A task, or a plugin that describes itself.
    Task,
    Component,
}

/// The memory and the pool slots of a node that no guest holds.
pub struct Admission {
    tasks: Share,
    components: Share,
    total_is_set: bool,
    component_share_is_set: bool,
}

struct Share {
    total: Resources,
    slots: Arc<Semaphore>,
    memory: Budget,
}

/// Memory and pool slots that are reserved for one guest, or for several that are about to start.
/// Gives them back when dropped.
pub struct Permit {
    slots: OwnedSemaphorePermit,
    memory: Reservation,
}

impl Admission {
    /// Admits guests to a pool of `slots`, and to the memory that the settings allow.
    pub fn new(plugins: &config::Plugins, slots: Shares) -> Self {
        let memory = sizing::memory_shares(plugins);
        Self {
            tasks: Share::new(slots.tasks, memory.tasks),
            components: Share::new(slots.components, memory.components),
            total_is_set: plugins.max_total_memory_bytes > 0,
            component_share_is_set: plugins.max_component_memory_bytes > 0,
        }
    }

    /// Waits, first come first served, until a guest with these `needs` fits. A guest that needs more
    /// memory than its share has is given all of the share.
    pub async fn acquire(&self, kind: GuestKind, needs: Resources) -> Result<Permit, AcquireError> {
        let share = self.share(kind);
        let slots = u32::try_from(needs.pool_slots).unwrap_or(u32::MAX);
        // Always in this order: a guest that waits for memory has its slots, and one that has memory
        // waits for nothing.
        Ok(Permit {
            slots: share.slots.clone().acquire_many_owned(slots).await?,
            memory: share.memory.reserve(needs.memory_bytes).await,
        })
    }

    /// Reserves `needs` if that much is free now.
    pub fn try_acquire(&self, kind: GuestKind, needs: Resources) -> Option<Permit> {
        let share = self.share(kind);
        let slots = u32::try_from(needs.pool_slots).ok()?;
        Some(Permit {
            slots: share.slots.clone().try_acquire_many_owned(slots).ok()?,
            memory: share.memory.try_reserve(needs.memory_bytes)?,
        })
    }

    /// Reserves what is free of the tasks' share, up to `most`. Nothing is free while a call of
    /// `acquire` waits.
    pub fn reserve_up_to(&self, most: Resources) -> Permit {
        let slots = loop {
            let free = self.tasks.slots.available_permits().min(most.pool_slots);
            let free = u32::try_from(free).unwrap_or(u32::MAX);
            // Fails if another thread took some in between.
            if let Ok(slots) = self.tasks.slots.clone().try_acquire_many_owned(free) {
                break slots;
            }
        };
        Permit {
            slots,
            memory: self.tasks.memory.reserve_up_to(most.memory_bytes),
        }
    }

    /// What is free of the tasks' share.
    pub fn free(&self) -> Resources {
        Resources {
            memory_bytes: self.tasks.memory.free_bytes(),
            pool_slots: self.tasks.slots.available_permits(),
        }
    }

    /// Grows `permit` to `needs`, for code that was loaded after the reservation. Returns `None`, and
    /// gives `permit` back, if that much more is not free.
    pub fn grow(&self, mut permit: Permit, needs: Resources) -> Option<Permit> {
        let has = permit.resources();
        let more = needs.pool_slots.saturating_sub(has.pool_slots);
        if more > 0 {
            let more = u32::try_from(more).ok()?;
            let more = self.tasks.slots.clone().try_acquire_many_owned(more);
            permit.slots.merge(more.ok()?);
        }
        let more = needs.memory_bytes.saturating_sub(has.memory_bytes);
        if more > 0 {
            permit.memory.merge(self.tasks.memory.try_reserve(more)?);
        }
        Some(permit)
    }

    /// All that guests of this kind share, whether it is free or not.
    pub fn total(&self, kind: GuestKind) -> Resources {
        self.share(kind).total
    }

    /// Why a guest that may have `memory_bytes`, according to `setting`, will never fit; `None` if it
    /// will.
    pub fn never_fits(
        &self,
        kind: GuestKind,
        memory_bytes: usize,
        setting: &str,
    ) -> Option<String> {
        let total = self.total(kind).memory_bytes;
        if memory_bytes <= total {
            return None;
        }
        let (guests, total_setting) = match kind {
            GuestKind::Task => ("tasks", format!("{TOTAL_SETTING} less {COMPONENT_SETTING}")),
            GuestKind::Component => ("components", COMPONENT_SETTING.to_owned()),
        };
        let default = match (self.total_is_set, self.component_share_is_set) {
            (false, false) => {
                "; unless set, a quarter of three quarters of this machine's memory is for components"
            }
            (false, true) => "; unless set, the total is three quarters of this machine's memory",
            (true, false) => "; unless set, components have a quarter of the total",
            (true, true) => "",
        };
        Some(format!(
            "may have {memory_bytes} bytes of memory ({setting}), and all {guests} together only \
             {total} ({total_setting}{default}): lower the one or raise the other"
        ))
    }

    fn share(&self, kind: GuestKind) -> &Share {
        match kind {
            GuestKind::Task => &self.tasks,
            GuestKind::Component => &self.components,
        }
    }
}

impl Share {
    fn new(slots: usize, bytes: usize) -> Self {
        let memory = Budget::new(bytes);
        Self {
            total: Resources {
                memory_bytes: memory.total_bytes(),
                pool_slots: slots,
            },
            slots: Arc::new(Semaphore::new(slots)),
            memory,
        }
    }
}

impl Permit {
    /// What the permit reserves.
    pub fn resources(&self) -> Resources {
        Resources {
            memory_bytes: self.memory.bytes(),
            pool_slots: self.slots.num_permits(),
        }
    }

    /// Takes `needs` out of it; `None` if it has less than that.
    pub fn split(&mut self, needs: Resources) -> Option<Permit> {
        if !needs.fits_in(self.resources()) {
            return None;
        }
        Some(Permit {
            slots: self.slots.split(needs.pool_slots)?,
            memory: self.memory.split(needs.memory_bytes)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use hostel_config::Config;

    const MIB: usize = 1 << 20;

    fn admission(total_mib: usize, components_mib: usize) -> Admission {
        let mut plugins = Config::default().plugins;
        plugins.max_total_memory_bytes = total_mib * MIB;
        plugins.max_component_memory_bytes = components_mib * MIB;
        Admission::new(&plugins, sizing::slot_counts(&plugins))
    }

    fn needs(mib: usize) -> Resources {
        Resources {
            memory_bytes: mib * MIB,
            pool_slots: 1,
        }
    }

    #[test]
    fn components_take_nothing_from_the_share_of_tasks() {
        let admission = admission(200, 100);
        let acquire = |kind, mib| admission.acquire(kind, needs(mib)).now_or_never();
        let component = acquire(GuestKind::Component, 100);
        assert!(component.is_some());
        assert!(acquire(GuestKind::Component, 1).is_none());
        let task = acquire(GuestKind::Task, 64);
        assert!(task.is_some());
        assert!(acquire(GuestKind::Task, 64).is_none());
        drop(task);
        assert!(acquire(GuestKind::Task, 64).is_some());
    }

    #[test]
    fn a_permit_is_split_between_tasks_and_grows_for_newer_code() {
        let admission = admission(200, 100);
        let mut all = admission.reserve_up_to(Resources::UNLIMITED);
        assert_eq!(all.resources().memory_bytes, 100 * MIB);
        assert_eq!(admission.free(), Resources::default());
        let first = all.split(needs(64)).unwrap();
        assert!(all.split(needs(64)).is_none());
        let second = all.split(needs(36)).unwrap();
        drop(all);
        assert_eq!(admission.free().memory_bytes, 0);
        drop(second);
        let first = admission.grow(first, needs(90)).unwrap();
        assert_eq!(admission.free().memory_bytes, 10 * MIB);
        assert!(admission.grow(first, needs(101)).is_none());
        assert_eq!(admission.free().memory_bytes, 100 * MIB);
    }

    #[test]
    fn nothing_is_reserved_while_a_guest_waits() {
        let admission = admission(200, 100);
        let small = admission.acquire(GuestKind::Task, needs(40)).now_or_never();
        let mut large = Box::pin(admission.acquire(GuestKind::Task, needs(100)));
        assert!(large.as_mut().now_or_never().is_none());
        let reserved = admission.reserve_up_to(Resources::UNLIMITED);
        assert_eq!(reserved.resources().memory_bytes, 0);
        drop((reserved, small));
        assert!(large.now_or_never().is_some());
    }

    #[test]
    fn a_guest_that_never_fits_is_refused_with_both_settings() {
        let admission = admission(40, 10);
        let own = "plugin.a.limits.max_memory_bytes";
        assert_eq!(admission.never_fits(GuestKind::Task, 30 * MIB, own), None);
        let error = admission.never_fits(GuestKind::Task, 30 * MIB + 1, own);
        let error = error.unwrap();
        for setting in [own, TOTAL_SETTING, COMPONENT_SETTING] {
            assert!(error.contains(setting), "{error}");
        }
        let component = |bytes| admission.never_fits(GuestKind::Component, bytes, own);
        assert_eq!(component(10 * MIB), None);
        let error = component(10 * MIB + 1).unwrap();
        for setting in [own, COMPONENT_SETTING] {
            assert!(error.contains(setting), "{error}");
        }
        let mut plugins = Config::default().plugins;
        plugins.max_total_memory_bytes = 0;
        let by_machine = Admission::new(&plugins, sizing::slot_counts(&plugins));
        let total = |kind| by_machine.total(kind).memory_bytes;
        assert!(total(GuestKind::Task) > total(GuestKind::Component));
    }
}
