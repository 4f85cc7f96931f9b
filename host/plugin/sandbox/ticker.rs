//! The thread that advances an engine's epoch. Without it no guest would ever be interrupted, so it is
//! an OS thread, which a busy runtime cannot delay, and lives as long as its owner.

use hostel_runtime::health::{BackgroundThread, Health, Part};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

/// How long a guest runs before it yields, and thus how soon it can be interrupted.
pub const TICK: Duration = Duration::from_millis(10);

pub struct Ticker {
    stop: Arc<AtomicBool>,
    thread: Option<BackgroundThread>,
}

impl Ticker {
    pub fn start(engine: wasmtime::Engine, health: &Health) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = health.vital_thread(Part::Plugins, "epoch-ticker", move || {
            while !stopped.load(Relaxed) {
                thread::park_timeout(TICK);
                engine.increment_epoch();
            }
        })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}
