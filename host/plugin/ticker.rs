//! The thread that moves an engine's epoch on. Without it no deadline of a guest would ever pass;
//! so it is an OS thread, which no busy runtime can hold up, and it lives as long as its owner.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

/// How long a guest runs before it yields, and so how fast it can be interrupted.
pub const TICK: Duration = Duration::from_millis(10);

pub struct Ticker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub fn start(engine: wasmtime::Engine) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("hostel-epoch".into())
            .spawn(move || {
                while !stopped.load(Relaxed) {
                    std::thread::park_timeout(TICK);
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
            thread.thread().unpark();
            // It cannot panic, and there is nothing left to do if it had.
            let _ = thread.join();
        }
    }
}
