//! The component that both quickstarts add to their node: started and stopped with it.

use async_trait::async_trait;
use hostel::lifecycle::Component;

/// A native component that reports its start and its stop.
pub struct CustomComponent {
    id: String,
}

impl CustomComponent {
    pub fn new(id: &str) -> Self {
        Self { id: id.to_string() }
    }
}

#[async_trait]
impl Component for CustomComponent {
    async fn start(&self) -> anyhow::Result<()> {
        println!("{} starts", self.id);
        Ok(())
    }

    async fn stop(&self) -> anyhow::Result<()> {
        println!("{} stops", self.id);
        Ok(())
    }

    fn get_id(&self) -> &str {
        &self.id
    }
}
