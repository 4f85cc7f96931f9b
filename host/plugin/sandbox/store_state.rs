//! The host's state of one guest: an empty WASI world, its log, settings, limiter and capabilities.
//! Nothing is inherited from the node: no files, environment, arguments, network or streams.

use super::{
    capabilities::Granted,
    guest_log::{GuestLog, Pipe, Stream, Subject},
    limiter::Limiter,
    observer::AttemptObserver,
};
use hostel_config::Sandbox;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_config::{WasiConfig, WasiConfigVariables};

/// How many resources of the host one guest may hold: streams, pollables, descriptors, buckets.
const MAX_RESOURCES: usize = 10_000;
/// The most random bytes that one host call returns.
const MAX_RANDOM_BYTES: u64 = 1 << 20;

pub struct StoreState {
    pub limiter: Limiter,
    pub log: Arc<GuestLog>,
    /// `None` while the guest only describes itself.
    pub granted: Option<Arc<Granted>>,
    /// Of the current call, if it runs a task.
    pub observer: Option<Arc<dyn AttemptObserver>>,
    settings: Arc<WasiConfigVariables>,
    /// Whether the current call is a component's.
    component: bool,
    /// How many messages the current call may still send.
    messages_left: u32,
    max_messages: u32,
    /// When the current call has to end.
    deadline: Option<Instant>,
    /// Made on first use: it takes a microsecond, and most calls never use it.
    wasi: Option<Box<WasiCtx>>,
    pub resources: ResourceTable,
}

impl StoreState {
    pub fn new(
        limiter: Limiter,
        log: GuestLog,
        settings: Arc<WasiConfigVariables>,
        granted: Option<Arc<Granted>>,
    ) -> Self {
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(MAX_RESOURCES);
        Self {
            component: false,
            messages_left: 0,
            max_messages: 0,
            deadline: None,
            limiter,
            log: Arc::new(log),
            settings,
            wasi: None,
            resources,
            granted,
            observer: None,
        }
    }

    /// Begins a call with the full limits.
    pub fn begin(&mut self, subject: Subject, deadline: Instant, limits: &Sandbox) {
        self.component = matches!(subject, Subject::Component | Subject::Topic(_));
        self.log.begin(subject);
        self.limiter.begin();
        self.messages_left = limits.max_messages;
        self.max_messages = limits.max_messages;
        self.deadline = Some(deadline);
    }

    /// Whether the current call is a component's.
    pub fn is_component(&self) -> bool {
        self.component
    }

    /// Counts a message that the guest is about to send. The error is the limit.
    pub fn take_message(&mut self) -> Result<(), u32> {
        let left = self.messages_left.checked_sub(1);
        self.messages_left = left.ok_or(self.max_messages)?;
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

impl WasiView for StoreState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let ctx = self
            .wasi
            .get_or_insert_with(|| Box::new(empty_world(&self.log)));
        WasiCtxView {
            ctx,
            table: &mut self.resources,
        }
    }
}

fn empty_world(log: &Arc<GuestLog>) -> WasiCtx {
    let pipe = |stream| Pipe {
        log: log.clone(),
        stream,
    };
    // Sockets are refused when they are created, since even an idle one would take a descriptor of
    // the node.
    WasiCtx::builder()
        .stdout(pipe(Stream::Stdout))
        .stderr(pipe(Stream::Stderr))
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .max_random_size(MAX_RANDOM_BYTES)
        .build()
}
