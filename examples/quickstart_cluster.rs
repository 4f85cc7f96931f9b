//! The node of `quickstart.rs` as a member of a cluster: nodes find each other in etcd, and messages
//! and tasks go through Redis. Run it beside both servers, and end it with Ctrl-C:
//!
//! ```text
//! cargo run --release --example quickstart_cluster
//! ```

#[path = "shared/custom_component.rs"]
mod custom_component;

use custom_component::CustomComponent;
use hostel::{
    Config, DistributedNode, broker::RedisBroker, discovery::EtcdServiceDiscovery, health::Health,
    queue, scheduler::DistributedTaskScheduler,
};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let service_discovery =
        Arc::new(EtcdServiceDiscovery::new(&["localhost:2379"], "/services").await?);

    let message_broker = Arc::new(RedisBroker::new("redis://localhost:6379").await?);

    // Tasks are stored in a queue, which the nodes of a cluster share.
    let settings = "[queue]\nkind = \"redis\"\nurl = \"redis://localhost:6379\"\n";
    let config = Config::parse(settings, std::iter::empty())?;
    let queue = queue::open(&config.queue, &Health::default()).await?;
    let task_scheduler = Arc::new(DistributedTaskScheduler::new(
        queue.clone(),
        service_discovery.clone(),
    ));

    let mut node = DistributedNode::new(
        "node-1",
        "127.0.0.1:50051",
        service_discovery.clone(),
        message_broker.clone(),
        task_scheduler.clone(),
    )
    .await?;

    node.add_component(Box::new(CustomComponent::new("custom-1")))
        .await?;

    // Before others see the node, or a Ctrl-C could end the program without a stop.
    let mut interrupt = signal(SignalKind::interrupt())?;

    node.start().await?;

    interrupt.recv().await;

    node.stop().await?;
    queue.close().await;
    Ok(())
}
