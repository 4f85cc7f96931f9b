//! The part of a node that follows changes of the limits that are set at run time.

use crate::{
    health::{Background, Health, Part},
    lifecycle::Component,
    queue::LimitTable,
};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::sync::Arc;

/// Keeps the table of limits up to date.
pub struct LimitReader {
    limits: Arc<LimitTable>,
    health: Health,
    running: Mutex<Option<Background>>,
}

impl LimitReader {
    /// Creates the part. It follows changes from its start on.
    pub fn new(limits: Arc<LimitTable>, health: Health) -> Self {
        Self {
            limits,
            health,
            running: Mutex::default(),
        }
    }
}

#[async_trait]
impl Component for LimitReader {
    async fn start(&self) -> anyhow::Result<()> {
        let limits = self.limits.clone();
        let follow = move || {
            let limits = limits.clone();
            async move { limits.follow().await }
        };
        let reading = self.health.restarting(Part::Queue, "limit-reader", follow);
        *self.running.lock() = Some(reading);
        Ok(())
    }

    async fn stop(&self) -> anyhow::Result<()> {
        let running = self.running.lock().take();
        if let Some(running) = running {
            running.stop().await;
        }
        Ok(())
    }

    fn get_id(&self) -> &str {
        "limits"
    }
}
