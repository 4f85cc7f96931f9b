//! A chat over topics: each client subscribes to a room and to its own name. Run it beside a node, in one
//! terminal for each person:
//!
//! ```text
//! cargo run --release --example chat -- --name ann --room kitchen
//! ```
//!
//! A line is sent to the room, `@bob hello` to bob, and `@rates {"query":{}}` to a component, whose answer
//! is printed. Topics store nothing: a client gets the messages after it has joined, and the node
//! disconnects a client that does not read.

use anyhow::Context;
use clap::Parser;
use hostel::{DistributedClient, proto::distributed::Message, untrusted::Untrusted};
use std::{io::BufRead, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

/// The time to wait for answers after the last line.
const LINGER: Duration = Duration::from_secs(1);

#[derive(Parser)]
struct Arguments {
    /// Your name; messages to it are for you
    #[arg(long)]
    name: String,
    /// The room to join
    #[arg(long, default_value = "lobby")]
    room: String,
    /// The address of a node
    #[arg(long, env = "HOSTEL_SERVER", default_value = "http://127.0.0.1:50051")]
    server: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let me = Arguments::parse();
    let mut client = DistributedClient::connect(&me.server)
        .await
        .with_context(|| format!("no node answers at {}", me.server))?;

    let (outgoing, messages) = mpsc::channel(16);
    // The first message sets the sender and the topics. It has no destination.
    outgoing.send(me.joining()).await?;
    let mut incoming = client
        .stream_messages(ReceiverStream::new(messages))
        .await?;
    eprintln!("You are {} in {}.", me.name, me.room);

    let mut lines = lines();
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => outgoing.send(me.message(&line)).await?,
                None => break,
            },
            message = incoming.next() => match message {
                Some(message) => me.print(&message?),
                None => anyhow::bail!("the node closed the stream"),
            },
        }
    }
    let last = async {
        while let Some(message) = incoming.next().await {
            me.print(&message?);
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(LINGER, last).await.unwrap_or(Ok(()))
}

impl Arguments {
    fn joining(&self) -> Message {
        Message {
            from_node: self.name.clone(),
            topics: vec![self.room.clone()],
            message_type: "join".into(),
            ..Message::default()
        }
    }

    /// Returns the message of a line: `@name text` is sent to `name`, any other line to the room.
    fn message(&self, line: &str) -> Message {
        let (to, text) = match line.strip_prefix('@') {
            Some(addressed) => addressed.split_once(' ').unwrap_or((addressed, "")),
            None => (self.room.as_str(), line),
        };
        Message {
            from_node: self.name.clone(),
            to_node: to.into(),
            payload: text.to_owned().into(),
            message_type: "chat".into(),
            ..Message::default()
        }
    }

    fn print(&self, message: &Message) {
        // Untrusted text must not control the terminal.
        let text = Untrusted::new(String::from_utf8_lossy(&message.payload));
        let from = Untrusted::new(&*message.from_node);
        match message.message_type.as_str() {
            // Each message has one response, which is printed if it is an error.
            "response" if message.error.is_empty() => {}
            _ if !message.error.is_empty() => eprintln!("! {}", Untrusted::new(&*message.error)),
            // The client's own messages to the room come back as well.
            _ if message.from_node == self.name && message.to_node == self.room => {}
            _ if message.to_node == self.room => println!("{from}: {text}"),
            _ => println!("{from}, to you: {text}"),
        }
    }
}

/// Reads lines on a thread of its own, because reading a terminal cannot be cancelled.
fn lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(16);
    std::thread::spawn(move || {
        let typed = std::io::stdin().lock().lines().map_while(Result::ok);
        for line in typed.filter(|line| !line.is_empty()) {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}
