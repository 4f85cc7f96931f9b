//! A component's one long-lived instance: started, given one message after the other, stopped.
//! Knows nothing of mailboxes, of when to start again, or of who sent what.

use super::{
    bindings::{component, message_handler},
    gate::Kind,
    generation::Generation,
    guest::Guest,
    journal::Subject,
    program::{Errand, Tenant},
    stop::{MAX_ERROR_BYTES, Stop},
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

/// Runs on the thread that polls its methods: only for callers that are themselves on
/// `PluginHost::runtime`, because a guest holds its thread for up to 10 ms at a time.
pub struct Instance {
    generation: Arc<Generation>,
    tenant: Tenant,
    component: component::Guest,
    handler: message_handler::Guest,
}

/// A message for a component.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    pub id: &'a str,
    pub sender: &'a str,
    pub to: &'a Name,
    pub message_type: &'a str,
    pub payload: &'a [u8],
    pub in_reply_to: &'a str,
}

impl Instance {
    /// Makes an instance and calls its `start`, for at most `timeout`, the wait for room included.
    pub async fn start(generation: Arc<Generation>, timeout: Duration) -> Result<Self, Stop> {
        let program = &generation.program;
        let Some(indices) = &generation.component else {
            return Err(Stop::Trap("the plugin has no component".into()));
        };
        let never = CancellationToken::new();
        let asked_at = Instant::now();
        let mut tenant = program.admit(Kind::Component, timeout, &never).await?;
        let work = async |store: &mut Store<Guest>| {
            let instance = program.pre.instantiate_async(&mut *store).await?;
            let component = indices.life.load(&mut *store, &instance)?;
            let handler = indices.messages.load(&mut *store, &instance)?;
            let started = component.call_start(&mut *store).await?;
            Ok(started.map(|()| (component, handler)))
        };
        let errand = Errand {
            subject: Subject::Component,
            timeout,
            since: asked_at,
            cancel: &never,
        };
        let started = program.call(&mut tenant, errand, work).await?;
        let (component, handler) =
            started.map_err(|error| Stop::Trap(clip(error, MAX_ERROR_BYTES)))?;
        Ok(Self {
            generation,
            tenant,
            component,
            handler,
        })
    }

    pub fn generation(&self) -> &Arc<Generation> {
        &self.generation
    }

    /// The component's answer, or its error in place of one. After a `Stop` the instance is of no
    /// more use.
    pub async fn on_message(
        &mut self,
        message: Delivery<'_>,
        timeout: Duration,
        cancel: &CancellationToken,
    ) -> Result<Result<Option<Bytes>, String>, Stop> {
        let program = &self.generation.program;
        let given = message_handler::Message {
            id: message.id,
            sender: message.sender,
            to: message.to.as_str(),
            message_type: message.message_type,
            payload: message.payload,
            in_reply_to: message.in_reply_to,
        };
        let errand = Errand {
            subject: Subject::Topic(message.to.clone()),
            timeout,
            since: Instant::now(),
            cancel,
        };
        let handler = &self.handler;
        let work = async |store: &mut Store<Guest>| handler.call_on_message(store, given).await;
        let max_result_bytes = program.sandbox.max_result_bytes;
        match program.call(&mut self.tenant, errand, work).await? {
            Ok(Some(answer)) if answer.len() > max_result_bytes => {
                // The guest is whole: what it returned is merely not passed on.
                Ok(Err(Stop::Result(max_result_bytes).to_string()))
            }
            Ok(answer) => Ok(Ok(answer.map(Bytes::from))),
            Err(error) => Ok(Err(clip(error, MAX_ERROR_BYTES))),
        }
    }

    /// Calls `stop`, whatever comes of it the instance is gone afterwards.
    pub async fn stop(mut self, timeout: Duration) -> Result<(), String> {
        let errand = Errand {
            subject: Subject::Component,
            timeout,
            since: Instant::now(),
            cancel: &CancellationToken::new(),
        };
        let component = &self.component;
        let work = async |store: &mut Store<Guest>| component.call_stop(store).await;
        let program = &self.generation.program;
        match program.call(&mut self.tenant, errand, work).await {
            Ok(stopped) => stopped.map_err(|error| clip(error, MAX_ERROR_BYTES)),
            Err(stop) => Err(stop.to_string()),
        }
    }
}
