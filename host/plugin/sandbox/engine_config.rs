//! The settings of a node's wasmtime engine, and the part of them that its compile processes share.

use super::{
    host_memory, limiter,
    sizing::{self, Shares},
};
use hostel_config as config;
use std::hash::{DefaultHasher, Hash, Hasher};
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

/// What a guest's own frames may take of its stack: half of it, so that the host functions that it
/// calls have room.
pub const MAX_STACK_BYTES: usize = 1 << 20;

/// What one pool slot holds; a component that needs more takes several slots.
pub const MEMORIES_PER_SLOT: u32 = 2;
pub const TABLES_PER_SLOT: u32 = 8;
/// Memory that a slot keeps for its next guest instead of returning it to the system.
const KEEP_RESIDENT_BYTES: usize = 1 << 20;
/// Idle slots that stay prepared for a plugin. With more, memory grows with every reload.
const WARM_SLOTS: u32 = 32;

/// The settings that a node and its compile processes share, so that the node can load their
/// artifacts. Without the pool, which compiling does not need and which takes address space.
pub fn common() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(MAX_STACK_BYTES)
        .async_stack_size(2 * MAX_STACK_BYTES)
        // All worlds are synchronous; this halves the cost of an instance.
        .concurrency_support(false)
        .wasm_component_model(true)
        .wasm_memory64(false)
        .wasm_backtrace_details(wasmtime::WasmBacktraceDetails::Disable);
    config
}

/// The settings of the engine of a node with this configuration. Benches use them to compare with
/// bare wasmtime.
pub fn engine_settings(config: &config::Config) -> Config {
    settings_with(config, sizing::slot_counts(&config.plugins))
}

/// The same with this many pool slots.
pub fn settings_with(config: &config::Config, slots: Shares) -> Config {
    let slots = slots.tasks.saturating_add(slots.components);
    let slots = u32::try_from(slots).unwrap_or(u32::MAX);
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
    if host_memory::memory_stays_in_place() {
        // With swap the kernel can miss a dirty page, which the next guest could read.
        pool.pagemap_scan(Enabled::Auto);
    }
    let mut config = common();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// A key that is equal for engines that can load each other's artifacts.
pub fn key(engine: &wasmtime::Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}
