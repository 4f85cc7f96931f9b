//! The wait for the plugins that a node finds at its start, as a part of the node: what starts behind
//! it starts once they serve and their components run, and the parts before it can be used meanwhile.

use super::Components;
use crate::{lifecycle::Component, plugin::PluginHost};
use async_trait::async_trait;
use std::sync::Arc;

pub struct FirstScan {
    pub plugins: Arc<PluginHost>,
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
