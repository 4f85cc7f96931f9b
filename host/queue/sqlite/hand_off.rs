//! The hand-off: the transaction that makes tasks pending leases them to the request that waits for tasks.
//! Such a task costs one transaction less, and waits for no signal.

use super::{
    offers::{HandedOff, Offer},
    transaction::Transaction,
};
use crate::task_queue::LeaseToken;
use hostel_sqlite::StatementError;
use hostel_task::StateKind;
use std::collections::HashSet;

impl Transaction<'_> {
    /// Leases tasks to the request that waits for them, if any does, and drops the changes that say that
    /// they are pending. If leasing fails, the tasks stay pending, and the index has to be loaded again.
    pub fn hand_off(&mut self) -> Result<(), StatementError> {
        let Some(offer) = self.offers.take() else {
            return Ok(());
        };
        let before = (self.changes.len(), self.snapshots.len());
        self.execute("SAVEPOINT hand_off")?;
        let leased = match self.lease(&offer.request) {
            Ok(leased) => leased,
            Err(error) if error.is_environmental() => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "tasks could not be leased with their submission");
                self.execute("ROLLBACK TO hand_off")?;
                self.execute("RELEASE hand_off")?;
                self.changes.truncate(before.0);
                self.snapshots.truncate(before.1);
                self.must_reload = true;
                return Ok(());
            }
        };
        self.execute("RELEASE hand_off")?;
        if leased.is_empty() {
            self.offers.put_back(offer);
            return Ok(());
        }
        let tokens = leased.iter().map(|leased| &leased.token);
        let ids: HashSet<_> = tokens.map(|LeaseToken { id, .. }| id).collect();
        self.changes
            .retain(|change| change.state != StateKind::Pending || !ids.contains(&change.id));
        let Offer { receiver, .. } = offer;
        self.handed_off = Some(HandedOff { leased, receiver });
        Ok(())
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<usize> {
        self.conn.prepare_cached(sql)?.execute([])
    }
}
