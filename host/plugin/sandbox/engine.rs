//! The wasmtime engine of a node with its pool, linker and ticker, the admission of guests, and the
//! runtime that guests run on.

use super::{
    admission::Admission,
    engine_config::{MEMORIES_PER_SLOT, TABLES_PER_SLOT, settings_with},
    imports, limiter,
    sizing::{self, Shares},
    store_state::StoreState,
    ticker::Ticker,
};
use crate::error::Error;
use hostel_config as config;
use hostel_runtime::health::Health;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};
use wasmtime::component::{Component, Linker};

/// Address space that a pool slot takes: each of its memories can be addressed with 32 bits.
const SLOT_GIB: usize = 4 * MEMORIES_PER_SLOT as usize;

pub struct Engine {
    pub wasmtime: wasmtime::Engine,
    pub linker: Linker<StoreState>,
    /// Every instance needs a permit from here.
    pub admission: Admission,
    guests: Handle,
    runtime: Mutex<Option<Runtime>>,
    _ticker: Ticker,
}

impl Engine {
    pub fn new(config: &config::Config, health: &Health) -> Result<Self, Error> {
        let wanted = sizing::slot_counts(&config.plugins);
        let (wasmtime, slots) = largest_pool(wanted, |slots| {
            wasmtime::Engine::new(&settings_with(config, slots))
        })?;
        let runtime = guest_runtime(config.plugins.threads)
            .map_err(|source| Error::io("the threads for guests cannot be started", source))?;
        let ticker = Ticker::start(wasmtime.clone(), health)
            .map_err(|source| Error::io("the epoch thread cannot be started", source))?;
        Ok(Self {
            linker: imports::linker(&wasmtime).map_err(Error::engine)?,
            wasmtime,
            admission: Admission::new(&config.plugins, slots),
            guests: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
            _ticker: ticker,
        })
    }

    /// The runtime that guests run on.
    pub fn guests(&self) -> &Handle {
        &self.guests
    }

    /// How many pool slots an instance of `component` takes, or why it will never fit.
    pub fn slots_of(&self, component: &Component) -> Result<usize, String> {
        let Some(needs) = component.resources_required() else {
            return Ok(1);
        };
        if needs.num_memories as usize > limiter::MAX_MEMORIES {
            let (has, max) = (needs.num_memories, limiter::MAX_MEMORIES);
            return Err(format!("has {has} memories; at most {max} are allowed"));
        }
        if needs.num_tables as usize > limiter::MAX_TABLES {
            let (has, max) = (needs.num_tables, limiter::MAX_TABLES);
            return Err(format!("has {has} tables; at most {max} are allowed"));
        }
        let slots = needs
            .num_memories
            .div_ceil(MEMORIES_PER_SLOT)
            .max(needs.num_tables.div_ceil(TABLES_PER_SLOT));
        Ok(slots.max(1) as usize)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.lock().take() {
            // A plain drop would block, which an async thread must not do.
            runtime.shutdown_background();
        }
    }
}

/// Makes an engine with the largest pool of instances that the address space has room for, up to
/// `wanted`. There is no engine without a pool: only the pool bounds the size of an instance, which no
/// other limit counts.
fn largest_pool<E>(
    wanted: Shares,
    make: impl Fn(Shares) -> wasmtime::Result<E>,
) -> Result<(E, Shares), Error> {
    let count = |slots: Shares| slots.tasks.saturating_add(slots.components);
    let mut refused = None;
    for slots in sizing::smaller_pools(wanted) {
        match make(slots) {
            Ok(engine) => {
                if let Some((_, error)) = refused {
                    let (has, wanted) = (count(slots), count(wanted));
                    tracing::warn!(
                        "the address space has room for {has} of {wanted} pool slots, so fewer tasks and \
                         components run at once: raise its limit (`ulimit -v`, LimitAS= of systemd), or \
                         lower plugins.max_tasks and plugins.max_components: {error:#}"
                    );
                }
                return Ok((engine, slots));
            }
            Err(error) => refused = Some((slots, error)),
        }
    }
    let why = refused.map_or_else(String::new, |(slots, error)| {
        format!(
            "no pool of instances can be allocated, not even one of {} slots, which takes some {} GiB of \
             address space: raise its limit (`ulimit -v`, LimitAS= of systemd), or use a machine with a \
             larger address space: {error:#}",
            count(slots),
            count(slots) * SLOT_GIB,
        )
    });
    Err(Error::Engine(why))
}

fn guest_runtime(threads: usize) -> std::io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if threads > 0 {
        builder.worker_threads(threads);
    }
    builder
        .thread_name("hostel-guest")
        .enable_time()
        // A busy guest yields its thread only every 10 ms, so new tasks are looked for at every other
        // turn and timers soon, instead of after 61 turns.
        .global_queue_interval(2)
        .event_interval(8)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_does_not_fit_is_halved_until_it_does() {
        let wanted = Shares {
            tasks: 66,
            components: 40,
        };
        let pool = |room: usize| {
            largest_pool(wanted, |slots| {
                let count = slots.tasks + slots.components;
                if count > room {
                    wasmtime::bail!("mmap failed to reserve");
                }
                Ok(count)
            })
        };
        assert_eq!(pool(1000).unwrap(), (106, wanted));
        assert_eq!(pool(105).unwrap().0, 53);
        assert_eq!(pool(30).unwrap().0, 26);
        let (least, slots) = pool(16).unwrap();
        assert_eq!((least, slots.tasks, slots.components), (16, 8, 8));
        let error = pool(15).unwrap_err().to_string();
        for words in ["16 slots", "128 GiB", "ulimit -v", "mmap failed to reserve"] {
            assert!(error.contains(words), "{error}");
        }
    }
}
