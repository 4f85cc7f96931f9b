//! The wait for the plugins that a node finds at its start, as a part of the node. The parts added
//! after it start once those plugins serve and their components run; the parts before it are in use
//! meanwhile.

use super::components::Components;
use crate::{lifecycle::Component, plugin::PluginHost};
use async_trait::async_trait;
use std::sync::Arc;

/// Starts once the plugins of the first scan have been loaded and their components started.
pub struct FirstScan {
    /// The plugins that are scanned.
    pub plugins: Arc<PluginHost>,
    /// The components of these plugins.
    pub components: Arc<Components>,
}

#[async_trait]
impl Component for FirstScan {
    async fn start(&self) -> anyhow::Result<()> {
        self.plugins.loaded().await;
        self.components.caught_up().await;
        Ok(())
    }

    async fn stop(&self) -> anyhow::Result<()> {
        Ok(())
    }

    fn get_id(&self) -> &str {
        "first-scan"
    }
}
