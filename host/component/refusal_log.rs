//! Lines in the log for messages that reached nobody, at a bounded rate for each reason, and for
//! those that a component answered with an error. Decides nothing about the message.

use super::router::Undelivered;
use crate::{broker::Message, log_limit::LogLimit, task::Name, untrusted::Untrusted};
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
        let more = more(left_out);
        let (from, refusal) = (Untrusted::new(from), Untrusted::new(refusal.to_string()));
        tracing::warn!(%from, %to, class, "a message is refused{more}: {refusal}");
    }
}

/// The errors of one component.
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

/// How many lines of the kind came before and were not logged.
fn more(left_out: u64) -> String {
    match left_out {
        0 => String::new(),
        count => format!(" (and {count} more before it, not logged)"),
    }
}
