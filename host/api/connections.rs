//! The places for connections: who has one, how long each has been idle, and who makes room when all
//! are taken. Neither accepts nor serves; `serve` does.

use crate::log_limit::LogLimit;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long a connection must have been idle before it is ended to make room: one between two calls
/// is not idle.
const LEAST_IDLE: Duration = Duration::from_secs(1);

/// How long a new connection waits for a place.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often it looks for one that has become idle meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How often the log says that the node is full.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The connections of one server.
pub struct Connections {
    max: usize,
    places: Arc<Semaphore>,
    open: Mutex<Open>,
    refusals: LogLimit,
}

#[derive(Default)]
struct Open {
    next: u64,
    activities: HashMap<u64, Arc<Activity>>,
}

/// The right to be connected; dropping it frees the place.
pub struct Place {
    number: u64,
    activity: Arc<Activity>,
    connections: Arc<Connections>,
    _permit: OwnedSemaphorePermit,
}

/// What goes on in one connection.
pub struct Activity {
    calls: Mutex<Calls>,
    leave: CancellationToken,
}

struct Calls {
    open: usize,
    idle_since: Instant,
}

/// An open call: its connection is not idle while this is held.
pub struct OpenCall(Arc<Activity>);

impl Connections {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            places: Arc::new(Semaphore::new(max)),
            open: Mutex::default(),
            refusals: LogLimit::new(1, LOG_INTERVAL),
        })
    }

    /// How many connections there may be.
    pub fn max(&self) -> usize {
        self.max
    }

    /// A place, if one is free now.
    pub fn try_place(self: &Arc<Self>) -> Option<Place> {
        let permit = self.places.clone().try_acquire_owned().ok()?;
        Some(self.enter(permit))
    }

    /// A place that becomes free soon, by itself or since the connection that has been idle longest is
    /// asked to leave. `None`, and a line in the log, when all have work.
    pub async fn make_room(self: &Arc<Self>, peer: SocketAddr) -> Option<Place> {
        let since = Instant::now();
        let mut asked = false;
        while since.elapsed() < PATIENCE {
            asked = asked || self.ask_longest_idle();
            let place = self.places.clone().acquire_owned();
            if let Ok(Ok(permit)) = timeout(LOOK_AGAIN, place).await {
                return Some(self.enter(permit));
            }
        }
        if let Some(left_out) = self.refusals.permit() {
            tracing::warn!(
                %peer,
                left_out,
                "refused a connection: all {} that this node accepts have open calls \
                 (limits.max_connections)",
                self.max
            );
        }
        None
    }

    fn enter(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Place {
        let activity = Arc::new(Activity {
            calls: Mutex::new(Calls {
                open: 0,
                idle_since: Instant::now(),
            }),
            leave: CancellationToken::new(),
        });
        let mut open = self.open();
        let number = open.next;
        open.next += 1;
        open.activities.insert(number, activity.clone());
        Place {
            number,
            activity,
            connections: self.clone(),
            _permit: permit,
        }
    }

    /// Whether one could be asked.
    fn ask_longest_idle(&self) -> bool {
        let open = self.open();
        let staying = open
            .activities
            .values()
            .filter(|one| !one.leave.is_cancelled());
        let idle = staying.filter_map(|one| Some((one.idle()?, one)));
        let longest = idle.max_by_key(|(idle, _)| *idle);
        match longest {
            Some((idle, one)) if idle >= LEAST_IDLE => {
                one.leave.cancel();
                true
            }
            _ => false,
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().activities.remove(&self.number);
    }
}

impl Activity {
    /// Counts a call until what is returned is dropped.
    pub fn begin(self: &Arc<Self>) -> OpenCall {
        self.calls().open += 1;
        OpenCall(self.clone())
    }

    /// Begins to count the idle time anew.
    pub fn touch(&self) {
        self.calls().idle_since = Instant::now();
    }

    /// Returns once there has been no call for `time`.
    pub async fn idle_for(&self, time: Duration) {
        loop {
            let idle = self.idle().unwrap_or_default();
            if idle >= time {
                return;
            }
            sleep(time - idle).await;
        }
    }

    /// Returns when the connection has to make room for another.
    pub async fn asked_to_leave(&self) {
        self.leave.cancelled().await;
    }

    /// How long there has been no call; `None` while there is one.
    fn idle(&self) -> Option<Duration> {
        let calls = self.calls();
        (calls.open == 0).then(|| calls.idle_since.elapsed())
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let mut calls = self.0.calls();
        calls.open -= 1;
        if calls.open == 0 {
            calls.idle_since = Instant::now();
        }
    }
}
