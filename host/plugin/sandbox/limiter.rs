//! The memory limit of one store, summed over all of its memories and tables. Remembers what it
//! denied, so that the trap that follows is attributed to the limit, unless the guest survived that and
//! has named another reason since.

use wasmtime::ResourceLimiter;

/// The limit that a guest has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    Memory,
    Table,
}

pub struct Limiter {
    max_memory_bytes: usize,
    max_table_elements: usize,
    memory_bytes: usize,
    table_elements: usize,
    peak_memory_bytes: usize,
    denied: Option<Denied>,
    /// Whether the guest has named a reason of its own since then.
    survived: bool,
}

/// CPython and SpiderMonkey guests have about 110 core instances.
pub const MAX_INSTANCES: usize = 512;
pub const MAX_MEMORIES: usize = 16;
pub const MAX_TABLES: usize = 32;

impl Limiter {
    pub fn new(max_memory_bytes: usize, max_table_elements: usize) -> Self {
        Self {
            max_memory_bytes,
            max_table_elements,
            memory_bytes: 0,
            table_elements: 0,
            peak_memory_bytes: 0,
            denied: None,
            survived: false,
        }
    }

    pub fn peak_memory_bytes(&self) -> usize {
        self.peak_memory_bytes
    }

    /// Begins another call; what an earlier one was denied does not explain its failure.
    pub fn begin(&mut self) {
        self.denied = None;
        self.survived = false;
    }

    /// Notes that the guest has named a reason of its own for the failure that is coming.
    pub fn reason_given(&mut self) {
        self.survived = self.denied.is_some();
    }

    /// What the guest was denied in this call.
    pub fn denied(&self) -> Option<Denied> {
        self.denied
    }

    /// Whether the guest has named a reason of its own after it was denied something.
    pub fn survived(&self) -> bool {
        self.survived
    }

    fn deny(&mut self, denied: Denied) {
        self.denied = Some(denied);
        self.survived = false;
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let granted = grow(&mut self.memory_bytes, more, self.max_memory_bytes);
        if !granted {
            self.deny(Denied::Memory);
        }
        self.peak_memory_bytes = self.peak_memory_bytes.max(self.memory_bytes);
        Ok(granted)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let granted = grow(&mut self.table_elements, more, self.max_table_elements);
        if !granted {
            self.deny(Denied::Table);
        }
        Ok(granted)
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

/// Adds `more` to `used` if the sum is at most `max`. Returns whether it was added.
fn grow(used: &mut usize, more: usize, max: usize) -> bool {
    let total = used.saturating_add(more);
    let granted = total <= max;
    if granted {
        *used = total;
    }
    granted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memories_share_one_limit() {
        let mut limiter = Limiter::new(100, 10);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.memory_growing(0, 30, None).unwrap());
        assert!(!limiter.memory_growing(30, 50, None).unwrap());
        assert_eq!(limiter.denied(), Some(Denied::Memory));
        assert!(limiter.memory_growing(30, 40, None).unwrap());
        assert_eq!(limiter.peak_memory_bytes(), 100);
    }

    #[test]
    fn a_reason_counts_that_is_given_after_the_latest_denial() {
        let mut limiter = Limiter::new(100, 10);
        limiter.reason_given();
        assert!(!limiter.survived());
        assert!(!limiter.memory_growing(0, 101, None).unwrap());
        assert!(!limiter.survived());
        limiter.reason_given();
        assert!(limiter.survived());
        assert!(!limiter.memory_growing(0, 101, None).unwrap());
        assert!(!limiter.survived());
        limiter.reason_given();
        limiter.begin();
        assert!(!limiter.survived() && limiter.denied().is_none());
    }

    #[test]
    fn all_tables_share_one_limit() {
        let mut limiter = Limiter::new(100, 10);
        assert!(limiter.table_growing(0, 6, None).unwrap());
        assert!(!limiter.table_growing(0, 5, None).unwrap());
        assert_eq!(limiter.denied(), Some(Denied::Table));
    }
}
