//! A node assembled from its parts, and a client that calls it. Run it with
//! `cargo run --release --example quickstart`.
//!
//! - The parts need nothing but this machine: `LocalDiscovery`, `LocalBroker` and a SQLite queue.
//!   `quickstart_cluster.rs` has the same node with etcd and Redis.
//! - The scheduler is made of a queue, which stores tasks durably, and of discovery, which knows the
//!   task types of live nodes.
//! - A node assembled by hand runs no plugins, so the client's task is rejected with the list of
//!   known task types. `DistributedNode::from_config` makes a node with plugins.
//! - `task_id` of a `Task` is its idempotency key; `..Task::default()` lets the client choose one.

#[path = "shared/custom_component.rs"]
mod custom_component;

use custom_component::CustomComponent;
use hostel::{
    DistributedClient, DistributedNode,
    broker::{self, MessageBroker},
    config::Config,
    discovery::{self, ServiceDiscovery},
    health::Health,
    proto::distributed::{Message, Task},
    queue,
    scheduler::DistributedTaskScheduler,
};
use std::sync::Arc;
use tokio_stream::StreamExt;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dir = std::env::temp_dir().join(format!("hostel-quickstart-{}", std::process::id()));
    let data_dir = ("HOSTEL__NODE__DATA_DIR".into(), dir.display().to_string());
    let config = Config::parse("", [data_dir].into_iter())?;

    let health = Health::default();
    let service_discovery: Arc<dyn ServiceDiscovery> = discovery::open(&config, &health)?;
    let message_broker: Arc<dyn MessageBroker> = broker::open(&config, &health)?;
    let queue = queue::open(&config.queue, &health).await?;
    let task_scheduler = Arc::new(DistributedTaskScheduler::new(
        queue.clone(),
        service_discovery.clone(),
    ));

    let mut node = DistributedNode::new(
        "node-1",
        "127.0.0.1:0",
        service_discovery,
        message_broker,
        task_scheduler,
    )
    .await?;
    node.add_component(Box::new(CustomComponent::new("custom-1")))
        .await?;
    node.start().await?;

    example_client(&format!("http://{}", node.address())).await?;

    node.stop().await?;
    queue.close().await;
    Ok(std::fs::remove_dir_all(dir)?)
}

async fn example_client(address: &str) -> anyhow::Result<()> {
    let mut client = DistributedClient::connect(address).await?;

    let submitted = client
        .submit_task(Task {
            task_type: "example".to_string(),
            ..Task::default()
        })
        .await;
    match submitted {
        Ok(id) => println!("submitted as {id}"),
        Err(status) => println!("rejected: {}", status.message()),
    }

    let messages = async_stream::stream! {
        yield Message {
            from_node: "client".to_string(),
            to_node: "client".to_string(),
            payload: "hello, myself".into(),
            message_type: "request".to_string(),
            ..Message::default()
        };
    };
    let mut responses = client.stream_messages(messages).await?;
    while let Some(message) = responses.next().await {
        let message = message?;
        println!("{} from {}", message.message_type, message.from_node);
    }
    Ok(())
}
