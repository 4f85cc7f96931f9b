//! A linked plugin, and how its guests are admitted and called under their limits. Knows nothing of
//! tasks, messages, files or the catalog.

use super::{
    admission::{GuestKind, Permit},
    call_error::CallError,
    capabilities::Granted,
    cpu_budget::CpuBudget,
    engine::Engine,
    guest_log::{GuestLog, LogSource, Subject},
    limiter::{Denied, Limiter},
    observer::AttemptObserver,
    store_state::StoreState,
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

/// Handles to resources that a guest may hold.
const MAX_HANDLES: usize = 10_000;

/// A linked component with everything that its calls need.
pub struct LinkedPlugin {
    pub engine: Arc<Engine>,
    pub pre: InstancePre<StoreState>,
    /// How many pool slots an instance takes.
    pub slots: usize,
    pub sandbox: Sandbox,
    /// What a guest may pass to the node at once, from `transfer::max_bytes`.
    pub max_transfer_bytes: usize,
    pub settings: Arc<WasiConfigVariables>,
    pub log_source: Arc<LogSource>,
    /// What it may reach beyond its sandbox; nothing while it describes itself.
    pub granted: Option<Arc<Granted>>,
}

/// A store with the permit that it runs in, for one call or for many.
pub struct AdmittedStore {
    pub store: Store<StoreState>,
    cpu_budget: Arc<CpuBudget>,
    permit: Permit,
}

/// What one call is about, how long it may take, and what cancels it.
pub struct CallContext<'a> {
    pub subject: Subject,
    pub timeout: Duration,
    /// When its time began; a wait for admission is part of it.
    pub since: Instant,
    pub cancel: &'a CancellationToken,
    /// Of a task.
    pub observer: Option<&'a Arc<dyn AttemptObserver>>,
}

impl LinkedPlugin {
    /// What an instance takes of the node's memory and pool slots while it lives.
    pub fn needs(&self) -> Resources {
        Resources {
            // Rounded as a budget counts, so that sums agree.
            memory_bytes: self.sandbox.max_memory_bytes.next_multiple_of(1 << 10),
            pool_slots: self.slots,
        }
    }

    /// Makes a store in `permit` if that is large enough, else waits for a permit, at most `timeout`.
    pub async fn admit(
        &self,
        kind: GuestKind,
        permit: Option<Permit>,
        timeout: Duration,
        cancel: &CancellationToken,
    ) -> Result<AdmittedStore, CallError> {
        let needs = self.needs();
        let permit = permit.filter(|permit| needs.fits_in(permit.resources()));
        let permit = match permit {
            Some(permit) => permit,
            None => tokio::select! {
                biased;
                acquired = self.engine.admission.acquire(kind, needs) => {
                    acquired.map_err(|_| CallError::Cancelled)?
                }
                () = cancel.cancelled() => return Err(CallError::Cancelled),
                () = tokio::time::sleep(timeout) => return Err(CallError::NoRoom(timeout)),
            },
        };
        let cpu_budget = Arc::new(CpuBudget::new(self.sandbox.max_cpu));
        Ok(AdmittedStore {
            store: self.store(&cpu_budget),
            cpu_budget,
            permit,
        })
    }

    /// Runs `work` in the store. After an error the store must not be used again.
    pub async fn call<T>(
        &self,
        admitted: &mut AdmittedStore,
        context: CallContext<'_>,
        work: impl AsyncFnOnce(&mut Store<StoreState>) -> wasmtime::Result<T>,
    ) -> Result<T, CallError> {
        let AdmittedStore {
            store, cpu_budget, ..
        } = admitted;
        let CallContext {
            subject,
            timeout,
            since,
            cancel,
            observer,
        } = context;
        let deadline = since + timeout;
        cpu_budget.begin(deadline);
        let state = store.data_mut();
        state.begin(subject, deadline, &self.sandbox);
        state.observer = observer.cloned();
        store.set_epoch_deadline(1);
        // The work comes first: a call that ends in its first poll never touches the timer.
        let ended = tokio::select! {
            biased;
            ended = cpu_budget.charge(work(store)) => ended,
            () = interrupted(cancel, observer) => return Err(CallError::Cancelled),
            () = tokio::time::sleep_until(deadline.into()) => {
                return Err(CallError::Timeout(timeout));
            }
        };
        ended.map_err(|error| self.explain(&error, cpu_budget, timeout, store.data()))
    }

    fn store(&self, cpu_budget: &Arc<CpuBudget>) -> Store<StoreState> {
        let limits = &self.sandbox;
        let state = StoreState::new(
            Limiter::new(limits.max_memory_bytes, limits.max_table_elements),
            GuestLog::new(self.log_source.clone()),
            self.settings.clone(),
            self.granted.clone(),
        );
        let mut store = Store::new(&self.engine.wasmtime, state);
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(self.max_transfer_bytes);
        store.set_max_component_handles(MAX_HANDLES);
        let cpu_budget = cpu_budget.clone();
        store.epoch_deadline_callback(move |_| {
            Ok(if cpu_budget.may_continue() {
                // Not `Yield`: the runtime may poll that again at once.
                UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now()))
            } else {
                UpdateDeadline::Interrupt
            })
        });
        store
    }

    fn explain(
        &self,
        error: &wasmtime::Error,
        cpu_budget: &CpuBudget,
        timeout: Duration,
        state: &StoreState,
    ) -> CallError {
        if cpu_budget.is_exhausted() {
            return CallError::Cpu(self.sandbox.max_cpu);
        }
        if cpu_budget.is_late() {
            return CallError::Timeout(timeout);
        }
        let cause = error.root_cause().to_string();
        // wasmtime does not export this error's type; a test fails if its text changes.
        if cause.contains("fuel allocated for hostcalls has been exhausted") {
            return if error.is::<wasmtime::WasmBacktrace>() {
                CallError::Transfer(self.max_transfer_bytes)
            } else {
                CallError::Result(self.sandbox.max_result_bytes)
            };
        }
        let trap = error.downcast_ref::<Trap>();
        if trap == Some(&Trap::StackOverflow) {
            return CallError::Stack;
        }
        let reason = state.log.failure_reason();
        let (memory, elements) = (
            self.sandbox.max_memory_bytes,
            self.sandbox.max_table_elements,
        );
        // A guest whose allocation fails traps without a word, or with one on stderr. A critical record
        // after that means that it went on, and failed for that reason.
        let also = match state.limiter.denied() {
            Some(denied) if !state.limiter.survived() => {
                return match denied {
                    Denied::Memory => CallError::Memory(memory, reason),
                    Denied::Table => CallError::Table(elements, reason),
                };
            }
            Some(Denied::Memory) => CallError::Memory(memory, None).to_string(),
            Some(Denied::Table) => CallError::Table(elements, None).to_string(),
            None => String::new(),
        };
        let what = match (trap, error.downcast_ref::<I32Exit>()) {
            // LLVM keeps large frames in the guest's own memory, below everything else in it.
            (Some(trap @ Trap::MemoryOutOfBounds), _) => {
                format!("{trap} (a guest that recurses too deep can end like this)")
            }
            (Some(trap), _) => trap.to_string(),
            (_, Some(I32Exit(status))) => format!("the guest called exit({status})"),
            _ => cause.lines().next().unwrap_or_default().to_owned(),
        };
        let mut text = match reason {
            Some(reason) => format!("{what}: {reason}"),
            None => what,
        };
        if !also.is_empty() {
            text.push_str("; before that, ");
            text.push_str(&also);
        }
        CallError::Trap(text)
    }
}

/// Waits until a call has to end because it was cancelled: at once, or after the grace of its observer.
async fn interrupted(cancel: &CancellationToken, observer: Option<&Arc<dyn AttemptObserver>>) {
    cancel.cancelled().await;
    let grace = observer.map_or(Duration::ZERO, |observer| observer.cancel_grace());
    if !grace.is_zero() {
        tokio::time::sleep(grace).await;
    }
}

impl AdmittedStore {
    /// Processor time of the latest call.
    pub fn cpu(&self) -> Duration {
        self.cpu_budget.spent()
    }

    /// Drops the store, and returns the permit that it ran in.
    pub fn into_permit(self) -> Permit {
        self.permit
    }
}
