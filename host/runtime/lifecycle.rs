//! The trait of every long-lived part of a node: it can be started, stopped and addressed.

use async_trait::async_trait;

/// A part of a node. `start` returns once the part serves, `stop` once it has released everything;
/// neither is called twice in a row.
#[async_trait]
pub trait Component: Send + Sync {
    /// Starts the component.
    async fn start(&self) -> anyhow::Result<()>;
    /// Stops the component.
    async fn stop(&self) -> anyhow::Result<()>;
    /// Unique within its node.
    fn get_id(&self) -> &str;
}
