//! Which tasks are on a page of a list that no index answers: those of a node, a plugin, a version or a time.
//! Looks at the tasks that the rest of the filter selects, newest first, for a bounded time.

use super::{
    clock::Clock,
    listing::{self, Selected},
};
use crate::task_queue::Filter;
use hostel_sqlite::StatementError;
use hostel_task::{Name, StateKind};
use rusqlite::{CachedStatement, Connection, OptionalExtension};
use std::time::{Duration, Instant};

/// How long tasks are looked at for one page. Reading those that were found takes some time more.
const SEARCH_TIME: Duration = Duration::from_millis(15);

/// How many tasks are selected at once.
const STEP: usize = 256;

/// What tasks have to be, in terms of the database.
struct Search<'c> {
    clock: &'c Clock,
    filter: &'c Filter,
    /// The symbols of node, plugin and version.
    symbols: [Option<i64>; 3],
    /// No task that was submitted before this is selected, by the queue's time.
    from: i64,
    row: CachedStatement<'c>,
}

/// What a look at a task says.
enum Look {
    Selected,
    Other,
    /// Neither this one nor any older task is selected.
    TooOld,
}

/// Selects the newest `size` tasks before number `before` that match the filter. At least one task is looked
/// at, so that the next page goes on behind it.
pub(super) fn select(
    conn: &Connection,
    clock: &Clock,
    filter: &Filter,
    size: usize,
    before: i64,
) -> Result<Selected, StatementError> {
    let since = Instant::now();
    let Some(mut search) = Search::new(conn, clock, filter)? else {
        return Ok(Selected::default());
    };
    let mut before = search.skip_newer(conn, before)?;
    let mut seqs = Vec::new();
    loop {
        let step = listing::select(conn, filter, STEP, before)?;
        for seq in step.seqs {
            match search.look_at(seq)? {
                Look::Selected => seqs.push(seq),
                Look::Other => {}
                Look::TooOld => return Ok(Selected { seqs, next: None }),
            }
            if seqs.len() == size || since.elapsed() > SEARCH_TIME {
                let next = Some(seq);
                return Ok(Selected { seqs, next });
            }
        }
        match step.next {
            Some(next) if since.elapsed() <= SEARCH_TIME => before = next,
            next => return Ok(Selected { seqs, next }),
        }
    }
}

impl<'c> Search<'c> {
    /// Prepares a search; `None` if the database does not know one of the names, so that no task has it.
    fn new(
        conn: &'c Connection,
        clock: &'c Clock,
        filter: &'c Filter,
    ) -> Result<Option<Self>, StatementError> {
        let texts = [
            filter.node.as_ref().map(Name::as_str),
            filter.plugin.as_ref().map(Name::as_str),
            filter.plugin_version.as_deref(),
        ];
        let mut find = conn.prepare_cached("SELECT word FROM word WHERE text = ?1")?;
        let mut symbols = [None; 3];
        for (symbol, text) in symbols.iter_mut().zip(texts) {
            let Some(text) = text else { continue };
            *symbol = find.query_row([text], |row| row.get(0)).optional()?;
            if symbol.is_none() {
                return Ok(None);
            }
        }
        let from = filter.submitted.from;
        Ok(Some(Self {
            clock,
            filter,
            symbols,
            from: from.map_or(i64::MIN, |time| clock.moments_of(time).0),
            row: conn.prepare_cached(
                "SELECT state, at, submitted_at, node, ran_node, ran_plugin, ran_version
                 FROM task WHERE seq = ?1",
            )?,
        }))
    }

    /// Returns a number up to `before` from which on no task was submitted in time. Numbers are in the order
    /// of submission.
    fn skip_newer(&self, conn: &Connection, before: i64) -> Result<i64, StatementError> {
        let Some(until) = self.filter.submitted.until else {
            return Ok(before);
        };
        let (_, until) = self.clock.moments_of(until);
        let mut newest = conn.prepare_cached(
            "SELECT seq, submitted_at FROM task WHERE seq <= ?1 ORDER BY seq DESC LIMIT 1",
        )?;
        let mut up_to = |seq: i64| {
            let found = newest.query_row([seq], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1).ok()))
            });
            found.optional()
        };
        // Every task above `high` is too new, and no task up to `low` is known to be.
        let (mut low, mut high) = (0, before.saturating_sub(1));
        if let Some((newest, _)) = up_to(high)? {
            high = newest;
        }
        while low < high {
            let middle = low + (high - low + 1) / 2;
            match up_to(middle)? {
                Some((seq, Some(at))) if at >= until => high = seq - 1,
                _ => low = middle,
            }
        }
        Ok(low.saturating_add(1))
    }

    fn look_at(&mut self, seq: i64) -> Result<Look, StatementError> {
        let mut rows = self.row.query([seq])?;
        let Some(row) = rows.next()? else {
            return Ok(Look::Other);
        };
        // What is damaged is not selected.
        let number = |column: usize| row.get::<_, Option<i64>>(column).ok().flatten();
        let (Some(state), Some(submitted_at)) = (number(0), number(2)) else {
            return Ok(Look::Other);
        };
        if submitted_at < self.from {
            return Ok(Look::TooOld);
        }
        let node = if state == StateKind::Running as i64 {
            3
        } else {
            4
        };
        let columns = [node, 5, 6];
        let has_symbols = self.symbols.iter().zip(columns);
        let mut has_symbols = has_symbols.filter(|(symbol, _)| symbol.is_some());
        let (submitted, finished) = (&self.filter.submitted, &self.filter.finished);
        let has_finished = || {
            let has_ended = state >= StateKind::Completed as i64;
            let at = number(1).filter(|_| has_ended);
            at.is_some_and(|at| finished.contains(self.clock.to_wall(at)))
        };
        let is_selected = has_symbols.all(|(symbol, column)| *symbol == number(column))
            && submitted.contains(self.clock.to_wall(submitted_at))
            && (finished.is_all() || has_finished());
        Ok(if is_selected {
            Look::Selected
        } else {
            Look::Other
        })
    }
}
