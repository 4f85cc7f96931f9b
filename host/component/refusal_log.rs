//! Log lines about refused messages and about errors that components answer with, at a bounded rate.

use super::delivery_error::DeliveryError;
use crate::{broker::Message, log_limit::LogLimit, task::Name, untrusted::Untrusted};
use std::time::Duration;

/// How many messages of one class are logged in each interval.
const BURST: u32 = 10;
const INTERVAL: Duration = Duration::from_secs(60);

/// Logs refused messages, with a limit for each class of reason.
#[derive(Debug)]
pub struct RefusalLog {
    no_receiver: LogLimit,
    full: LogLimit,
    down: LogLimit,
    stopping: LogLimit,
    broker: LogLimit,
}

impl RefusalLog {
    pub fn new() -> Self {
        let limit = || LogLimit::new(BURST, INTERVAL);
        Self {
            no_receiver: limit(),
            full: limit(),
            down: limit(),
            stopping: limit(),
            broker: limit(),
        }
    }

    /// Logs that a message from `from` to `to` was refused.
    pub fn report(&self, from: &str, to: &Name, refusal: &DeliveryError) {
        let (class, limit) = match refusal {
            DeliveryError::NoReceiver(_) => ("no-receiver", &self.no_receiver),
            DeliveryError::Full { .. } | DeliveryError::AllFull { .. } => ("full", &self.full),
            DeliveryError::Down { .. } => ("down", &self.down),
            DeliveryError::Stopping(_) => ("stopping", &self.stopping),
            DeliveryError::Broker(_) => ("broker", &self.broker),
        };
        let Some(left_out) = limit.permit() else {
            return;
        };
        let more = more(left_out);
        let (from, refusal) = (Untrusted::new(from), Untrusted::new(refusal.to_string()));
        tracing::warn!(%from, %to, class, "a message is refused{more}: {refusal}");
    }
}

/// Logs the errors that one component answers with.
#[derive(Debug)]
pub struct ErrorLog(LogLimit);

impl Default for ErrorLog {
    fn default() -> Self {
        Self(LogLimit::new(BURST, INTERVAL))
    }
}

impl ErrorLog {
    /// Logs that `component` answered the message with an error of its own.
    pub fn report(&self, component: &Name, message: &Message, error: &str) {
        if let Some(left_out) = self.0.permit() {
            let more = more(left_out);
            let (from, to) = (Untrusted::new(&*message.from), &message.to);
            let error = Untrusted::new(error);
            tracing::warn!(%component, %from, %to, "answered a message with an error{more}: {error}");
        }
    }
}

/// How many earlier lines of the same kind were not logged.
fn more(left_out: u64) -> String {
    match left_out {
        0 => String::new(),
        count => format!(" (and {count} more before it, not logged)"),
    }
}
