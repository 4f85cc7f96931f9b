//! The room that guests have on this node: slots of the pool, which answers exhaustion with an error
//! and not with a wait, and memory, so that all limits together stay within the machine. Components
//! have a share of their own of both, for they live long: what they hold is never missing to a task.

use super::{compiler::max_compiles, machine};
use hostel_runtime::budget::{Budget, Reservation};
use hostel_task::Resources;
use std::sync::Arc;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// The largest guest takes eight slots (`limiter::MAX_MEMORIES`), and has to fit even where few tasks
/// or components are allowed.
const MIN_SLOTS: usize = 8;
/// More than a machine has: where the total is not known, no guest waits for memory.
const UNKNOWN_BYTES: usize = 1 << 42;
const SETTING: &str = "plugins.max_total_memory_bytes";
const SHARE_SETTING: &str = "plugins.max_component_memory_bytes";

/// Which share of the node's room a guest takes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A task, or a plugin that describes itself.
    Task,
    Component,
}

pub struct Gate {
    tasks: Share,
    components: Share,
    /// Whether the total and the components' share were set by an operator.
    given: [bool; 2],
}

struct Share {
    slots: Arc<Semaphore>,
    memory: Budget,
}

/// Room that is reserved, for one guest or for several that are about to come. Dropping it gives it
/// back.
pub struct Room {
    slots: OwnedSemaphorePermit,
    memory: Reservation,
}

/// How many slots the pool of a node has: for tasks and loads that describe themselves, and for
/// components, with a few for those that are replaced while the old one still runs.
pub fn slot_counts(plugins: &hostel_config::Plugins) -> [usize; 2] {
    let tasks = plugins.max_tasks.saturating_add(max_compiles(plugins));
    let components = plugins.max_components.saturating_add(8);
    [tasks.max(MIN_SLOTS), components.max(MIN_SLOTS)]
}

/// How the memory is shared out between tasks and components: as set, else the components have a
/// quarter; or, where that is too little for one of them, room for one, unless no task would fit then.
fn shares(plugins: &hostel_config::Plugins, total: usize) -> [usize; 2] {
    let one = plugins.sandbox.max_memory_bytes;
    let quarter = total / 4;
    let components = match plugins.max_component_memory_bytes {
        0 if quarter < one && one.saturating_mul(2) <= total => one,
        0 => quarter,
        given => given.min(total),
    };
    [total - components, components]
}

impl Gate {
    pub fn new(plugins: &hostel_config::Plugins) -> Self {
        let given = plugins.max_total_memory_bytes;
        let total = match given {
            0 => machine::memory_bytes().map_or(UNKNOWN_BYTES, |bytes| bytes / 4 * 3),
            given => given,
        };
        let [tasks, components] = shares(plugins, total);
        let [task_slots, component_slots] = slot_counts(plugins);
        Self {
            tasks: Share::new(task_slots, tasks),
            components: Share::new(component_slots, components),
            given: [given > 0, plugins.max_component_memory_bytes > 0],
        }
    }

    /// Waits, first come first served, until there is room for a guest. More memory than there is in
    /// all is taken for all.
    pub async fn enter(&self, kind: Kind, needs: Resources) -> Result<Room, AcquireError> {
        let share = self.share(kind);
        let slots = u32::try_from(needs.pool_slots).unwrap_or(u32::MAX);
        // Always in this order: who waits for memory has slots, and who has memory has all.
        Ok(Room {
            slots: share.slots.clone().acquire_many_owned(slots).await?,
            memory: share.memory.reserve(needs.memory_bytes).await,
        })
    }

    /// Reserves what nothing holds of the tasks' share, up to `most`. Nothing is left over while
    /// somebody waits in `enter`.
    pub fn offer(&self, most: Resources) -> Room {
        let slots = loop {
            let free = self.tasks.slots.available_permits().min(most.pool_slots);
            let free = u32::try_from(free).unwrap_or(u32::MAX);
            // Another may have been quicker.
            if let Ok(slots) = self.tasks.slots.clone().try_acquire_many_owned(free) {
                break slots;
            }
        };
        Room {
            slots,
            memory: self.tasks.memory.reserve_up_to(most.memory_bytes),
        }
    }

    /// What nothing holds of the tasks' share now.
    pub fn free(&self) -> Resources {
        Resources {
            memory_bytes: self.tasks.memory.free_bytes(),
            pool_slots: self.tasks.slots.available_permits(),
        }
    }

    /// Makes `room` as large as `needs`, for code that was loaded after it was reserved; `None` when
    /// that much more is not free now.
    pub fn fit(&self, mut room: Room, needs: Resources) -> Option<Room> {
        let has = room.resources();
        let more = needs.pool_slots.saturating_sub(has.pool_slots);
        if more > 0 {
            let more = u32::try_from(more).ok()?;
            let more = self.tasks.slots.clone().try_acquire_many_owned(more);
            room.slots.merge(more.ok()?);
        }
        let more = needs.memory_bytes.saturating_sub(has.memory_bytes);
        if more > 0 {
            room.memory.merge(self.tasks.memory.try_reserve(more)?);
        }
        Some(room)
    }

    pub fn total_bytes(&self, kind: Kind) -> usize {
        self.share(kind).memory.total_bytes()
    }

    /// Why a guest that may have `memory_bytes`, as `setting` says, will never fit.
    pub fn refuse(&self, kind: Kind, memory_bytes: usize, setting: &str) -> Option<String> {
        let total = self.total_bytes(kind);
        let (who, whose) = match kind {
            Kind::Task => ("tasks", format!("{SETTING} less {SHARE_SETTING}")),
            Kind::Component => ("components", SHARE_SETTING.to_owned()),
        };
        let [total_given, share_given] = self.given;
        let unset = match (total_given, share_given) {
            (false, false) => {
                "; unless set, a quarter of three quarters of this machine's memory is for components"
            }
            (false, true) => "; unless set, the total is three quarters of this machine's memory",
            (true, false) => "; unless set, components have a quarter of the total",
            (true, true) => "",
        };
        (memory_bytes > total).then(|| {
            format!(
                "may have {memory_bytes} bytes of memory ({setting}), and all {who} together only \
                 {total} ({whose}{unset}): lower the one or raise the other"
            )
        })
    }

    fn share(&self, kind: Kind) -> &Share {
        match kind {
            Kind::Task => &self.tasks,
            Kind::Component => &self.components,
        }
    }
}

impl Share {
    fn new(slots: usize, bytes: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(slots)),
            memory: Budget::new(bytes),
        }
    }
}

impl Room {
    pub fn resources(&self) -> Resources {
        Resources {
            memory_bytes: self.memory.bytes(),
            pool_slots: self.slots.num_permits(),
        }
    }

    /// Takes a part out of it; `None` when it is smaller than that.
    pub fn split(&mut self, needs: Resources) -> Option<Room> {
        if !needs.fits_in(self.resources()) {
            return None;
        }
        Some(Room {
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

    fn gate(total_mib: usize, components_mib: usize) -> Gate {
        let mut plugins = Config::default().plugins;
        plugins.max_total_memory_bytes = total_mib * MIB;
        plugins.max_component_memory_bytes = components_mib * MIB;
        Gate::new(&plugins)
    }

    fn one(mib: usize) -> Resources {
        Resources {
            memory_bytes: mib * MIB,
            pool_slots: 1,
        }
    }

    #[test]
    fn what_components_hold_is_not_missing_to_tasks() {
        let gate = gate(200, 100);
        let enter = |kind, mib| gate.enter(kind, one(mib)).now_or_never();
        let component = enter(Kind::Component, 100);
        assert!(component.is_some());
        assert!(enter(Kind::Component, 1).is_none());
        let task = enter(Kind::Task, 64);
        assert!(task.is_some());
        assert!(enter(Kind::Task, 64).is_none());
        drop(task);
        assert!(enter(Kind::Task, 64).is_some());
    }

    #[test]
    fn an_offer_is_split_among_those_who_come() {
        let gate = gate(200, 100);
        let mut offer = gate.offer(Resources::UNLIMITED);
        assert_eq!(offer.resources().memory_bytes, 100 * MIB);
        assert_eq!(gate.free(), Resources::default());
        let first = offer.split(one(64)).unwrap();
        assert!(offer.split(one(64)).is_none());
        let second = offer.split(one(36)).unwrap();
        drop(offer);
        assert_eq!(gate.free().memory_bytes, 0);
        drop(second);
        // Newer code may need more than was reserved for it.
        let first = gate.fit(first, one(90)).unwrap();
        assert_eq!(gate.free().memory_bytes, 10 * MIB);
        assert!(gate.fit(first, one(101)).is_none());
        assert_eq!(gate.free().memory_bytes, 100 * MIB);
    }

    #[test]
    fn nothing_is_offered_while_somebody_waits() {
        let gate = gate(200, 100);
        let small = gate.enter(Kind::Task, one(40)).now_or_never().unwrap();
        let mut large = Box::pin(gate.enter(Kind::Task, one(100)));
        assert!(large.as_mut().now_or_never().is_none());
        let offer = gate.offer(Resources::UNLIMITED);
        assert_eq!(offer.resources().memory_bytes, 0);
        drop((offer, small));
        assert!(large.now_or_never().is_some());
    }

    #[test]
    fn components_have_a_quarter_or_room_for_one() {
        let shares = |total: usize, given: usize| {
            let mut plugins = Config::default().plugins;
            plugins.max_component_memory_bytes = given * MIB;
            shares(&plugins, total * MIB).map(|bytes| bytes / MIB)
        };
        assert_eq!(shares(1024, 0), [768, 256]);
        assert_eq!(shares(160, 0), [96, 64]);
        assert_eq!(shares(112, 0), [84, 28]);
        assert_eq!(shares(112, 40), [72, 40]);
        assert_eq!(shares(64, 0), [48, 16]);
    }

    #[test]
    fn what_never_fits_is_refused_by_both_settings() {
        let gate = gate(40, 10);
        let own = "plugin.a.limits.max_memory_bytes";
        assert_eq!(gate.refuse(Kind::Task, 30 * MIB, own), None);
        let error = gate.refuse(Kind::Task, 30 * MIB + 1, own).unwrap();
        for setting in [own, SETTING, SHARE_SETTING] {
            assert!(error.contains(setting), "{error}");
        }
        assert_eq!(gate.refuse(Kind::Component, 10 * MIB, own), None);
        let error = gate.refuse(Kind::Component, 10 * MIB + 1, own).unwrap();
        for setting in [own, SHARE_SETTING] {
            assert!(error.contains(setting), "{error}");
        }
        let mut plugins = Config::default().plugins;
        plugins.max_total_memory_bytes = 0;
        let by_machine = Gate::new(&plugins);
        assert!(by_machine.total_bytes(Kind::Task) > by_machine.total_bytes(Kind::Component));
    }
}
