//! Lines in the log for messages that reached nobody, at a bounded rate for each reason. Decides
//! nothing about the message.

use super::router::Undelivered;
use crate::{log_limit::LogLimit, task::Name, untrusted::Untrusted};
use std::time::Duration;

/// How many messages of one class are logged in each interval.
const BURST: u32 = 10;
const INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct RefusalLog {
    nobody: LogLimit,
    full: LogLimit,
    down: LogLimit,
    stopping: LogLimit,
    broker: LogLimit,
}

impl RefusalLog {
    pub fn new() -> Self {
        let [nobody, full, down, stopping, broker] =
            std::array::from_fn(|_| LogLimit::new(BURST, INTERVAL));
        Self {
            nobody,
            full,
            down,
            stopping,
            broker,
        }
    }

    /// Logs that a message from `from` to `to` was refused.
    pub fn report(&self, from: &str, to: &Name, refusal: &Undelivered) {
        let (class, limit) = match refusal {
            Undelivered::Nobody(_) => ("nobody", &self.nobody),
            Undelivered::Full { .. } | Undelivered::AllFull { .. } => ("full", &self.full),
            Undelivered::Down { .. } => ("down", &self.down),
            Undelivered::Stopping(_) => ("stopping", &self.stopping),
            Undelivered::Broker(_) => ("broker", &self.broker),
        };
        let Some(left_out) = limit.permit() else {
            return;
        };
        let more = match left_out {
            0 => String::new(),
            count => format!(" (and {count} messages of this class before it, not logged)"),
        };
        let (from, refusal) = (Untrusted::new(from), refusal.to_string());
        let refusal = Untrusted::new(refusal);
        tracing::warn!(%from, %to, class, "a message is refused{more}: {refusal}");
    }
}
