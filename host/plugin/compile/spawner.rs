//! The thread that starts processes. The kernel ends a compile process with the thread that started
//! it, and the threads of a runtime come and go; this one lives as long as its owner.

use hostel_runtime::health::{BackgroundThread, Health, Part};
use std::{
    io,
    sync::mpsc::{self, Sender},
};
use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
};

pub struct Spawner {
    orders: Option<Sender<Order>>,
    thread: Option<BackgroundThread>,
}

struct Order {
    command: Command,
    /// Is notified of the end of the process.
    runtime: Handle,
    started: oneshot::Sender<io::Result<Child>>,
}

impl Spawner {
    pub fn start(health: &Health) -> io::Result<Self> {
        let (orders, mailbox) = mpsc::channel::<Order>();
        let thread = health.vital_thread(Part::Plugins, "process-spawner", move || {
            for mut order in mailbox {
                let _runtime = order.runtime.enter();
                // If the receiver is gone, the process is dropped, which kills it.
                let _ = order.started.send(order.command.spawn());
            }
        })?;
        Ok(Self {
            orders: Some(orders),
            thread: Some(thread),
        })
    }

    /// Starts `command`, which must be set to be killed on drop. Must be called in a tokio runtime.
    pub async fn spawn(&self, command: Command) -> io::Result<Child> {
        let (started, child) = oneshot::channel();
        let order = Order {
            command,
            runtime: Handle::current(),
            started,
        };
        let sent = self
            .orders
            .as_ref()
            .is_some_and(|orders| orders.send(order).is_ok());
        if !sent {
            return Err(ended());
        }
        child.await.unwrap_or_else(|_| Err(ended()))
    }
}

fn ended() -> io::Error {
    io::Error::other("the thread that starts processes has ended")
}

impl Drop for Spawner {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}
