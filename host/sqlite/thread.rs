//! A named thread, which is joined without blocking the runtime.

use super::error::Error;
use hostel_runtime::health::{BackgroundThread, Health, Part};
use parking_lot::Mutex;

pub struct Thread(Mutex<Option<BackgroundThread>>);

impl Thread {
    /// Starts a thread of `part`. A panic on it fails the node.
    pub fn start(
        health: &Health,
        part: Part,
        name: &'static str,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Error> {
        let started = health.vital_thread(part, name, run);
        let thread = started.map_err(|error| {
            Error::unavailable(format!("the thread {name} cannot be started: {error}"))
        })?;
        Ok(Self(Mutex::new(Some(thread))))
    }

    /// Waits for the thread to end, which the caller has requested. A second call returns at once.
    pub async fn join(&self) {
        let thread = self.0.lock().take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}
