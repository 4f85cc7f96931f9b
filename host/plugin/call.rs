//! One call of a guest: a fresh instance under its limits, from the wait for room to the words
//! for how it ended. Knows nothing of files, names or the catalog.

use super::{
    bindings::task_handler::{self, TaskError},
    engine::{Engine, MAX_STACK_BYTES},
    guest::Guest,
    journal::{Journal, Speaker},
    limiter::{Denied, Limiter},
    meter::Meter,
    outside::Granted,
    text::clip,
};
use crate::{
    config::Sandbox,
    task::{Ended, Name, TaskId},
};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
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

/// A task for a handler.
#[derive(Debug, Clone)]
pub struct Call {
    pub id: TaskId,
    pub payload: Bytes,
    pub metadata: Arc<BTreeMap<String, String>>,
    /// 1 for the first.
    pub attempt: u32,
    /// Ends the call within some 10 ms.
    pub cancel: CancellationToken,
}

/// How a call ended and what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    pub ended: Ended,
    pub usage: Usage,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time on a processor.
    pub cpu: Duration,
    /// The most that all linear memories had together.
    pub peak_memory_bytes: usize,
    /// Whether the guest said more than `max_log_bytes`; the rest was dropped.
    pub log_cut_off: bool,
}

/// A linked component with all that its calls need.
pub struct Program {
    pub engine: Arc<Engine>,
    pub pre: InstancePre<Guest>,
    pub slots: u32,
    pub sandbox: Sandbox,
    pub settings: Arc<WasiConfigVariables>,
    pub speaker: Arc<Speaker>,
    /// `None` for one that only describes itself.
    pub granted: Option<Arc<Granted>>,
}

/// Why a call gave no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    #[error("it was cancelled")]
    Cancelled,
    #[error("it took longer than its timeout of {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("it used more than {} ms of processor time (plugins.sandbox.max_cpu_ms)", .0.as_millis())]
    Cpu(Duration),
    #[error("it needed more than {0} bytes of memory (plugins.sandbox.max_memory_bytes)")]
    Memory(usize),
    #[error("it needed more than {0} table elements (plugins.sandbox.max_table_elements)")]
    Table(usize),
    #[error("its result has more than {0} bytes (plugins.sandbox.max_result_bytes)")]
    Result(usize),
    #[error(
        "it handed the node more than {0} bytes in one call (plugins.sandbox.max_result_bytes)"
    )]
    Transfer(usize),
    #[error("it recursed deeper than its stack of {MAX_STACK_BYTES} bytes")]
    Stack,
    /// The guest's own fault.
    #[error("{0}")]
    Trap(String),
}

impl Stop {
    pub fn into_ended(self) -> Ended {
        let error = clip(self.to_string());
        match self {
            Stop::Cancelled => Ended::Cancelled,
            Stop::Timeout(_) | Stop::Trap(_) => Ended::Retryable { error, after: None },
            Stop::Cpu(_)
            | Stop::Memory(_)
            | Stop::Table(_)
            | Stop::Result(_)
            | Stop::Transfer(_)
            | Stop::Stack => Ended::Permanent { error },
        }
    }
}

impl Program {
    /// Runs `work` on a store of its own, for at most `timeout` from the moment there is room.
    pub async fn enter<T>(
        &self,
        task: Option<Name>,
        timeout: Duration,
        cancel: &CancellationToken,
        work: impl AsyncFnOnce(&mut Store<Guest>) -> wasmtime::Result<T>,
    ) -> (Result<T, Stop>, Usage) {
        let max_memory_bytes = self.sandbox.max_memory_bytes;
        let _room = tokio::select! {
            biased;
            room = self.engine.gate.enter(self.slots, max_memory_bytes) => room,
            () = cancel.cancelled() => return (Err(Stop::Cancelled), Usage::default()),
        };
        let deadline = Instant::now() + timeout;
        let meter = Arc::new(Meter::new(self.sandbox.max_cpu, deadline));
        let mut store = self.store(task, &meter);
        // The work comes first: a call that ends in its first turn never touches the timer.
        let ended = tokio::select! {
            biased;
            ended = meter.charge(work(&mut store)) => Ok(ended),
            () = cancel.cancelled() => Err(Stop::Cancelled),
            () = tokio::time::sleep_until(deadline.into()) => Err(Stop::Timeout(timeout)),
        };
        let usage = Usage {
            cpu: meter.spent(),
            peak_memory_bytes: store.data().limiter.peak_memory_bytes(),
            log_cut_off: store.data().journal.is_cut_off(),
        };
        let result = match ended {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.explain(&error, &meter, timeout, store.data())),
            Err(stop) => Err(stop),
        };
        (result, usage)
    }

    fn store(&self, task: Option<Name>, meter: &Arc<Meter>) -> Store<Guest> {
        let limits = &self.sandbox;
        let guest = Guest::new(
            Limiter::new(limits.max_memory_bytes, limits.max_table_elements),
            Journal::new(self.speaker.clone(), task),
            self.settings.clone(),
            self.granted.clone(),
        );
        let mut store = Store::new(&self.engine.wasmtime, guest);
        store.limiter(|guest| &mut guest.limiter);
        store.set_hostcall_fuel(self.transfer_bytes());
        store.set_max_component_handles(MAX_HANDLES);
        store.set_epoch_deadline(1);
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

    /// Runs a task through `handler`.
    pub async fn handle(
        &self,
        handler: &task_handler::GuestIndices,
        task_type: &Name,
        max_attempts: u32,
        timeout: Duration,
        call: Call,
    ) -> Finished {
        let metadata: Vec<(&str, &str)> = call
            .metadata
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let task = task_handler::Task {
            id: call.id.as_str(),
            task_type: task_type.as_str(),
            payload: &call.payload,
            metadata: &metadata,
            attempt: call.attempt,
            max_attempts,
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        };
        let work = async |store: &mut Store<Guest>| {
            let instance = self.pre.instantiate_async(&mut *store).await?;
            let guest = handler.load(&mut *store, &instance)?;
            guest.call_handle(&mut *store, task).await
        };
        let id = Some(call.id.clone());
        let (result, usage) = self.enter(id, timeout, &call.cancel, work).await;
        let ended = match result {
            Ok(Ok(result)) if result.len() > self.sandbox.max_result_bytes => {
                Stop::Result(self.sandbox.max_result_bytes).into_ended()
            }
            Ok(Ok(result)) => Ended::Returned(result.into()),
            Ok(Err(TaskError::Retryable(error))) => Ended::Retryable {
                error: clip(error.message),
                after: error.retry_after_ms.map(Duration::from_millis),
            },
            Ok(Err(TaskError::Permanent(error))) => Ended::Permanent { error: clip(error) },
            Err(stop) => stop.into_ended(),
        };
        Finished { ended, usage }
    }
}
