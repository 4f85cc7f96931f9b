//! What every living part of a node has in common: it can be started, stopped and addressed.

use async_trait::async_trait;

/// A part of a node. `start` returns once the part serves, `stop` once it has let go of everything;
/// neither is called twice in a row.
#[async_trait]
pub trait Component: Send + Sync {
    async fn start(&self) -> anyhow::Result<()>;
    async fn stop(&self) -> anyhow::Result<()>;
    /// Unique within its node.
    fn get_id(&self) -> &str;
}
