//! The loop of a component's actor: one message after the other, a new instance after a failure, new
//! code between two messages. Everything happens in this one loop, so nothing overlaps.

use super::{
    actor_state::ActorState,
    guarded::{guarded, retire},
    refusal_log::ErrorLog,
    restart_policy::{RestartPolicy, UpgradePolicy},
    router::OwnedId,
    start_error::{FailedStart, StartError},
    status::State,
};
use crate::{
    broker::{Attachment, Inbox, Message, Received, Subscription, Topic},
    plugin::{Delivery, Generation, Instance, Permit},
    task::Name,
    untrusted::Untrusted,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// How often new code looks for memory that other components hold. It does not wait in line for it:
/// a smaller component behind it could start meanwhile.
const ROOM_RETRY: Duration = Duration::from_secs(1);

/// A later try to start the wanted code, while older code runs.
#[derive(Clone, Copy)]
struct Upgrade {
    at: Instant,
    policy: UpgradePolicy,
}

pub struct ActorLoop {
    state: Arc<ActorState>,
    inbox: Inbox,
    mailbox: Subscription,
    owned_id: OwnedId,
    wanted: watch::Receiver<Arc<Generation>>,
    topics: BTreeMap<Name, Attachment>,
    instance: Option<Instance>,
    /// The code that started last.
    last_good: Option<Arc<Generation>>,
    restart_policy: RestartPolicy,
    errors: ErrorLog,
    /// When to start an instance, if there is none.
    start_at: Option<Instant>,
    upgrade: Option<Upgrade>,
    /// What the last instance ran in, for the next one. A component that waits for memory gets it once
    /// this one is down.
    kept: Option<Permit>,
    slot: Option<OwnedSemaphorePermit>,
    /// Set once only the messages in the mailbox are still handled.
    ending: bool,
    stop: CancellationToken,
    interrupt: CancellationToken,
}

impl ActorLoop {
    pub fn new(
        state: Arc<ActorState>,
        inbox: Inbox,
        mailbox: Subscription,
        owned_id: OwnedId,
        wanted: watch::Receiver<Arc<Generation>>,
    ) -> Self {
        Self {
            state,
            inbox,
            mailbox,
            owned_id,
            wanted,
            topics: BTreeMap::new(),
            instance: None,
            last_good: None,
            restart_policy: RestartPolicy::default(),
            errors: ErrorLog::default(),
            start_at: None,
            upgrade: None,
            kept: None,
            slot: None,
            ending: false,
            stop: CancellationToken::new(),
            interrupt: CancellationToken::new(),
        }
    }

    /// Runs until `stop`. Signals `ready` when the first start has succeeded or failed.
    pub async fn run(
        mut self,
        stop: CancellationToken,
        interrupt: CancellationToken,
        ready: Option<oneshot::Sender<()>>,
    ) {
        (self.stop, self.interrupt) = (stop.clone(), interrupt);
        self.run_wanted().await;
        // The receiver may be gone.
        let _ = ready.map(|ready| ready.send(()));
        loop {
            let takes_messages = self.instance.is_some() || self.restart_policy.is_down();
            let timer = self.start_at.or(self.upgrade.map(|upgrade| upgrade.at));
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Ok(()) = self.wanted.changed() => {
                    self.restart_policy.reset();
                    self.upgrade = None;
                    self.run_wanted().await;
                }
                () = sleep_until(timer), if timer.is_some() => {
                    if self.start_at.is_some() {
                        self.restart().await;
                    } else {
                        self.run_wanted().await;
                    }
                }
                received = self.mailbox.next(), if takes_messages => match received {
                    Some(Received::Message(message)) => self.handle(message).await,
                    Some(Received::CutOff) | None => break,
                },
            }
        }
        self.end().await;
    }

    /// Starts the wanted code, and stops the code that runs once that has succeeded. If the two never
    /// fit into memory together, stops the old code first.
    async fn run_wanted(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        let Some(old) = self.instance.as_ref().map(|old| old.generation().clone()) else {
            let permit = self.kept.take();
            return self.start_or_fall_back(wanted, permit).await;
        };
        if Arc::ptr_eq(&old, &wanted) {
            self.upgrade = None;
            return;
        }
        if let Some(permit) = wanted.try_reserve() {
            return self.replace(&old, wanted, permit).await;
        }
        if wanted.fits_beside(&old) {
            let why = "other components hold the memory that there is for components \
                       (plugins.max_component_memory_bytes)";
            let policy = self.upgrade_policy();
            return self.put_off(&old, &wanted, why, ROOM_RETRY, policy);
        }
        tracing::info!(
            component = %self.state.id,
            "stops version {} for version {}: there is no memory for both \
             (plugins.max_component_memory_bytes)",
            old.version,
            wanted.version
        );
        let permit = match self.instance.take() {
            Some(old) => retire(&self.state, old).await,
            None => None,
        };
        self.start_or_fall_back(wanted, permit).await;
    }

    /// Starts `wanted` in `permit` while `old` is still there, then stops that.
    async fn replace(&mut self, old: &Generation, wanted: Arc<Generation>, permit: Permit) {
        match self.instantiate(&wanted, Some(permit)).await {
            Ok(new) => {
                let old = self.instance.take();
                self.serve_with(new, &wanted).await;
                if let Some(old) = old {
                    retire(&self.state, old).await;
                }
            }
            Err(_) if self.stop.is_cancelled() => {}
            Err(failed) => self.upgrade_failed(old, &wanted, &failed.error),
        }
    }

    /// Leaves the component to `old`, and tries `wanted` again later. This is no failure of `old`.
    fn upgrade_failed(&mut self, old: &Generation, wanted: &Generation, error: &StartError) {
        let mut policy = self.upgrade_policy();
        let delay = policy.start_failed();
        self.put_off(old, wanted, &error.to_string(), delay, policy);
    }

    /// The failures of the wanted code so far.
    fn upgrade_policy(&self) -> UpgradePolicy {
        self.upgrade
            .map_or_else(UpgradePolicy::default, |upgrade| upgrade.policy)
    }

    /// Leaves the component to `old`, says why, and tries `wanted` again after `delay`.
    fn put_off(
        &mut self,
        old: &Generation,
        wanted: &Generation,
        why: &str,
        delay: Duration,
        policy: UpgradePolicy,
    ) {
        let at = Instant::now() + delay;
        self.upgrade = Some(Upgrade { at, policy });
        let error = format!("version {} cannot start: {why}", wanted.version);
        if self.state.status().error.as_ref() != Some(&error) || delay > ROOM_RETRY {
            let printable = Untrusted::new(&*error);
            tracing::warn!(
                component = %self.state.id,
                "{printable}; version {} goes on, retrying in {delay:?}",
                old.version
            );
        }
        self.state.change(|status| status.error = Some(error));
    }

    /// Starts the wanted code if no instance runs, or the code that ran before if that fails, in the
    /// same permit.
    async fn start_or_fall_back(&mut self, wanted: Arc<Generation>, permit: Option<Permit>) {
        let is_other = |good: &Arc<Generation>| !Arc::ptr_eq(good, &wanted);
        let Some(last_good) = self.last_good.clone().filter(is_other) else {
            return self.start(wanted, permit).await;
        };
        match self.try_start(&wanted, permit).await {
            Ok(()) => {}
            Err(_) if self.stop.is_cancelled() => {}
            Err(FailedStart { error, permit }) => {
                self.upgrade_failed(&last_good, &wanted, &error);
                self.start(last_good, permit).await;
            }
        }
    }

    /// Starts an instance if none runs: of the wanted code, or of the last good code while the wanted
    /// one cannot start.
    async fn restart(&mut self) {
        let last_good = self.last_good.clone().filter(|_| self.upgrade.is_some());
        let wanted = self.wanted.borrow_and_update().clone();
        let permit = self.kept.take();
        self.start(last_good.unwrap_or(wanted), permit).await;
    }

    /// Keeps the permit of an instance that is gone, unless the component is down.
    fn keep(&mut self, permit: Option<Permit>) {
        self.kept = permit.filter(|_| !self.restart_policy.is_down());
    }

    /// Starts an instance of `generation`, or schedules the next start if that fails.
    async fn start(&mut self, generation: Arc<Generation>, permit: Option<Permit>) {
        match self.try_start(&generation, permit).await {
            Ok(()) => {}
            Err(_) if self.stop.is_cancelled() => {}
            Err(FailedStart { error, permit }) => {
                let delay = self.restart_policy.start_failed(fastrand::f64());
                self.keep(permit);
                self.restart_after(delay, format!("cannot start: {error}"));
            }
        }
    }

    /// Starts an instance of `generation`, in `permit` if that is large enough.
    async fn try_start(
        &mut self,
        generation: &Arc<Generation>,
        permit: Option<Permit>,
    ) -> Result<(), FailedStart> {
        self.start_at = None;
        self.state.change(|status| {
            status.state = State::Starting;
            status.version = generation.version.clone();
            status.sha256 = generation.sha256.clone();
        });
        let instance = self.instantiate(generation, permit).await?;
        self.serve_with(instance, generation).await;
        Ok(())
    }

    async fn instantiate(
        &mut self,
        generation: &Arc<Generation>,
        permit: Option<Permit>,
    ) -> Result<Instance, FailedStart> {
        if self.slot.is_none() {
            self.slot = self.state.context.slots.clone().try_acquire_owned().ok();
        }
        if self.slot.is_none() {
            self.restart_policy.give_up();
            let error = StartError::NoSlot;
            return Err(FailedStart { error, permit });
        }
        let timeout = self.state.limits.start_timeout;
        let starting = Instance::start(generation.clone(), permit, timeout);
        // While the node stops, a new instance may still be needed for the messages that wait.
        let end = if self.ending {
            &self.interrupt
        } else {
            &self.stop
        };
        match end.run_until_cancelled(guarded(starting)).await {
            Some(started) => Ok(started?),
            None => Err(FailedStart {
                error: StartError::Stopping,
                permit: None,
            }),
        }
    }

    /// Handles messages with `instance` from now on.
    async fn serve_with(&mut self, instance: Instance, generation: &Arc<Generation>) {
        self.instance = Some(instance);
        self.last_good = Some(generation.clone());
        if Arc::ptr_eq(generation, &self.wanted.borrow()) {
            self.upgrade = None;
        }
        let listening = self.listen_to(&generation.topics).await;
        self.owned_id.set_down(None);
        let upgrade_pending = self.upgrade.is_some();
        self.state.change(|status| {
            status.state = State::Running;
            status.version = generation.version.clone();
            status.sha256 = generation.sha256.clone();
            status.topics = generation.topics.clone();
            // The reason why newer code has to wait stays visible.
            let pending = status.error.take().filter(|_| upgrade_pending);
            status.error = listening.err().or(pending);
            status.starts += 1;
        });
        let version = &generation.version;
        tracing::info!(component = %self.state.id, version, "runs");
    }

    /// Subscribes to the topics that are new and leaves those that are no longer named.
    async fn listen_to(&mut self, topics: &[Name]) -> Result<(), String> {
        self.topics.retain(|name, _| topics.contains(name));
        for name in topics {
            if self.topics.contains_key(name) {
                continue;
            }
            let topic = Topic::Shared(name.clone());
            let broker = self.state.context.router.broker();
            let attached = broker.attach(&topic, self.inbox.clone()).await;
            let attached = attached.map_err(|error| format!("cannot listen to {name}: {error}"))?;
            self.topics.insert(name.clone(), attached);
        }
        Ok(())
    }

    async fn handle(&mut self, message: Message) {
        if !message.error.is_empty() {
            // `on-message` has no place for an error; a guest that needs to know makes a request.
            let (from, error) = (&message.from, &message.error);
            let (from, error) = (Untrusted::new(&**from), Untrusted::new(&**error));
            tracing::warn!(component = %self.state.id, "{from} answered with an error: {error}");
            return;
        }
        let router = self.state.context.router.clone();
        let Some(instance) = &mut self.instance else {
            let why = self.state.status().error.unwrap_or_default();
            let down = format!("{} is down: {why}", self.state.id);
            return router.answer(&self.state.id, &message, Err(down)).await;
        };
        let delivery = Delivery {
            id: &message.id,
            sender: &message.from,
            to: &message.to,
            message_type: &message.message_type,
            payload: &message.payload,
            in_reply_to: &message.in_reply_to,
        };
        let timeout = self.state.limits.message_timeout;
        let handling = instance.on_message(delivery, timeout, &self.interrupt);
        match guarded(handling).await {
            Ok(answer) => {
                self.restart_policy.reset();
                self.state.counters().handled += 1;
                if let Err(error) = &answer {
                    self.errors.report(&self.state.id, &message, error);
                }
                router.answer(&self.state.id, &message, answer).await;
            }
            Err(failure) => {
                let permit = self.instance.take().map(Instance::into_permit);
                let error = format!("failed while it handled a message: {failure}");
                self.state.counters().failed += 1;
                let answer = Err(format!("{} {error}", self.state.id));
                router.answer(&self.state.id, &message, answer).await;
                if self.interrupt.is_cancelled() {
                    return;
                }
                let delay = self.restart_policy.message_failed(fastrand::f64());
                self.keep(permit);
                self.restart_after(delay, error);
                if delay.is_zero() {
                    self.restart().await;
                }
            }
        }
    }

    /// Schedules the next start. No instance runs until then.
    fn restart_after(&mut self, delay: Duration, error: String) {
        self.start_at = Some(Instant::now() + delay);
        let down = self.restart_policy.is_down();
        let id = &self.state.id;
        let printable = Untrusted::new(&*error);
        if delay.is_zero() {
            tracing::warn!(component = %id, "{printable}");
        } else {
            tracing::warn!(component = %id, down, "{printable}; restarting in {delay:?}");
        }
        self.owned_id.set_down(down.then(|| error.clone()));
        self.state.change(|status| {
            status.state = if down { State::Down } else { State::Restarting };
            status.error = Some(error);
        });
    }

    /// Handles the messages in the mailbox until it is interrupted; refuses the rest.
    async fn end(mut self) {
        self.state.change(|status| status.state = State::Stopping);
        self.ending = true;
        self.topics.clear();
        self.mailbox.close();
        while let Some(Received::Message(message)) = self.mailbox.next().await {
            if self.instance.is_some() && !self.interrupt.is_cancelled() {
                self.handle(message).await;
                continue;
            }
            let router = &self.state.context.router;
            let stopping = Err(format!("{} is stopping", self.state.id));
            router.answer(&self.state.id, &message, stopping).await;
        }
        if let Some(instance) = self.instance.take() {
            retire(&self.state, instance).await;
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
