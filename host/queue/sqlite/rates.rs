//! What the rates of task types and of their groups have given out. The transaction that leases changes it in
//! memory, and stores the changes.

use super::encoding::parse_name;
use crate::lease_request::LeaseRequest;
use hostel_sqlite::StatementError;
use hostel_task::{Name, Rate, Spent};
use rusqlite::{Connection, Row};
use std::collections::{HashMap, HashSet};

/// A task type, or one of its groups.
pub(super) type RateKey = (Name, Option<Name>);

/// How many entries there are before the first look for those that are over.
const FEW: usize = 64;

/// After this, an entry whose rate is not known is over.
const FORGOTTEN_MS: u64 = 24 * 60 * 60 * 1000;

#[derive(Default)]
pub(super) struct Rates {
    spent: HashMap<RateKey, Spent>,
    /// What the database does not have yet.
    changed: HashSet<RateKey>,
    /// The types whose own rate has changed, for `Stats`.
    changed_types: HashSet<Name>,
    /// How many entries the latest look has left.
    left: usize,
}

/// A change of the database: what was spent, or nothing for an entry that is over.
pub(super) type StoredRate = (RateKey, Option<Spent>);

impl Rates {
    /// Loads what is stored. An entry that cannot be read counts as none.
    pub fn load(conn: &Connection) -> Result<Self, StatementError> {
        let mut rates = Self::default();
        let mut rows = conn.prepare("SELECT type, in_group, units, at FROM rate")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            if let Ok((key, spent)) = read(row) {
                if key.1.is_none() {
                    rates.changed_types.insert(key.0.clone());
                }
                rates.spent.insert(key, spent);
            }
        }
        Ok(rates)
    }

    /// Returns what was spent of a type's rate, or of a group's.
    pub fn spent(&self, task_type: &Name, group: Option<&Name>) -> Spent {
        if self.spent.is_empty() {
            return Spent::default();
        }
        let key = (task_type.clone(), group.cloned());
        self.spent.get(&key).copied().unwrap_or_default()
    }

    /// Takes a permit.
    pub fn take(&mut self, task_type: &Name, group: Option<&Name>, rate: Rate, now: u64) {
        let key = (task_type.clone(), group.cloned());
        let spent = self.spent.entry(key.clone()).or_default();
        *spent = rate.take(*spent, now, 1);
        if group.is_none() {
            self.changed_types.insert(task_type.clone());
        }
        self.changed.insert(key);
    }

    /// Returns the changes since the last call. Looks for entries that are over once there are twice as many
    /// as were left before; a rate that the request does not have is not known.
    pub fn changes(&mut self, request: &LeaseRequest, now: u64) -> Vec<StoredRate> {
        if self.changed.is_empty() {
            return Vec::new();
        }
        let mut changes: Vec<StoredRate> = Vec::with_capacity(self.changed.len());
        for key in self.changed.drain() {
            let spent = self.spent.get(&key).copied();
            changes.push((key, spent));
        }
        if self.spent.len() > FEW + 2 * self.left {
            let is_over = |key: &RateKey, spent: Spent| match rate_of(request, key) {
                Some(rate) => rate.full_at(spent) <= now,
                None => spent.at.saturating_add(FORGOTTEN_MS) <= now,
            };
            self.spent.retain(|key, spent| {
                let is_over = is_over(key, *spent);
                if is_over {
                    changes.push((key.clone(), None));
                }
                !is_over
            });
            self.left = self.spent.len();
        }
        changes
    }

    /// Returns the types whose own rates have changed since the last call, with what was spent of them.
    pub fn changed_types(&mut self) -> Vec<(Name, Spent)> {
        if self.changed_types.is_empty() {
            return Vec::new();
        }
        let changed = std::mem::take(&mut self.changed_types);
        let spent = |task_type: Name| {
            let spent = self.spent(&task_type, None);
            (task_type, spent)
        };
        changed.into_iter().map(spent).collect()
    }

    /// Takes over what a previous state had shown of types: that it is gone is a change, too.
    pub fn succeed(&mut self, before: Self) {
        let shown = before
            .spent
            .into_keys()
            .filter(|(_, group)| group.is_none());
        self.changed_types
            .extend(shown.map(|(task_type, _)| task_type));
        self.changed_types.extend(before.changed_types);
    }
}

fn read(row: &Row<'_>) -> Result<(RateKey, Spent), StatementError> {
    let text = |column: usize| {
        let text = row.get_ref(column)?;
        text.as_str().map_err(rusqlite::Error::from)
    };
    let number = |column: usize| {
        let number: i64 = row.get(column)?;
        u64::try_from(number).map_err(|_| StatementError::Corrupt(format!("{number} is negative")))
    };
    let group = match text(1)? {
        "" => None,
        group => Some(parse_name(group)?),
    };
    let spent = Spent {
        units: number(2)?,
        at: number(3)?,
    };
    Ok(((parse_name(text(0)?)?, group), spent))
}

/// Returns the rate of a type or of a group, if the request has one.
fn rate_of(request: &LeaseRequest, (task_type, group): &RateKey) -> Option<Rate> {
    let limits = request.types.get(task_type)?;
    match group {
        None => limits.max_rate,
        Some(group) => limits.groups.as_ref()?.of(group).max_rate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease_request::RequestedTypes;
    use std::{sync::Arc, time::Duration};

    fn name(given: &str) -> Name {
        Name::parse("name", given).unwrap()
    }

    fn request(rate: Option<Rate>) -> LeaseRequest {
        let mut request =
            LeaseRequest::for_type(name("n"), name("echo"), 1, Duration::from_secs(1));
        let types: &mut RequestedTypes = Arc::make_mut(&mut request.types);
        types.get_mut("echo").unwrap().max_rate = rate;
        request
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let rate: Rate = "1/s".parse().unwrap();
        let mut rates = Rates::default();
        assert!(rates.changes(&request(Some(rate)), 0).is_empty());
        rates.take(&name("echo"), None, rate, 1000);
        for n in 0..FEW {
            rates.take(&name("other"), Some(&name(&format!("g{n}"))), rate, 1000);
        }
        assert_eq!(rates.changed_types().len(), 1);
        let stored = rates.changes(&request(Some(rate)), 1000);
        assert_eq!(stored.len(), FEW + 1);
        assert!(stored.iter().all(|(_, spent)| spent.is_some()));
        // The type is over; nothing is known of the groups.
        for n in 0..3 * FEW {
            rates.take(&name(&format!("t{n}")), None, rate, 2000);
        }
        let stored = rates.changes(&request(Some(rate)), 2000);
        let over: Vec<_> = stored.iter().filter(|(_, spent)| spent.is_none()).collect();
        assert_eq!(over, [&((name("echo"), None), None)]);
        let later = 1000 + FORGOTTEN_MS;
        for n in 0..6 * FEW {
            rates.take(&name(&format!("u{n}")), None, rate, later);
        }
        let stored = rates.changes(&request(Some(rate)), later);
        let over = stored.iter().filter(|(_, spent)| spent.is_none());
        assert_eq!(over.count(), FEW);
        assert_eq!(rates.spent.len(), 9 * FEW);
    }
}
