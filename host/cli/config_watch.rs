//! Looks after the configuration file of a running node, and says in the log when it has changed:
//! what is edited must not be taken for what is in force. Changes nothing.

use crate::untrusted::Untrusted;
use std::{convert::Infallible, path::PathBuf, time::Duration};
use tokio::fs;

const INTERVAL: Duration = Duration::from_secs(2);
/// A larger file is no configuration.
const MAX_BYTES: u64 = 16 << 20;

/// The file that a node was configured with.
pub struct ConfigWatch {
    file: PathBuf,
}

impl ConfigWatch {
    pub fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// Logs each change of the content, once it has come to rest, for ever.
    pub async fn run(&self) -> Infallible {
        let mut told = self.content().await;
        let mut last = told.clone();
        loop {
            tokio::time::sleep(INTERVAL).await;
            let now = self.content().await;
            if now == last && now != told {
                told.clone_from(&now);
                let file = Untrusted::path(&self.file);
                tracing::warn!(
                    "{file} has changed, and this node goes on with what it has read: SIGHUP has it \
                     read again and names the settings that wait for a restart, such as those of \
                     plugins"
                );
            }
            last = now;
        }
    }

    /// `None` while it cannot be read.
    async fn content(&self) -> Option<Vec<u8>> {
        let bytes = fs::metadata(&self.file).await.ok()?.len();
        if bytes > MAX_BYTES {
            return None;
        }
        fs::read(&self.file).await.ok()
    }
}
