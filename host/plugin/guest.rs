//! What a store holds for its guest: an empty WASI world, its journal, its settings, its limiter,
//! and what it may reach of the outside.
//! Nothing is inherited from the node: no files, environment, arguments, network or streams.

use super::{
    journal::{Journal, Pipe, Stream, Subject},
    limiter::Limiter,
    outside::Granted,
};
use hostel_config::Sandbox;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
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
    /// Whether the current call is a component's.
    component: bool,
    /// How many messages the current call may still send, and how many it could at first.
    messages: (u32, u32),
    /// When the current call has to be over.
    deadline: Option<Instant>,
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
            component: false,
            messages: (0, 0),
            deadline: None,
            limiter,
            journal: Arc::new(journal),
            settings,
            wasi: None,
            resources,
            granted,
        }
    }

    /// A call begins, with all that one may have.
    pub fn begin(&mut self, subject: Subject, deadline: Instant, limits: &Sandbox) {
        self.component = matches!(subject, Subject::Component | Subject::Topic(_));
        self.journal.begin(subject);
        self.limiter.begin();
        self.messages = (limits.max_messages, limits.max_messages);
        self.deadline = Some(deadline);
    }

    /// Whether the current call is a component's.
    pub fn is_component(&self) -> bool {
        self.component
    }

    /// Counts a message that the guest is about to send; an error says how many it may.
    pub fn take_message(&mut self) -> Result<(), u32> {
        let (left, max) = &mut self.messages;
        *left = left.checked_sub(1).ok_or(*max)?;
        Ok(())
    }

    /// How long the current call may still take.
    pub fn time_left(&self) -> Duration {
        let left = self
            .deadline
            .map(|at| at.saturating_duration_since(Instant::now()));
        left.unwrap_or_default()
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
