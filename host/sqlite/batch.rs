//! One transaction for a batch of operations. Normally without savepoints: when an operation fails,
//! everything is rolled back and run once more with a savepoint for each operation, so that only the
//! failing one is rolled back, and savepoints cost nothing while all goes well.

use super::{
    operation::{Operation, SyncLevel},
    statement_error::{OperationError, StatementError},
    store::{Session, Store},
};

/// What each operation failed with; empty when none did.
pub(super) type Errors<S> = Vec<Option<OperationError<<S as Store>::Error>>>;

/// Nothing of the batch was committed, or that is not known.
pub(super) struct Failure {
    pub error: StatementError,
    pub outcome_unknown: bool,
}

impl<T: Into<StatementError>> From<T> for Failure {
    fn from(error: T) -> Self {
        Self {
            error: error.into(),
            outcome_unknown: false,
        }
    }
}

/// Runs and commits the batch; `current` is the level that the connection is set to.
pub(super) fn commit<'c, S: Store>(
    session: &mut S::Session<'c>,
    batch: &mut [Box<dyn Operation<S>>],
    current: &mut SyncLevel,
) -> Result<Errors<S>, Failure> {
    session.begin();
    let levels = batch.iter().map(|operation| operation.cost().sync_level);
    let needed = levels.max().unwrap_or(SyncLevel::ReadOnly);
    if needed == SyncLevel::ReadOnly {
        let run = |operation: &mut Box<dyn Operation<S>>| operation.run(session).err();
        return Ok(batch.iter_mut().map(run).collect());
    }
    // It cannot be changed within a transaction.
    if needed != *current {
        session.connection().execute_batch(match needed {
            SyncLevel::Full => "PRAGMA synchronous = FULL",
            _ => "PRAGMA synchronous = NORMAL",
        })?;
        *current = needed;
    }
    execute(session, "BEGIN IMMEDIATE")?;
    let run = |operation: &mut Box<dyn Operation<S>>| operation.run(session);
    let errors = match batch.iter_mut().try_for_each(run) {
        Ok(()) => Vec::new(),
        Err(OperationError::Failed(error)) if error.is_environmental() => {
            return Err(roll_back(session, error));
        }
        Err(_) => {
            if !session.connection().is_autocommit() {
                execute(session, "ROLLBACK")?;
            }
            session.rollback()?;
            execute(session, "BEGIN IMMEDIATE")?;
            run_with_savepoints(session, batch)?
        }
    };
    session.before_commit()?;
    if let Err(error) = execute(session, "COMMIT") {
        let error = StatementError::from(error);
        // A full disk shows before the commit record is written; any other error may come after.
        let outcome_unknown = !error.is_disk_full();
        return Err(Failure {
            outcome_unknown,
            ..roll_back(session, error)
        });
    }
    Ok(errors)
}

fn run_with_savepoints<'c, S: Store>(
    session: &mut S::Session<'c>,
    batch: &mut [Box<dyn Operation<S>>],
) -> Result<Errors<S>, Failure> {
    let mut errors = Vec::with_capacity(batch.len());
    for operation in batch {
        execute(session, "SAVEPOINT operation")?;
        session.savepoint();
        match operation.run(session) {
            Ok(()) => errors.push(None),
            // Some errors make SQLite roll back the whole transaction.
            Err(OperationError::Failed(error))
                if error.is_environmental() || session.connection().is_autocommit() =>
            {
                return Err(roll_back(session, error));
            }
            Err(error) => {
                execute(session, "ROLLBACK TO operation")?;
                session.rollback_to_savepoint()?;
                errors.push(Some(error));
            }
        }
        execute(session, "RELEASE operation")?;
    }
    Ok(errors)
}

fn execute<'c>(session: &impl Session<'c>, sql: &str) -> rusqlite::Result<usize> {
    session.connection().prepare_cached(sql)?.execute([])
}

/// Ends the transaction. The connection is dropped after this, so a failure here does no harm.
fn roll_back<'c>(session: &impl Session<'c>, error: StatementError) -> Failure {
    if !session.connection().is_autocommit() {
        let _ = execute(session, "ROLLBACK");
    }
    error.into()
}
