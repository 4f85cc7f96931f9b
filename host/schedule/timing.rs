//! When a schedule fires: the times of its pattern or of its interval.

use super::{
    cron::{self, ZonedCron},
    when::When,
};
use hostel_task::UnixMs;

/// The times of a schedule, ready to be computed.
#[derive(Debug, Clone)]
pub struct Timing(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Cron(Box<ZonedCron>),
    /// Milliseconds.
    Every(u64),
}

impl Timing {
    /// Makes the times of a schedule, or returns what is wrong with its pattern or zone.
    pub fn new(when: &When) -> Result<Self, String> {
        Ok(Self(match when {
            When::Cron { pattern, zone } => {
                let cron = ZonedCron::new(cron::parse(pattern)?, cron::zone(zone)?);
                Kind::Cron(Box::new(cron))
            }
            When::Every(interval) => match u64::try_from(interval.as_millis()) {
                Ok(ms) if ms > 0 => Kind::Every(ms),
                _ => return Err("the interval is out of range".into()),
            },
        }))
    }

    /// Returns the first time after `after`, if there is one. The times of an interval are its multiples
    /// since the Unix epoch, so they are the same on all nodes and after a change.
    pub fn next_after(&self, after: UnixMs) -> Option<UnixMs> {
        match &self.0 {
            Kind::Cron(cron) => cron.next_after(after),
            Kind::Every(ms) => (after.0 / ms).checked_add(1)?.checked_mul(*ms).map(UnixMs),
        }
    }

    /// Returns the next `count` times after `after`; fewer if there are no more.
    pub fn upcoming(&self, after: UnixMs, count: usize) -> Vec<UnixMs> {
        let times = std::iter::successors(self.next_after(after), |&time| self.next_after(time));
        times.take(count).collect()
    }

    /// Returns the latest `count` times after `after` and before `before`, the oldest first.
    pub(crate) fn latest(&self, after: UnixMs, before: UnixMs, count: usize) -> Vec<UnixMs> {
        let mut window = 1000;
        loop {
            // The window grows until it has enough of them.
            let start = UnixMs(before.0.saturating_sub(window)).max(after);
            let mut found = Vec::new();
            let mut next = self.next_after(start);
            while let Some(time) = next.filter(|&time| time < before) {
                found.push(time);
                if found.len() == 2 * count {
                    found.drain(..count);
                }
                next = self.next_after(time);
            }
            if found.len() >= count || start <= after {
                let excess = found.len().saturating_sub(count);
                found.drain(..excess);
                return found;
            }
            window = window.saturating_mul(2);
        }
    }
}
