//! Watches the configuration file of a running node and logs a warning when it changes, because a
//! change takes effect only after SIGHUP or a restart. Changes nothing itself.

use crate::untrusted::Untrusted;
use std::{convert::Infallible, path::PathBuf, time::Duration};
use tokio::fs;

const INTERVAL: Duration = Duration::from_secs(2);

/// A larger file is no configuration and is not read.
const MAX_BYTES: u64 = 16 << 20;

/// Watches the file that a node was configured with.
pub struct ConfigWatcher {
    file: PathBuf,
}

impl ConfigWatcher {
    pub fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// Logs each change of the content once it is stable. Never returns.
    pub async fn run(&self) -> Infallible {
        let mut reported = self.content().await;
        let mut last = reported.clone();
        loop {
            tokio::time::sleep(INTERVAL).await;
            let now = self.content().await;
            if now == last && now != reported {
                reported.clone_from(&now);
                let file = Untrusted::path(&self.file);
                tracing::warn!(
                    "{file} has changed; this node still uses the configuration that it has read. \
                     SIGHUP makes it read the file again: schedules, tokens and certificates are in \
                     force then, and it logs the settings that need a restart"
                );
            }
            last = now;
        }
    }

    /// Returns the content, or `None` if it cannot be read.
    async fn content(&self) -> Option<Vec<u8>> {
        let bytes = fs::metadata(&self.file).await.ok()?.len();
        if bytes > MAX_BYTES {
            return None;
        }
        fs::read(&self.file).await.ok()
    }
}
