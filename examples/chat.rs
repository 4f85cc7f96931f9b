//! A room to talk in, made of topics. Everybody listens to two: the room, and the own name. With a
//! node running, in as many terminals as there are people:
//!
//! ```text
//! cargo run --release --example chat -- --name ann --room kitchen
//! ```
//!
//! A line goes to the room. `@bob hello` goes to bob alone, and `@rates {"query":{}}` to a component,
//! whose answer comes back. Who joins late sees what is said from then on, and who stops reading is
//! cut off by the node: topics keep nothing.

use anyhow::Context;
use clap::Parser;
use hostel::{DistributedClient, proto::distributed::Message, untrusted::Untrusted};
use std::{io::BufRead, time::Duration};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

/// How long answers may still come after the last line.
const LINGER: Duration = Duration::from_secs(1);

#[derive(Parser)]
struct Arguments {
    /// Who you are; what is sent to this name comes to you
    #[arg(long)]
    name: String,
    /// Where you talk
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
    // The first message says who speaks and what to listen to. It is for nobody.
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
                None => anyhow::bail!("the node ended the conversation"),
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

    /// `@somebody text` is for somebody, everything else for the room.
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
        // Others must not get to steer this terminal.
        let text = Untrusted::new(String::from_utf8_lossy(&message.payload));
        let from = Untrusted::new(&*message.from_node);
        match message.message_type.as_str() {
            // Each message that was sent has exactly one; it is worth a line when it went wrong.
            "response" if message.error.is_empty() => {}
            _ if !message.error.is_empty() => eprintln!("! {}", Untrusted::new(&*message.error)),
            // Of what is said in the room, the own words too come back.
            _ if message.from_node == self.name && message.to_node == self.room => {}
            _ if message.to_node == self.room => println!("{from}: {text}"),
            _ => println!("{from}, to you: {text}"),
        }
    }
}

/// What is typed, on a thread of its own: nothing else can be told to stop reading a terminal.
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
