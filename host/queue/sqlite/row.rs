//! Reading a task from a row.

use super::{
    clock::Clock,
    damage::Damage,
    encoding::{
        Metadata, parse_name, parse_route, read_bytes, read_current_options, read_metadata,
        read_progress, state_kind,
    },
};
use bytes::Bytes;
use hostel_sqlite::StatementError;
use hostel_task::{ErrorClass, ExecutedBy, Route, State, StateKind, Task};
use rusqlite::Row;

/// The query of rows that `task` reads. `$bulk` selects payload and result, `$rest` follows
/// `FROM task`.
macro_rules! task_query {
    ($bulk:literal, $rest:literal) => {
        concat!(
            "SELECT id, (SELECT text FROM word WHERE word = type), state, at, attempt, finishes,
                cancel_asked, submitted_at, started_at,
                (SELECT text FROM word WHERE word = node),
                (SELECT text FROM word WHERE word = ran_node),
                (SELECT text FROM word WHERE word = ran_plugin),
                (SELECT text FROM word WHERE word = ran_version), error, metadata, ",
            $bulk,
            ", seq, error_class, losses,
                (SELECT options FROM task_options WHERE task_options.seq = task.seq),
                (SELECT priority FROM task_options WHERE task_options.seq = task.seq), progress
                FROM task ",
            $rest
        )
    };
}
pub(super) use task_query;

/// Reads a row of a `task_query`; the inner error says what is damaged.
pub(super) fn task(row: &Row<'_>, clock: &Clock) -> Result<Result<Task, Damage>, StatementError> {
    match read(row, clock) {
        Ok(task) => Ok(Ok(task)),
        Err(error) => Ok(Err(Damage::of(row.get(17)?, error)?)),
    }
}

fn read(row: &Row<'_>, clock: &Clock) -> Result<Task, StatementError> {
    let id = parse_name(text(row, 0)?.unwrap_or_default())?;
    let kind = state_kind(row.get(2)?)?;
    let at = clock.to_wall(row.get(3)?);
    let started_at = row.get::<_, Option<i64>>(8)?;
    let started_at = started_at.map(|at| clock.to_wall(at));
    let error_class = text(row, 18)?.map(|class| {
        let mut known = ErrorClass::ALL.into_iter();
        let class = known.find(|known| known.as_str() == class);
        class.unwrap_or(ErrorClass::Corrupt)
    });
    let missing = |what: &str| StatementError::Corrupt(format!("it is {kind} but has no {what}"));
    let state = match kind {
        StateKind::Pending => State::Pending { due_at: at },
        StateKind::Running => State::Running {
            node: parse_name(text(row, 9)?.ok_or_else(|| missing("node"))?)?,
            started_at: started_at.ok_or_else(|| missing("start"))?,
            lease_until: at,
            cancel_requested: row.get(6)?,
        },
        StateKind::Completed => State::Completed {
            result: read_bytes(row.get_ref(16)?)?,
            started_at: started_at.ok_or_else(|| missing("start"))?,
            finished_at: at,
        },
        StateKind::Failed => State::Failed {
            started_at,
            finished_at: at,
        },
        StateKind::Cancelled => State::Cancelled {
            started_at,
            finished_at: at,
        },
    };
    let Route { task_type, target } = parse_route(text(row, 1)?.unwrap_or_default())?;
    let (mut payload, mut metadata, mut options) = (
        read_bytes(row.get_ref(15)?),
        read_metadata(row.get_ref(14)?),
        read_current_options(row.get_ref(20)?, row.get_ref(21)?),
    );
    if error_class == Some(ErrorClass::Corrupt) {
        // The task is marked as corrupt already, perhaps for this damage.
        payload = payload.or_else(|_| Ok(Bytes::new()));
        metadata = metadata.or_else(|_| Ok(Metadata::default()));
        options = options.or_else(|_| Ok(None));
    }
    Ok(Task {
        task_type,
        target,
        payload: payload?,
        metadata: metadata?,
        options: options?,
        submitted_at: clock.to_wall(row.get(7)?),
        state,
        attempt: row.get(4)?,
        error: text(row, 13)?.map(str::to_owned),
        error_class,
        executed_by: executed_by(row)?,
        progress: read_progress(row.get_ref(22)?),
        losses: row.get(19)?,
        finishes: row.get(5)?,
        id,
    })
}

fn executed_by(row: &Row<'_>) -> Result<Option<ExecutedBy>, StatementError> {
    match (text(row, 10)?, text(row, 11)?, text(row, 12)?) {
        (Some(node), Some(plugin), Some(version)) => Ok(Some(ExecutedBy {
            node: parse_name(node)?,
            plugin: parse_name(plugin)?,
            plugin_version: version.into(),
        })),
        _ => Ok(None),
    }
}

fn text<'r>(row: &'r Row<'_>, column: usize) -> Result<Option<&'r str>, StatementError> {
    let value = row.get_ref(column)?;
    Ok(value.as_str_or_null().map_err(rusqlite::Error::from)?)
}
