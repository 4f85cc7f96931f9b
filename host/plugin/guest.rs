//! What a store holds for its guest: an empty WASI world, its journal, its settings, its limiter,
//! and what it may reach of the outside.
//! Nothing is inherited from the node: no files, environment, arguments, network or streams.

use super::{
    journal::{Journal, Pipe, Stream},
    limiter::Limiter,
    outside::Granted,
};
use std::sync::Arc;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_config::{WasiConfig, WasiConfigVariables};

/// What one guest may hold of the host's: streams, pollables, descriptors, stores.
const MAX_RESOURCES: usize = 10_000;
/// The most random bytes that one call hands out.
const MAX_RANDOM_BYTES: u64 = 1 << 20;

pub struct Guest {
    pub limiter: Limiter,
    pub journal: Arc<Journal>,
    /// `None` while it only describes itself.
    pub granted: Option<Arc<Granted>>,
    settings: Arc<WasiConfigVariables>,
    /// Made when first asked for: most calls never ask, and it costs a microsecond.
    wasi: Option<Box<WasiCtx>>,
    pub resources: ResourceTable,
}

impl Guest {
    pub fn new(
        limiter: Limiter,
        journal: Journal,
        settings: Arc<WasiConfigVariables>,
        granted: Option<Arc<Granted>>,
    ) -> Self {
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(MAX_RESOURCES);
        Self {
            limiter,
            journal: Arc::new(journal),
            settings,
            wasi: None,
            resources,
            granted,
        }
    }

    pub fn settings(&mut self) -> WasiConfig<'_> {
        WasiConfig::new(&self.settings)
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let ctx = self
            .wasi
            .get_or_insert_with(|| Box::new(empty_world(&self.journal)));
        WasiCtxView {
            ctx,
            table: &mut self.resources,
        }
    }
}

fn empty_world(journal: &Arc<Journal>) -> WasiCtx {
    let pipe = |stream| Pipe {
        journal: journal.clone(),
        stream,
    };
    // Sockets are refused when they are made, since even an idle one would cost the node a
    // descriptor.
    WasiCtx::builder()
        .stdout(pipe(Stream::Stdout))
        .stderr(pipe(Stream::Stderr))
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .max_random_size(MAX_RANDOM_BYTES)
        .build()
}
