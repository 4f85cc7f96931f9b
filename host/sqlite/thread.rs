//! A thread of a database's: started by name, and waited for without blocking. Knows nothing of what
//! it does.

use super::Error;
use std::{
    sync::{Mutex, PoisonError},
    thread::{self, JoinHandle},
};

pub(crate) struct Thread {
    name: &'static str,
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl Thread {
    pub fn start(name: &'static str, run: impl FnOnce() + Send + 'static) -> Result<Self, Error> {
        let started = thread::Builder::new().name(name.into()).spawn(run);
        let handle = started
            .map_err(|error| Error::Unavailable(format!("no thread for {name}: {error}")))?;
        Ok(Self {
            name,
            handle: Mutex::new(Some(handle)),
        })
    }

    /// Waits for its end; the second time there is nothing to wait for. Telling it to end is the
    /// caller's.
    pub async fn join(&self) {
        let handle = self
            .handle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(handle) = handle {
            let joined = tokio::task::spawn_blocking(move || handle.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the thread {} ended badly", self.name);
            }
        }
    }
}
