//! A thread of a database's: started by name, and waited for without blocking. Knows nothing of what
//! it does.

use super::Error;
use hostel_runtime::health::{BackgroundThread, Health, Part};
use std::sync::{Mutex, PoisonError};

pub struct Thread(Mutex<Option<BackgroundThread>>);

impl Thread {
    /// Starts a thread of `part`, whose panic fails the node.
    pub fn start(
        health: &Health,
        part: Part,
        name: &'static str,
        run: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Error> {
        let started = health.vital_thread(part, name, run);
        let thread = started
            .map_err(|error| Error::Unavailable(format!("no thread for {name}: {error}")))?;
        Ok(Self(Mutex::new(Some(thread))))
    }

    /// Waits for its end; the second time there is nothing to wait for. Telling it to end is the
    /// caller's.
    pub async fn join(&self) {
        let thread = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}
