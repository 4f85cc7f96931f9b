//! The wasmtime engine of a node with its pool, linker and ticker, the admission of guests, and the
//! runtime that guests run on.

use super::{
    admission::Admission,
    engine_config::{MEMORIES_PER_SLOT, TABLES_PER_SLOT, common, engine_settings},
    imports, limiter,
    store_state::StoreState,
    ticker::Ticker,
};
use crate::error::Error;
use hostel_config as config;
use hostel_runtime::health::Health;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};
use wasmtime::component::{Component, Linker};

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
        let wasmtime = match wasmtime::Engine::new(&engine_settings(config)) {
            Ok(engine) => engine,
            Err(error) => {
                tracing::warn!(
                    "no pool of instances can be allocated, so each task takes some 50 µs longer: {error:#}"
                );
                wasmtime::Engine::new(&common()).map_err(Error::engine)?
            }
        };
        let runtime = guest_runtime(config.plugins.threads)
            .map_err(|source| Error::io("the threads for guests cannot be started", source))?;
        let ticker = Ticker::start(wasmtime.clone(), health)
            .map_err(|source| Error::io("the epoch thread cannot be started", source))?;
        Ok(Self {
            linker: imports::linker(&wasmtime).map_err(Error::engine)?,
            wasmtime,
            admission: Admission::new(&config.plugins),
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
