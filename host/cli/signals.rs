//! The signals that stop a node or make it reload its configuration.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Receives the signals of a node.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
}

/// The request that a signal stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalRequest {
    Stop,
    Reload,
}

impl Signals {
    /// Starts to receive signals, which would end the process otherwise.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> SignalRequest {
        tokio::select! {
            _ = self.terminate.recv() => SignalRequest::Stop,
            _ = self.interrupt.recv() => SignalRequest::Stop,
            _ = self.quit.recv() => SignalRequest::Stop,
            _ = self.hangup.recv() => SignalRequest::Reload,
        }
    }

    /// Waits for a signal that stops the node.
    pub async fn stop(&mut self) {
        while self.next().await == SignalRequest::Reload {
            tracing::info!("SIGHUP is ignored while the node starts or stops");
        }
    }
}
