//! Wakes the loader when the plugins directory changes. Events may be missed: the loader also scans
//! the directory at intervals.

use super::scan;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _, event};
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Notify;

pub struct Watcher {
    dir: PathBuf,
    wake: Arc<Notify>,
    watching: Option<((u64, u64), RecommendedWatcher)>,
    /// The delay after a failed attempt.
    pause: Duration,
    not_before: Option<Instant>,
    warned: bool,
}

impl Watcher {
    pub fn new(dir: PathBuf, pause: Duration, wake: Arc<Notify>) -> Self {
        Self {
            dir,
            wake,
            watching: None,
            pause,
            not_before: None,
            warned: false,
        }
    }

    /// Watches the directory that has this path now. Called at intervals, because a watch stays with a
    /// directory that was moved away or removed.
    pub fn refresh(&mut self) {
        let identity = scan::identity(&self.dir);
        if identity == self.watching.as_ref().map(|(watched, _)| *watched) {
            return;
        }
        self.watching = None;
        let Some(identity) = identity else { return };
        if self.not_before.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let wake = self.wake.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.as_ref().map_or(true, is_change) {
                wake.notify_one();
            }
        });
        let started = watcher.and_then(|mut watcher| {
            watcher.watch(&self.dir, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match started {
            Ok(watcher) => {
                self.watching = Some((identity, watcher));
                self.not_before = None;
                self.warned = false;
                // Something may have changed before the watch began.
                self.wake.notify_one();
            }
            Err(error) => {
                // Without a wake-up, which would lead back here at once.
                self.not_before = Some(Instant::now() + self.pause);
                if !self.warned {
                    self.warned = true;
                    let dir = self.dir.display();
                    tracing::warn!(
                        "{dir} cannot be watched, so changes are only seen at the next scan (plugins.rescan_ms): {error}"
                    );
                }
            }
        }
    }
}

/// Whether the event is more than a read; the loader itself reads.
fn is_change(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(kind) => kind == event::AccessKind::Close(event::AccessMode::Write),
        _ => true,
    }
}
