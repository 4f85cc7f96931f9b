//! The one wasmtime engine of a node and what belongs to it: its settings, its pool, its linker,
//! its ticker, and the runtime that guests run on.

use super::{Error, gate, gate::Gate, guest::Guest, imports, limiter, machine, ticker::Ticker};
use hostel_runtime::health::Health;
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, PoisonError},
};
use tokio::runtime::{Builder, Handle, Runtime};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

/// What a guest's own frames may take of its stack. Half of the whole, so that host functions
/// that it calls have room.
pub const MAX_STACK_BYTES: usize = 1 << 20;

/// What one slot of the pool holds; a component that needs more takes several slots.
const MEMORIES_PER_SLOT: u32 = 2;
const TABLES_PER_SLOT: u32 = 8;
/// Memory that a slot keeps for its next guest instead of giving it back to the system.
const KEEP_RESIDENT_BYTES: usize = 1 << 20;
/// Idle slots that stay prepared for a plugin. More makes memory grow with every reload.
const WARM_SLOTS: u32 = 32;

pub struct Engine {
    pub wasmtime: wasmtime::Engine,
    pub linker: Linker<Guest>,
    /// Whoever instantiates goes through here first.
    pub gate: Gate,
    guests: Handle,
    runtime: Mutex<Option<Runtime>>,
    _ticker: Ticker,
}

impl Engine {
    pub fn new(config: &hostel_config::Config, health: &Health) -> Result<Self, Error> {
        let wasmtime = match wasmtime::Engine::new(&engine_settings(config)) {
            Ok(engine) => engine,
            Err(error) => {
                tracing::warn!(
                    "no pool of instances can be had, so each task costs some 50 µs more: {error:#}"
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
            gate: Gate::new(&config.plugins),
            guests: runtime.handle().clone(),
            runtime: Mutex::new(Some(runtime)),
            _ticker: ticker,
        })
    }

    /// Where guests run.
    pub fn guests(&self) -> &Handle {
        &self.guests
    }

    /// How many slots an instance of `component` takes, or why it will never fit.
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
        let mut runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = runtime.take() {
            // Not a plain drop: that would block, which an async thread must not.
            runtime.shutdown_background();
        }
    }
}

/// The slots of the pool, of tasks and components together.
fn slot_count(plugins: &hostel_config::Plugins) -> u32 {
    let slots: usize = gate::slot_counts(plugins).iter().sum();
    u32::try_from(slots).unwrap_or(u32::MAX)
}

/// What a node and the processes that compile for it share: the artifacts of the one are for the
/// other. Without the pool, which has no part in compiling and takes address space.
pub fn common() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(MAX_STACK_BYTES)
        .async_stack_size(2 * MAX_STACK_BYTES)
        // All worlds are synchronous; this halves what an instance costs.
        .concurrency_support(false)
        .wasm_component_model(true)
        .wasm_memory64(false)
        .wasm_backtrace_details(wasmtime::WasmBacktraceDetails::Disable);
    config
}

/// What the engine of a node with this configuration is made from; benches hold bare wasmtime
/// against the same.
pub fn engine_settings(config: &hostel_config::Config) -> Config {
    let slots = slot_count(&config.plugins);
    let limits = std::iter::once(&config.plugins.sandbox);
    let largest_memory = limits.clone().map(|limits| limits.max_memory_bytes);
    let largest_table = limits.map(|limits| limits.max_table_elements);
    let overrides = || config.plugin.values().map(|plugin| &plugin.limits);
    let max_memory = largest_memory
        .chain(overrides().filter_map(|limits| limits.max_memory_bytes))
        .max()
        .unwrap_or_default();
    let max_table = largest_table
        .chain(overrides().filter_map(|limits| limits.max_table_elements))
        .max()
        .unwrap_or_default();

    let memories = slots.saturating_mul(MEMORIES_PER_SLOT);
    let tables = slots.saturating_mul(TABLES_PER_SLOT);
    let instances = slots.saturating_mul(u32::try_from(limiter::MAX_INSTANCES).unwrap_or(u32::MAX));
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances)
        .total_memories(memories)
        .total_tables(tables)
        .total_stacks(slots)
        .max_component_instance_size(16 << 20)
        .max_core_instance_size(4 << 20)
        .max_tables_per_module(u32::try_from(limiter::MAX_TABLES).unwrap_or(u32::MAX))
        .max_memory_size(max_memory.next_multiple_of(64 << 10))
        .table_elements(max_table)
        .max_unused_warm_slots(WARM_SLOTS)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(64 << 10);
    if machine::memory_stays_in_place() {
        // With swap the kernel can miss a dirty page, and the next guest could read it.
        pool.pagemap_scan(Enabled::Auto);
    }
    let mut config = common();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// Tells engines whose artifacts fit each other from all others.
pub fn key(engine: &wasmtime::Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

fn guest_runtime(threads: usize) -> std::io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if threads > 0 {
        builder.worker_threads(threads);
    }
    builder
        .thread_name("hostel-guest")
        .enable_time()
        // A busy guest gives its thread back every 10 ms only; so look for new tasks at every
        // other turn and for timers soon, where the defaults would wait for 61 turns.
        .global_queue_interval(2)
        .event_interval(8)
        .build()
}
