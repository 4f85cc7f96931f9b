//! A native component: Rust code in a node, next to its plugins. It is started and stopped with the
//! node and answers the messages to its id. Run it with `cargo run --release --example component`.

use async_trait::async_trait;
use hostel::{
    Config, DistributedClient, DistributedNode,
    broker::{Overflow, Received, Subscription},
    component::Router,
    lifecycle::Component,
    proto::distributed::Message,
    task::Name,
};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio_util::task::AbortOnDropHandle;

/// The capacity of the mailbox; further messages are rejected.
const MAILBOX: usize = 64;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dir = std::env::temp_dir().join(format!("hostel-component-{}", std::process::id()));
    let settings = [
        ("HOSTEL__NODE__LISTEN", "127.0.0.1:0".into()),
        ("HOSTEL__NODE__DATA_DIR", dir.display().to_string()),
        (
            "HOSTEL__PLUGINS__DIR",
            dir.join("plugins").display().to_string(),
        ),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value));
    let mut node = DistributedNode::from_config(&Config::parse("", settings.into_iter())?).await?;
    node.start().await?;
    // Before the start or after it; in a running node, the component starts at once.
    let greeter = Greeter::new(node.router().clone())?;
    node.add_component(Box::new(greeter)).await?;

    let mut client = DistributedClient::connect(&node.address().to_string()).await?;
    let question = Message {
        to_node: "greeter".into(),
        payload: "Ann".into(),
        reply_timeout_ms: 5000,
        ..Message::default()
    };
    let answered = client.send_message(question).await?;
    let reply = answered.reply.unwrap_or_default();
    println!("{}", String::from_utf8_lossy(&reply.payload));

    node.stop().await?;
    Ok(std::fs::remove_dir_all(dir)?)
}

/// Answers a name with a greeting.
struct Greeter {
    id: Name,
    router: Arc<Router>,
    /// The task that handles messages. Dropping it ends the loop and releases the id.
    running: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Greeter {
    fn new(router: Arc<Router>) -> anyhow::Result<Self> {
        Ok(Self {
            id: Name::parse("component", "greeter")?,
            router,
            running: Mutex::default(),
        })
    }

    fn run(&self, task: Option<AbortOnDropHandle<()>>) {
        *self.running.lock() = task;
    }
}

#[async_trait]
impl Component for Greeter {
    async fn start(&self) -> anyhow::Result<()> {
        let (inbox, mut mailbox) = Subscription::new(MAILBOX, Overflow::Refuse);
        let registration = self.router.register(&self.id, inbox)?;
        let (router, id) = (self.router.clone(), self.id.clone());
        let task = tokio::spawn(async move {
            let _registration = registration;
            while let Some(Received::Message(message)) = mailbox.next().await {
                let name = String::from_utf8_lossy(&message.payload);
                let greeting = format!("Hello, {name}!");
                router
                    .answer(&id, &message, Ok(Some(greeting.into())))
                    .await;
            }
        });
        self.run(Some(AbortOnDropHandle::new(task)));
        Ok(())
    }

    async fn stop(&self) -> anyhow::Result<()> {
        self.run(None);
        Ok(())
    }

    fn get_id(&self) -> &str {
        self.id.as_str()
    }
}
