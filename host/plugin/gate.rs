//! How many guests may be there at once: by the slots of the pool, which answers exhaustion with an
//! error and not with a wait, and by memory, so that all limits together stay within the machine.

use super::machine;
use std::sync::Arc;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// What memory is counted in: a page of WebAssembly.
const UNIT_BYTES: usize = 64 << 10;
/// Where nobody says how much memory there is, no guest is kept waiting for it.
const UNKNOWN: usize = usize::MAX;

pub struct Gate {
    slots: Arc<Semaphore>,
    memory: Arc<Semaphore>,
    total_units: u32,
    /// Whether an operator gave the total.
    given: bool,
}

/// Held while a guest lives.
pub struct Room {
    _slots: OwnedSemaphorePermit,
    _memory: OwnedSemaphorePermit,
}

impl Gate {
    /// For so many slots and `max_bytes` of memory, where 0 is three quarters of the machine's.
    pub fn new(slots: u32, max_bytes: usize) -> Self {
        let given = max_bytes > 0;
        let total = if given {
            max_bytes
        } else {
            machine::memory_bytes().map_or(UNKNOWN, |bytes| bytes / 4 * 3)
        };
        let most = u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX);
        let total_units = u32::try_from(total / UNIT_BYTES)
            .unwrap_or(most)
            .clamp(1, most);
        Self {
            slots: Arc::new(Semaphore::new(slots as usize)),
            memory: Arc::new(Semaphore::new(total_units as usize)),
            total_units,
            given,
        }
    }

    /// Waits until there are `slots` slots and `memory_bytes` of memory. More memory than there is
    /// in all is taken for all.
    pub async fn enter(&self, slots: u32, memory_bytes: usize) -> Result<Room, AcquireError> {
        // Always in this order: who waits for memory has slots, and who has memory has all.
        Ok(Room {
            _slots: self.slots.clone().acquire_many_owned(slots).await?,
            _memory: self
                .memory
                .clone()
                .acquire_many_owned(self.units(memory_bytes))
                .await?,
        })
    }

    pub fn total_memory_bytes(&self) -> usize {
        self.total_units as usize * UNIT_BYTES
    }

    /// Why a guest that may have `memory_bytes`, as `setting` says, will never fit.
    pub fn refuse(&self, memory_bytes: usize, setting: &str) -> Option<String> {
        let total = self.total_memory_bytes();
        let machine = if self.given {
            ""
        } else {
            ", three quarters of this machine's memory unless set"
        };
        (memory_bytes > total).then(|| {
            format!(
                "may have {memory_bytes} bytes of memory ({setting}), and all calls together only \
                 {total} (plugins.max_total_memory_bytes{machine}): lower the one or raise the other"
            )
        })
    }

    fn units(&self, memory_bytes: usize) -> u32 {
        let units = u32::try_from(memory_bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        units.min(self.total_units)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const MIB: usize = 1 << 20;

    #[tokio::test]
    async fn memory_is_waited_for_and_given_back() {
        let gate = Gate::new(10, 100 * MIB);
        let first = gate.enter(1, 64 * MIB).await;
        let second = gate.enter(1, 36 * MIB).await;
        let soon = Duration::from_millis(20);
        let third = tokio::time::timeout(soon, gate.enter(1, 1)).await;
        assert!(third.is_err());
        drop(first);
        let third = tokio::time::timeout(soon, gate.enter(1, 64 * MIB)).await;
        assert!(third.is_ok());
        drop((second, third));
        assert!(gate.enter(10, 1000 * MIB).await.is_ok());
    }

    #[test]
    fn what_never_fits_is_refused_by_both_settings() {
        let gate = Gate::new(1, 10 * MIB);
        assert_eq!(gate.refuse(10 * MIB, "x"), None);
        let error = gate
            .refuse(10 * MIB + 1, "plugin.a.limits.max_memory_bytes")
            .unwrap();
        assert!(
            error.contains("(plugin.a.limits.max_memory_bytes)"),
            "{error}"
        );
        assert!(
            error.contains("(plugins.max_total_memory_bytes)"),
            "{error}"
        );
        let by_machine = Gate::new(1, 0);
        assert!(by_machine.total_units > 1);
        assert_eq!(by_machine.refuse(MIB, "x"), None);
    }
}
