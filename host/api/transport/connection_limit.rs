//! Limits the number of connections. When all permits are taken, the connection that has been idle
//! longest makes room for a new one. Calls that need no token do not keep a connection from being idle, since
//! clients without a token could hold all permits with them.

use crate::log_limit::LogLimit;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long a connection must have been idle before it is closed to make room: a connection between two
/// calls is not idle.
const MIN_IDLE: Duration = Duration::from_secs(1);

/// How long a new connection waits for a permit.
const MAX_WAIT: Duration = Duration::from_secs(3);

/// How often a waiting connection checks whether another has become idle.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// The least time between two log lines about refused connections.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The limit of one server.
pub struct ConnectionLimit {
    max: usize,
    permits: Arc<Semaphore>,
    open: Mutex<OpenConnections>,
    refusals: LogLimit,
}

#[derive(Default)]
struct OpenConnections {
    next: u64,
    activities: HashMap<u64, Arc<Activity>>,
}

/// The permit of one connection. Dropping it lets another connect.
pub struct ConnectionPermit {
    number: u64,
    activity: Arc<Activity>,
    limit: Arc<ConnectionLimit>,
    _permit: OwnedSemaphorePermit,
}

/// The calls of one connection, and whether it has to close.
pub struct Activity {
    calls: Mutex<Calls>,
    close: CancellationToken,
}

struct Calls {
    /// All open calls, and since when there are none.
    open: usize,
    idle_since: Instant,
    /// The open calls that were admitted, and since when there are none.
    admitted: usize,
    unused_since: Instant,
}

/// An open call. Its connection is not idle until this is dropped.
pub struct OpenCall {
    activity: Arc<Activity>,
    is_admitted: AtomicBool,
}

impl ConnectionLimit {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            permits: Arc::new(Semaphore::new(max)),
            open: Mutex::default(),
            refusals: LogLimit::new(1, LOG_INTERVAL),
        })
    }

    /// The largest number of connections.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Returns a permit if one is free now.
    pub fn try_permit(self: &Arc<Self>) -> Option<ConnectionPermit> {
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        Some(self.enter(permit))
    }

    /// Waits a while for a permit, and has the connection that has been idle longest close. Returns `None`,
    /// and logs it, if all connections have open calls.
    pub async fn make_room(self: &Arc<Self>, peer: SocketAddr) -> Option<ConnectionPermit> {
        let start = Instant::now();
        let mut is_closing = false;
        while start.elapsed() < MAX_WAIT {
            is_closing = is_closing || self.close_longest_idle();
            let permit = self.permits.clone().acquire_owned();
            if let Ok(Ok(permit)) = timeout(CHECK_INTERVAL, permit).await {
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

    fn enter(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> ConnectionPermit {
        let activity = Arc::new(Activity {
            calls: Mutex::new(Calls {
                open: 0,
                idle_since: Instant::now(),
                admitted: 0,
                unused_since: Instant::now(),
            }),
            close: CancellationToken::new(),
        });
        let mut open = self.open.lock();
        let number = open.next;
        open.next += 1;
        open.activities.insert(number, activity.clone());
        ConnectionPermit {
            number,
            activity,
            limit: self.clone(),
            _permit: permit,
        }
    }

    /// Returns whether there was an idle connection to close.
    fn close_longest_idle(&self) -> bool {
        let open = self.open.lock();
        let staying = open
            .activities
            .values()
            .filter(|one| !one.close.is_cancelled());
        let unused = staying.filter_map(|one| Some((one.unused()?, one)));
        match unused.max_by_key(|(idle, _)| *idle) {
            Some((idle, longest)) if idle >= MIN_IDLE => {
                longest.close.cancel();
                true
            }
            _ => false,
        }
    }
}

impl ConnectionPermit {
    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limit.open.lock().activities.remove(&self.number);
    }
}

impl Activity {
    /// Counts a call as open until the returned value is dropped.
    pub fn begin(self: &Arc<Self>) -> Arc<OpenCall> {
        self.calls.lock().open += 1;
        Arc::new(OpenCall {
            activity: self.clone(),
            is_admitted: AtomicBool::new(false),
        })
    }

    /// Restarts the idle time.
    pub fn touch(&self) {
        let mut calls = self.calls.lock();
        calls.idle_since = Instant::now();
        calls.unused_since = Instant::now();
    }

    /// Waits until there has been no open call for `time`.
    pub async fn idle_for(&self, time: Duration) {
        wait_for(time, || self.idle()).await;
    }

    /// Waits until there has been no admitted call for `time`.
    pub async fn unused_for(&self, time: Duration) {
        wait_for(time, || self.unused()).await;
    }

    /// Waits until the connection has to close to make room for another.
    pub async fn must_close(&self) {
        self.close.cancelled().await;
    }

    /// How long there has been no open call; `None` while there is one.
    fn idle(&self) -> Option<Duration> {
        let calls = self.calls.lock();
        (calls.open == 0).then(|| calls.idle_since.elapsed())
    }

    /// How long there has been no admitted call; `None` while there is one.
    fn unused(&self) -> Option<Duration> {
        let calls = self.calls.lock();
        (calls.admitted == 0).then(|| calls.unused_since.elapsed())
    }
}

/// Waits until `idle`, which is `None` while there are calls, has reached `time`.
async fn wait_for(time: Duration, idle: impl Fn() -> Option<Duration>) {
    loop {
        let idle = idle().unwrap_or_default();
        if idle >= time {
            return;
        }
        sleep(time - idle).await;
    }
}

impl OpenCall {
    /// Records that the call had the right to be made, so that its connection has to stay.
    pub fn admit(&self) {
        if !self.is_admitted.swap(true, Ordering::Relaxed) {
            self.activity.calls.lock().admitted += 1;
        }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let mut calls = self.activity.calls.lock();
        calls.open -= 1;
        if calls.open == 0 {
            calls.idle_since = Instant::now();
        }
        if *self.is_admitted.get_mut() {
            calls.admitted -= 1;
            if calls.admitted == 0 {
                calls.unused_since = Instant::now();
            }
        }
    }
}
