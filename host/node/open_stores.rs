//! The stores as parts of a node, which close them when it stops. `node.rs` opens them.

use crate::{keyvalue::KeyValue, lifecycle::Component, queue::TaskQueue};
use async_trait::async_trait;
use std::sync::Arc;

/// The queue as a part of the node: open at the start, and closed last.
pub struct OpenQueue(pub Arc<dyn TaskQueue>);

#[async_trait]
impl Component for OpenQueue {
    async fn start(&self) -> anyhow::Result<()> {
        Ok(())
    }

    async fn stop(&self) -> anyhow::Result<()> {
        self.0.close().await;
        Ok(())
    }

    fn get_id(&self) -> &str {
        "queue"
    }
}

/// The key-value store as a part of the node: open at the start, and closed after the plugins.
pub struct OpenKeyValue(pub Arc<dyn KeyValue>);

#[async_trait]
impl Component for OpenKeyValue {
    async fn start(&self) -> anyhow::Result<()> {
        Ok(())
    }

    async fn stop(&self) -> anyhow::Result<()> {
        self.0.close().await;
        Ok(())
    }

    fn get_id(&self) -> &str {
        "keyvalue"
    }
}
