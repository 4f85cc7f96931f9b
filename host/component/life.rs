//! The life of a plugin's component: one message after the other, a new instance where one failed,
//! new code between two messages. Everything happens in one loop, so nothing overlaps.

use super::{
    failures::{Failures, NoInstance},
    refusal_log::ErrorLog,
    router::Residence,
    status::{State, Status},
    supervised::Surroundings,
};
use crate::{
    broker::{Attachment, Inbox, Message, Received, Subscription, Topic},
    config,
    plugin::{Delivery, Generation, Instance, Stop},
    task::Name,
    untrusted::Untrusted,
};
use futures_util::FutureExt;
use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// When new code that would not start is tried again, while the old runs; each time twice as long.
const UPGRADE_AGAIN: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));

/// What a component's life and those who look at it have in common.
pub struct Shared {
    pub id: Name,
    pub limits: config::Component,
    pub surroundings: Surroundings,
    status: Mutex<Status>,
    inbox: Mutex<Option<Inbox>>,
}

impl Shared {
    pub fn new(status: Status, limits: config::Component, surroundings: Surroundings) -> Self {
        Self {
            id: status.id.clone(),
            limits,
            surroundings,
            status: Mutex::new(status),
            inbox: Mutex::default(),
        }
    }

    pub fn open(&self, inbox: Inbox) {
        *self.inbox.lock().unwrap_or_else(PoisonError::into_inner) = Some(inbox);
    }

    /// It cannot run at all.
    pub fn refuse(&self, why: String) {
        self.change(|status| {
            status.state = State::Down;
            status.error = Some(why);
        });
    }

    pub fn status(&self) -> Status {
        let mut status = self.lock().clone();
        let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inbox) = &*inbox {
            status.refused = inbox.refused();
            status.waiting = inbox.waiting();
        }
        status
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is seen, and tells everybody if that is another state or error.
    fn change(&self, change: impl FnOnce(&mut Status)) {
        let mut status = self.lock();
        let before = (status.state, status.error.clone(), status.version.clone());
        change(&mut status);
        if before.0 == State::Stopping {
            // Whatever happens to its last messages.
            status.state = State::Stopping;
        }
        let is_new = before.0 != status.state;
        if is_new {
            status.since = SystemTime::now();
        }
        let news = is_new || before.1 != status.error || before.2 != status.version;
        drop(status);
        if news {
            self.surroundings.changed.send_modify(|count| *count += 1);
        }
    }
}

pub struct Life {
    shared: Arc<Shared>,
    inbox: Inbox,
    mailbox: Subscription,
    residence: Residence,
    wanted: watch::Receiver<Arc<Generation>>,
    topics: BTreeMap<Name, Attachment>,
    instance: Option<Instance>,
    /// The code that started last.
    sound: Option<Arc<Generation>>,
    failures: Failures,
    errors: ErrorLog,
    /// When to start an instance, where there is none.
    start_at: Option<Instant>,
    /// When to try new code again that would not start, and how long that was put off.
    upgrade_at: Option<(Instant, Duration)>,
    place: Option<OwnedSemaphorePermit>,
    /// Only what waits is still handled.
    ending: bool,
    stop: CancellationToken,
    interrupt: CancellationToken,
}

impl Life {
    pub fn new(
        shared: Arc<Shared>,
        inbox: Inbox,
        mailbox: Subscription,
        residence: Residence,
        wanted: watch::Receiver<Arc<Generation>>,
    ) -> Self {
        Self {
            shared,
            inbox,
            mailbox,
            residence,
            wanted,
            topics: BTreeMap::new(),
            instance: None,
            sound: None,
            failures: Failures::default(),
            errors: ErrorLog::default(),
            start_at: None,
            upgrade_at: None,
            place: None,
            ending: false,
            stop: CancellationToken::new(),
            interrupt: CancellationToken::new(),
        }
    }

    /// Until `stop`. Says through `ready` when the first start is over, well or not.
    pub async fn live(
        mut self,
        stop: CancellationToken,
        interrupt: CancellationToken,
        ready: Option<oneshot::Sender<()>>,
    ) {
        (self.stop, self.interrupt) = (stop.clone(), interrupt);
        self.upgrade().await;
        // Whoever waits for it may have gone.
        let _ = ready.map(|ready| ready.send(()));
        loop {
            let takes_messages = self.instance.is_some() || self.failures.is_down();
            let timer = self.start_at.or(self.upgrade_at.map(|(at, _)| at));
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Ok(()) = self.wanted.changed() => {
                    self.failures.forget();
                    self.upgrade_at = None;
                    self.upgrade().await;
                }
                () = sleep_until(timer), if timer.is_some() => match self.start_at {
                    Some(_) => self.start_again().await,
                    None => self.upgrade().await,
                },
                received = self.mailbox.next(), if takes_messages => match received {
                    Some(Received::Message(message)) => self.handle(message).await,
                    Some(Received::CutOff) | None => break,
                },
            }
        }
        self.end().await;
    }

    /// Starts the wanted code, and only then lets go of what runs; first, where both have no room.
    async fn upgrade(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        let Some(old) = self.instance.as_ref().map(|old| old.generation().clone()) else {
            return self.start_or_fall_back(wanted).await;
        };
        if Arc::ptr_eq(&old, &wanted) {
            self.upgrade_at = None;
            return;
        }
        match self.instantiate(&wanted).await {
            Ok(new) => {
                self.upgrade_at = None;
                let old = self.instance.take();
                self.settle_in(new, &wanted).await;
                if let Some(old) = old {
                    retire(&self.shared, old).await;
                }
            }
            Err(_) if self.stop.is_cancelled() => {}
            Err(NoInstance::Room(why)) => {
                tracing::info!(component = %self.shared.id, "stops for its new version: {why}");
                if let Some(old) = self.instance.take() {
                    retire(&self.shared, old).await;
                }
                self.start_or_fall_back(wanted).await;
            }
            Err(error) => {
                let wait = self
                    .upgrade_at
                    .map_or(UPGRADE_AGAIN.0, |(_, last)| last * 2);
                let wait = wait.min(UPGRADE_AGAIN.1);
                self.upgrade_at = Some((Instant::now() + wait, wait));
                let old = &old.version;
                let id = &self.shared.id;
                let error = format!("version {} cannot start: {error}", wanted.version);
                let told = Untrusted::new(&*error);
                tracing::warn!(component = %id, "{told}; version {old} goes on, and it is tried again in {wait:?}");
                self.shared.change(|status| status.error = Some(error));
            }
        }
    }

    /// Where there is no instance: the wanted code, or the code that ran before if that does not start.
    async fn start_or_fall_back(&mut self, wanted: Arc<Generation>) {
        let others = |sound: &Arc<Generation>| !Arc::ptr_eq(sound, &wanted);
        let sound = self.sound.clone().filter(others);
        self.start(wanted).await;
        if self.instance.is_none()
            && !self.stop.is_cancelled()
            && let Some(sound) = sound
        {
            self.upgrade_at = Some((Instant::now() + UPGRADE_AGAIN.0, UPGRADE_AGAIN.0));
            self.start(sound).await;
        }
    }

    /// Where there is no instance: the wanted code, or what ran well while that would not start.
    async fn start_again(&mut self) {
        let sound = self.sound.clone().filter(|_| self.upgrade_at.is_some());
        let wanted = self.wanted.borrow_and_update().clone();
        self.start(sound.unwrap_or(wanted)).await;
    }

    async fn start(&mut self, generation: Arc<Generation>) {
        self.start_at = None;
        self.shared.change(|status| {
            status.state = State::Starting;
            status.version = generation.version.clone();
            status.sha256 = generation.sha256.clone();
        });
        match self.instantiate(&generation).await {
            Ok(instance) => self.settle_in(instance, &generation).await,
            Err(_) if self.stop.is_cancelled() => {}
            Err(error) => {
                let wait = self.failures.in_start(fastrand::f64());
                self.wait(wait, format!("cannot start: {error}"));
            }
        }
    }

    async fn instantiate(&mut self, generation: &Arc<Generation>) -> Result<Instance, NoInstance> {
        let surroundings = &self.shared.surroundings;
        if self.place.is_none() {
            self.place = surroundings.places.clone().try_acquire_owned().ok();
        }
        if self.place.is_none() {
            self.failures.give_up();
            return Err(NoInstance::Other(
                "this node runs as many components as it may (plugins.max_components)".into(),
            ));
        }
        let starting = Instance::start(generation.clone(), self.shared.limits.start_timeout);
        // What still waits when the node stops is handled by a new instance if it has to be.
        let end = if self.ending {
            &self.interrupt
        } else {
            &self.stop
        };
        let started = end.run_until_cancelled(guarded(starting)).await;
        match started {
            Some(Ok(instance)) => Ok(instance),
            Some(Err(stop @ Stop::NoRoom(_))) => Err(NoInstance::Room(stop.to_string())),
            Some(Err(stop)) => Err(NoInstance::Other(stop.to_string())),
            None => Err(NoInstance::Other("the node is stopping".into())),
        }
    }

    /// The instance serves from now on.
    async fn settle_in(&mut self, instance: Instance, generation: &Arc<Generation>) {
        self.instance = Some(instance);
        self.sound = Some(generation.clone());
        let listening = self.listen_to(&generation.topics).await;
        self.residence.set_down(None);
        let upgrade_pending = self.upgrade_at.is_some();
        self.shared.change(|status| {
            status.state = State::Running;
            status.version = generation.version.clone();
            status.sha256 = generation.sha256.clone();
            status.topics = generation.topics.clone();
            // While new code waits for another try, why it has to is still news.
            let pending = status.error.take().filter(|_| upgrade_pending);
            status.error = listening.err().or(pending);
            status.starts += 1;
        });
        let version = &generation.version;
        tracing::info!(component = %self.shared.id, version, "runs");
    }

    /// Joins the topics that are new and leaves those that are no longer named.
    async fn listen_to(&mut self, topics: &[Name]) -> Result<(), String> {
        self.topics.retain(|name, _| topics.contains(name));
        for name in topics {
            if self.topics.contains_key(name) {
                continue;
            }
            let topic = Topic::Shared(name.clone());
            let broker = self.shared.surroundings.router.broker();
            let attached = broker.attach(&topic, self.inbox.clone()).await;
            let attached = attached.map_err(|error| format!("cannot listen to {name}: {error}"))?;
            self.topics.insert(name.clone(), attached);
        }
        Ok(())
    }

    async fn handle(&mut self, message: Message) {
        if !message.error.is_empty() {
            // The contract has no room for it: a guest that has to know makes a request.
            let (from, error) = (&message.from, &message.error);
            let (from, error) = (Untrusted::new(&**from), Untrusted::new(&**error));
            tracing::warn!(component = %self.shared.id, "{from} answered with an error: {error}");
            return;
        }
        let router = self.shared.surroundings.router.clone();
        let Some(instance) = &mut self.instance else {
            let why = self.shared.status().error.unwrap_or_default();
            let down = format!("{} is down: {why}", self.shared.id);
            return router.answer(&self.shared.id, &message, Err(down)).await;
        };
        let delivery = Delivery {
            id: &message.id,
            sender: &message.from,
            to: &message.to,
            message_type: &message.message_type,
            payload: &message.payload,
            in_reply_to: &message.in_reply_to,
        };
        let timeout = self.shared.limits.message_timeout;
        let handled = instance.on_message(delivery, timeout, &self.interrupt);
        let handled = guarded(handled).await;
        match handled {
            Ok(said) => {
                self.failures.forget();
                self.shared.lock().handled += 1;
                if let Err(error) = &said {
                    self.errors.report(&self.shared.id, &message, error);
                }
                router.answer(&self.shared.id, &message, said).await;
            }
            Err(stop) => {
                self.instance = None;
                let error = format!("failed while it handled a message: {stop}");
                self.shared.lock().failed += 1;
                let answer = Err(format!("{} {error}", self.shared.id));
                router.answer(&self.shared.id, &message, answer).await;
                if self.interrupt.is_cancelled() {
                    return;
                }
                let wait = self.failures.in_message(fastrand::f64());
                self.wait(wait, error);
                if wait.is_zero() {
                    self.start_again().await;
                }
            }
        }
    }

    /// Nothing runs until `wait` is over.
    fn wait(&mut self, wait: Duration, error: String) {
        self.start_at = Some(Instant::now() + wait);
        let down = self.failures.is_down();
        let id = &self.shared.id;
        let told = Untrusted::new(&*error);
        match wait.is_zero() {
            true => tracing::warn!(component = %id, "{told}"),
            false => {
                tracing::warn!(component = %id, down, "{told}; it is started again in {wait:?}")
            }
        }
        self.residence.set_down(down.then(|| error.clone()));
        self.shared.change(|status| {
            status.state = if down { State::Down } else { State::Restarting };
            status.error = Some(error);
        });
    }

    /// Handles what waits, until interrupted; then refuses what is left.
    async fn end(mut self) {
        self.shared.change(|status| status.state = State::Stopping);
        self.ending = true;
        self.topics.clear();
        self.mailbox.close();
        while let Some(Received::Message(message)) = self.mailbox.next().await {
            if self.instance.is_some() && !self.interrupt.is_cancelled() {
                self.handle(message).await;
                continue;
            }
            let router = &self.shared.surroundings.router;
            let stopping = Err(format!("{} is stopping", self.shared.id));
            router.answer(&self.shared.id, &message, stopping).await;
        }
        if let Some(instance) = self.instance.take() {
            retire(&self.shared, instance).await;
        }
    }
}

async fn retire(shared: &Shared, instance: Instance) {
    let version = instance.generation().version.clone();
    let stopping = instance.stop(shared.limits.stop_timeout);
    let stopping = guarded(async { stopping.await.map_err(Stop::Trap) });
    if let Err(error) = stopping.await {
        let error = Untrusted::new(error.to_string());
        tracing::warn!(component = %shared.id, version, "did not stop well: {error}");
    }
}

/// A fault of the node's own in a call of a guest ends that instance and not its component's life.
async fn guarded<T>(call: impl Future<Output = Result<T, Stop>>) -> Result<T, Stop> {
    match AssertUnwindSafe(call).catch_unwind().await {
        Ok(ended) => ended,
        Err(_) => Err(Stop::Trap(
            "the node failed while it ran the component".into(),
        )),
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
