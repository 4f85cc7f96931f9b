//! One transaction for a batch of operations. Normally without savepoints: when a statement fails,
//! everything is rolled back and done once more with one savepoint an operation, so that the
//! faulty one fails alone and the others pay for safety only then.

use super::{
    book::Book,
    operation::{Operation, Safety},
};
use hostel_sqlite::Fault;

/// Nothing of the batch was committed, or nobody knows.
pub(super) struct Failure {
    pub fault: Fault,
    pub outcome_unknown: bool,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self {
            fault,
            outcome_unknown: false,
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Fault::from(error).into()
    }
}

/// Runs and commits the batch; `safety` is what the connection is set to. Returns what each
/// operation failed with; none at all when all went well.
pub(super) fn commit(
    book: &mut Book<'_>,
    batch: &mut [Box<dyn Operation>],
    safety: &mut Safety,
) -> Result<Vec<Option<Fault>>, Failure> {
    book.forget_changes();
    let needed = batch
        .iter()
        .map(|operation| operation.demand().safety)
        .max();
    let needed = needed.unwrap_or(Safety::Looks);
    if needed == Safety::Looks {
        return Ok(batch
            .iter_mut()
            .map(|operation| operation.run(book).err())
            .collect());
    }
    // Cannot be changed within a transaction, nor need it be when it is the same.
    if needed != *safety {
        book.conn.execute_batch(match needed {
            Safety::Power => "PRAGMA synchronous = FULL",
            _ => "PRAGMA synchronous = NORMAL",
        })?;
        *safety = needed;
    }
    book.statements.begin.execute([])?;
    match run(book, batch) {
        Ok(()) => {
            end(book)?;
            Ok(Vec::new())
        }
        Err(fault) if fault.is_environmental() => Err(give_up(book, fault)),
        Err(_) => {
            take_back(book)?;
            book.statements.begin.execute([])?;
            let faults = run_carefully(book, batch)?;
            end(book)?;
            Ok(faults)
        }
    }
}

fn run(book: &mut Book<'_>, batch: &mut [Box<dyn Operation>]) -> Result<(), Fault> {
    for operation in batch {
        operation.run(book)?;
    }
    Ok(())
}

fn run_carefully(
    book: &mut Book<'_>,
    batch: &mut [Box<dyn Operation>],
) -> Result<Vec<Option<Fault>>, Failure> {
    let mut faults = Vec::with_capacity(batch.len());
    for operation in batch {
        book.conn.execute_batch("SAVEPOINT operation")?;
        let told = (book.changes.len(), book.snapshots.len());
        match operation.run(book) {
            Ok(()) => faults.push(None),
            // Some errors make SQLite take the whole transaction back by itself.
            Err(fault) if fault.is_environmental() || book.conn.is_autocommit() => {
                return Err(give_up(book, fault));
            }
            Err(fault) => {
                book.conn.execute_batch("ROLLBACK TO operation")?;
                book.changes.truncate(told.0);
                book.snapshots.truncate(told.1);
                book.reload()?;
                faults.push(Some(fault));
            }
        }
        book.conn.execute_batch("RELEASE operation")?;
    }
    Ok(faults)
}

fn end(book: &mut Book<'_>) -> Result<(), Failure> {
    if book.must_reload {
        book.reload()?;
    }
    book.statements.commit.execute([]).map_err(|error| {
        let fault = Fault::from(error);
        // A full disk is met before the commit record is written; any other fault may come after.
        let outcome_unknown = !fault.is_disk_full();
        let Failure { fault, .. } = give_up(book, fault);
        Failure {
            fault,
            outcome_unknown,
        }
    })?;
    Ok(())
}

fn take_back(book: &mut Book<'_>) -> Result<(), Fault> {
    if !book.conn.is_autocommit() {
        book.conn.execute_batch("ROLLBACK")?;
    }
    book.forget_changes();
    book.reload()
}

/// The connection will be dropped, which rolls back too; this only does it sooner.
fn give_up(book: &mut Book<'_>, fault: Fault) -> Failure {
    if !book.conn.is_autocommit() {
        let _ = book.conn.execute_batch("ROLLBACK");
    }
    fault.into()
}
