//! The one long-lived instance of a plugin's component: started, given one message after the other,
//! stopped. Knows nothing of mailboxes and restarts.

use super::{
    generation::Generation,
    sandbox::{
        admission::{GuestKind, Permit},
        bindings::{component, message_handler},
        call_error::{CallError, MAX_ERROR_BYTES},
        guest_log::Subject,
        linked_plugin::{AdmittedStore, CallContext},
        store_state::StoreState,
    },
};
use bytes::Bytes;
use hostel_runtime::untrusted::clip;
use hostel_task::Name;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use wasmtime::Store;

/// An instance of a component. Runs on the thread that polls its methods: only for callers on
/// `PluginHost::runtime`, because a guest holds its thread for up to 10 ms at a time.
pub struct Instance {
    generation: Arc<Generation>,
    admitted: AdmittedStore,
    component: component::Guest,
    handler: message_handler::Guest,
}

/// A message for a component.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    /// The message's id.
    pub id: &'a str,
    /// The id of the sender; empty if there is none.
    pub sender: &'a str,
    /// The id or topic that it was sent to.
    pub to: &'a Name,
    /// The type that the sender gave it.
    pub message_type: &'a str,
    /// The payload.
    pub payload: &'a [u8],
    /// The id of the message that it answers; empty if it answers none.
    pub in_reply_to: &'a str,
}

/// A start that failed.
pub struct FailedStart {
    /// Why it failed.
    pub error: CallError,
    /// The permit that it ran in, so that other code can start in it; `None` if it had none.
    pub permit: Option<Permit>,
}

impl From<CallError> for FailedStart {
    /// Makes the failure of a start that had no permit.
    fn from(error: CallError) -> Self {
        let permit = None;
        Self { error, permit }
    }
}

impl Instance {
    /// Makes an instance and calls its `start`, for at most `timeout`. Without a `permit` that is
    /// large enough it waits for one, and the wait is part of that time.
    pub async fn start(
        generation: Arc<Generation>,
        permit: Option<Permit>,
        timeout: Duration,
    ) -> Result<Self, FailedStart> {
        let plugin = &generation.plugin;
        let Some(indices) = &generation.component else {
            let error = CallError::Trap("the plugin has no component".into());
            return Err(FailedStart { error, permit });
        };
        let never = CancellationToken::new();
        let since = Instant::now();
        let mut admitted = plugin
            .admit(GuestKind::Component, permit, timeout, &never)
            .await?;
        let work = async |store: &mut Store<StoreState>| {
            let instance = plugin.pre.instantiate_async(&mut *store).await?;
            let component = indices.component.load(&mut *store, &instance)?;
            let handler = indices.message_handler.load(&mut *store, &instance)?;
            let started = component.call_start(&mut *store).await?;
            Ok(started.map(|()| (component, handler)))
        };
        let context = CallContext {
            subject: Subject::Component,
            timeout,
            since,
            cancel: &never,
            observer: None,
        };
        let started = match plugin.call(&mut admitted, context, work).await {
            Ok(started) => started.map_err(|error| CallError::Trap(clip(error, MAX_ERROR_BYTES))),
            Err(error) => Err(error),
        };
        match started {
            Ok((component, handler)) => Ok(Self {
                generation,
                admitted,
                component,
                handler,
            }),
            Err(error) => Err(FailedStart {
                error,
                permit: Some(admitted.into_permit()),
            }),
        }
    }

    /// The generation that the instance was made of.
    pub fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    /// Handles a message. Returns the component's answer, or its error in place of one. After a
    /// `CallError` the instance must not be used again.
    pub async fn on_message(
        &mut self,
        message: Delivery<'_>,
        timeout: Duration,
        cancel: &CancellationToken,
    ) -> Result<Result<Option<Bytes>, String>, CallError> {
        let plugin = &self.generation.plugin;
        let argument = message_handler::Message {
            id: message.id,
            sender: message.sender,
            to: message.to.as_str(),
            message_type: message.message_type,
            payload: message.payload,
            in_reply_to: message.in_reply_to,
        };
        let context = CallContext {
            subject: Subject::Topic(message.to.clone()),
            timeout,
            since: Instant::now(),
            cancel,
            observer: None,
        };
        let handler = &self.handler;
        let work =
            async |store: &mut Store<StoreState>| handler.call_on_message(store, argument).await;
        let max_result_bytes = plugin.sandbox.max_result_bytes;
        match plugin.call(&mut self.admitted, context, work).await? {
            Ok(Some(answer)) if answer.len() > max_result_bytes => {
                // The instance is intact; only its answer is not passed on.
                Ok(Err(CallError::Result(max_result_bytes).to_string()))
            }
            Ok(answer) => Ok(Ok(answer.map(Bytes::from))),
            Err(error) => Ok(Err(clip(error, MAX_ERROR_BYTES))),
        }
    }

    /// Calls `stop` and drops the instance. Returns the permit that it ran in, besides what `stop`
    /// returned.
    pub async fn stop(mut self, timeout: Duration) -> (Result<(), String>, Permit) {
        let context = CallContext {
            subject: Subject::Component,
            timeout,
            since: Instant::now(),
            cancel: &CancellationToken::new(),
            observer: None,
        };
        let component = &self.component;
        let work = async |store: &mut Store<StoreState>| component.call_stop(store).await;
        let plugin = &self.generation.plugin;
        let stopped = match plugin.call(&mut self.admitted, context, work).await {
            Ok(stopped) => stopped.map_err(|error| clip(error, MAX_ERROR_BYTES)),
            Err(error) => Err(error.to_string()),
        };
        (stopped, self.into_permit())
    }

    /// Drops the instance, and returns the permit that it ran in.
    pub fn into_permit(self) -> Permit {
        self.admitted.into_permit()
    }
}
