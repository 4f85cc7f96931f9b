//! A linked component with all that its calls need, and how a guest moves in and is called: under
//! its limits, from its room to the reason why a call gave no value. Knows nothing of
//! tasks, messages, files or the catalog.

use super::{
    engine::Engine,
    gate::{Kind, Room},
    guest::Guest,
    journal::{Journal, Speaker, Subject},
    limiter::{Denied, Limiter},
    meter::Meter,
    outside::Granted,
    stop::Stop,
};
use hostel_config::Sandbox;
use hostel_task::Resources;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use wasmtime::{Store, Trap, UpdateDeadline, component::InstancePre};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_config::WasiConfigVariables;

/// What a guest may always hand over in one host call, even where results must be smaller.
const MIN_TRANSFER_BYTES: usize = 1 << 20;
/// Handles to resources that a guest may hold.
const MAX_HANDLES: usize = 10_000;

/// A linked component with all that its calls need.
pub struct Program {
    pub engine: Arc<Engine>,
    pub pre: InstancePre<Guest>,
    /// How many slots of the pool an instance takes.
    pub slots: usize,
    pub sandbox: Sandbox,
    pub settings: Arc<WasiConfigVariables>,
    pub speaker: Arc<Speaker>,
    /// What it may reach beyond its sandbox; nothing while it describes itself.
    pub granted: Option<Arc<Granted>>,
}

/// A store that has its place on this machine, for one call or for many.
pub struct Tenant {
    pub store: Store<Guest>,
    meter: Arc<Meter>,
    _room: Room,
}

/// One call: what it is about, how long it may take, and what ends it sooner.
pub struct Errand<'a> {
    pub subject: Subject,
    pub timeout: Duration,
    /// When its time began, which a wait for room is part of.
    pub since: Instant,
    pub cancel: &'a CancellationToken,
}

impl Program {
    /// What an instance takes of the node's room while it lives.
    pub fn needs(&self) -> Resources {
        Resources {
            // Rounded as a budget counts, so that sums agree.
            memory_bytes: self.sandbox.max_memory_bytes.next_multiple_of(1 << 10),
            pool_slots: self.slots,
        }
    }

    /// Waits for room, for at most `timeout`, and makes a store.
    pub async fn admit(
        &self,
        kind: Kind,
        timeout: Duration,
        cancel: &CancellationToken,
    ) -> Result<Tenant, Stop> {
        tokio::select! {
            biased;
            room = self.engine.gate.enter(kind, self.needs()) => match room {
                Ok(room) => Ok(self.settle(room)),
                Err(_) => Err(Stop::Cancelled),
            },
            () = cancel.cancelled() => Err(Stop::Cancelled),
            () = tokio::time::sleep(timeout) => Err(Stop::NoRoom(timeout)),
        }
    }

    /// Makes a store in room that is reserved.
    pub fn settle(&self, room: Room) -> Tenant {
        let meter = Arc::new(Meter::new(self.sandbox.max_cpu));
        Tenant {
            store: self.store(&meter),
            meter,
            _room: room,
        }
    }

    /// Runs `work` in the store. After a `Stop` the store is of no more use.
    pub async fn call<T>(
        &self,
        tenant: &mut Tenant,
        errand: Errand<'_>,
        work: impl AsyncFnOnce(&mut Store<Guest>) -> wasmtime::Result<T>,
    ) -> Result<T, Stop> {
        let Tenant { store, meter, .. } = tenant;
        let Errand {
            subject,
            timeout,
            since,
            cancel,
        } = errand;
        let deadline = since + timeout;
        meter.begin(deadline);
        store.data_mut().begin(subject, deadline, &self.sandbox);
        store.set_epoch_deadline(1);
        // The work comes first: a call that ends in its first turn never touches the timer.
        let ended = tokio::select! {
            biased;
            ended = meter.charge(work(store)) => ended,
            () = cancel.cancelled() => return Err(Stop::Cancelled),
            () = tokio::time::sleep_until(deadline.into()) => return Err(Stop::Timeout(timeout)),
        };
        ended.map_err(|error| self.explain(&error, meter, timeout, store.data()))
    }

    fn store(&self, meter: &Arc<Meter>) -> Store<Guest> {
        let limits = &self.sandbox;
        let guest = Guest::new(
            Limiter::new(limits.max_memory_bytes, limits.max_table_elements),
            Journal::new(self.speaker.clone()),
            self.settings.clone(),
            self.granted.clone(),
        );
        let mut store = Store::new(&self.engine.wasmtime, guest);
        store.limiter(|guest| &mut guest.limiter);
        store.set_hostcall_fuel(self.transfer_bytes());
        store.set_max_component_handles(MAX_HANDLES);
        let meter = meter.clone();
        store.epoch_deadline_callback(move |_| {
            Ok(if meter.may_go_on() {
                // Not `Yield`: the runtime may take that up again at once.
                UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now()))
            } else {
                UpdateDeadline::Interrupt
            })
        });
        store
    }

    fn transfer_bytes(&self) -> usize {
        self.sandbox.max_result_bytes.max(MIN_TRANSFER_BYTES)
    }

    fn explain(
        &self,
        error: &wasmtime::Error,
        meter: &Meter,
        timeout: Duration,
        guest: &Guest,
    ) -> Stop {
        if meter.is_exhausted() {
            return Stop::Cpu(self.sandbox.max_cpu);
        }
        if meter.is_late() {
            return Stop::Timeout(timeout);
        }
        match guest.limiter.denied() {
            Some(Denied::Memory) => return Stop::Memory(self.sandbox.max_memory_bytes),
            Some(Denied::Table) => return Stop::Table(self.sandbox.max_table_elements),
            None => {}
        }
        let cause = error.root_cause().to_string();
        // wasmtime keeps this error's type to itself; a test trips over it if the words change.
        if cause.contains("fuel allocated for hostcalls has been exhausted") {
            return if error.is::<wasmtime::WasmBacktrace>() {
                Stop::Transfer(self.transfer_bytes())
            } else {
                Stop::Result(self.sandbox.max_result_bytes)
            };
        }
        let what = match (
            error.downcast_ref::<Trap>(),
            error.downcast_ref::<I32Exit>(),
        ) {
            (Some(Trap::StackOverflow), _) => return Stop::Stack,
            // LLVM keeps large frames in the guest's own memory, below everything else in it.
            (Some(trap @ Trap::MemoryOutOfBounds), _) => {
                format!("{trap} (a guest that recurses too deep can end like this)")
            }
            (Some(trap), _) => trap.to_string(),
            (_, Some(I32Exit(status))) => format!("the guest called exit({status})"),
            _ => cause.lines().next().unwrap_or_default().to_owned(),
        };
        Stop::Trap(match guest.journal.last_words() {
            Some(words) => format!("{what}: {words}"),
            None => what,
        })
    }
}

impl Tenant {
    /// Processor time of the latest call.
    pub fn cpu(&self) -> Duration {
        self.meter.spent()
    }
}
