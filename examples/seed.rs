//! The program that Hostel was asked for with: its main and its client, working. Run it with
//! `cargo run --release --example seed`. What differs from the seed, and why:
//!
//! - `LocalDiscovery` and `LocalBroker` stand where the seed has etcd and Redis, which come with
//!   clusters; nothing else would change.
//! - The scheduler is made of a queue, where tasks are durable, and of discovery, which knows the
//!   task types of live nodes; the seed kept tasks in a map and published them.
//! - A node made of parts by hand runs no plugins, so the client's task is refused with the list
//!   of known types. `DistributedNode::from_config` makes the whole node.
//! - `Task` has a `task_id`, the idempotency key; `..Task::default()` lets the client make one up.

use async_trait::async_trait;
use hostel::{
    DistributedClient, DistributedNode,
    broker::{self, MessageBroker},
    config::Config,
    discovery::{self, ServiceDiscovery},
    health::Health,
    lifecycle::Component,
    proto::distributed::{Message, Task},
    queue,
    scheduler::DistributedTaskScheduler,
};
use std::sync::Arc;
use tokio_stream::StreamExt;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dir = std::env::temp_dir().join(format!("hostel-seed-{}", std::process::id()));
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
        Err(refused) => println!("refused: {}", refused.message()),
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

/// A native component: started and stopped with the node, addressed by its id.
struct CustomComponent {
    id: String,
}

impl CustomComponent {
    fn new(id: &str) -> Self {
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
