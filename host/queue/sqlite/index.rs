//! The pending and running tasks, in the memory of the writer's thread: an index over the database,
//! loaded from it at start and after every failure. The database is authoritative. Runs no SQL except
//! to load.

use super::{
    backlog::QueuePosition,
    damage::Damage,
    encoding::{SymbolId, parse_name, parse_route, read_current_options, state_kind},
    heads::Heads,
    placement::{Placement, Placements},
    rates::Rates,
    route_index::RouteIndex,
    running::{ActiveLease, Running},
    submit_cache::SubmitCache,
};
use crate::task_queue::LeaseToken;
use hostel_sqlite::StatementError;
use hostel_task::{
    GroupLimits, Name, PausedTypes, Priority, StateKind, TaskOptions, TypePause, UnixMs,
};
use rusqlite::{Connection, Row, types::Value};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

#[derive(Default)]
pub(super) struct Index {
    pub symbols: HashMap<Box<str>, SymbolId>,
    pub routes: HashMap<SymbolId, RouteIndex>,
    pub running: Running,
    /// What the rates of types and groups have given out.
    pub rates: Rates,
    /// The node of the latest lease. What limits leave is for one node.
    pub latest_node: SymbolId,
    /// The limits of the groups of each type at the latest lease, of the types that have some.
    pub group_limits: HashMap<Name, Arc<GroupLimits>>,
    /// Routes that changed since this set was last drained.
    pub changed_routes: HashSet<SymbolId>,
    pub heads: Heads,
    /// The pending tasks with options.
    pub placements: Placements,
    pub submit_cache: SubmitCache,
    pub paused: Arc<PausedTypes>,
    pub next_seq: i64,
    /// The number of pending and running tasks.
    pub open: usize,
    /// The number of the next lease, by which priorities take turns.
    pub leases: u64,
}

impl Index {
    /// Loads the index, and returns the records that cannot be read beside it.
    pub fn load(conn: &Connection) -> Result<(Self, Vec<Damage>), StatementError> {
        let (mut index, mut damaged) = (Self::default(), Vec::new());
        let mut rows = conn.prepare("SELECT word, text FROM word")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            // A symbol that cannot be read counts as missing.
            if let (Ok(text), Ok(symbol)) = (row.get(1), row.get(0)) {
                index.symbols.insert(text, symbol);
            }
        }
        index.next_seq = conn.query_row(
            "SELECT max(next_seq, 1 + (SELECT ifnull(max(seq), 0) FROM task)) FROM meta",
            [],
            |row| row.get(0),
        )?;
        index.paused = Arc::new(load_paused(conn)?);
        index.load_counts(conn, &mut damaged)?;
        // The time to begin by is for the first attempt only.
        let pending = "SELECT seq, type, at, losses, options,
                 CASE WHEN started_at IS NULL THEN start_by END, priority
             FROM task LEFT JOIN task_options USING (seq) WHERE state = 0";
        index.load_rows(conn, pending, &mut damaged, Self::load_pending)?;
        let running = "SELECT seq, type, id, fence, attempt, at, cancel_asked, losses, options,
                 priority, cancel_reason, ifnull(node, 0)
             FROM task LEFT JOIN task_options USING (seq) WHERE state = 1";
        index.load_rows(conn, running, &mut damaged, Self::load_running)?;
        index.changed_routes = index.routes.keys().copied().collect();
        index.rates = Rates::load(conn)?;
        Ok((index, damaged))
    }

    /// Takes over what the database does not have of the previous index: the number of leases, and the
    /// routes. That they are empty now is a change, too.
    pub fn succeed(&mut self, before: Self) {
        self.leases = before.leases;
        self.rates.succeed(before.rates);
        for (symbol, route) in before.routes {
            let empty = || RouteIndex::new(route.route);
            self.routes.entry(symbol).or_insert_with(empty);
            self.changed_routes.insert(symbol);
        }
    }

    /// Loads rows that begin with a sequence number, and notes which of them are damaged.
    fn load_rows(
        &mut self,
        conn: &Connection,
        query: &str,
        damaged: &mut Vec<Damage>,
        load: impl Fn(&mut Self, &Row<'_>, i64) -> Result<(), StatementError>,
    ) -> Result<(), StatementError> {
        let mut rows = conn.prepare(query)?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let seq = row.get(0)?;
            if let Err(error) = load(self, row, seq) {
                damaged.push(Damage::of(seq, error)?);
            }
        }
        Ok(())
    }

    fn load_pending(&mut self, row: &Row<'_>, seq: i64) -> Result<(), StatementError> {
        let (route, at, losses) = (row.get(1)?, row.get(2)?, row.get(3)?);
        let options = read_current_options(row.get_ref(4)?, row.get_ref(6)?)?;
        self.insert_pending(route, (at, seq), losses, options.as_deref(), row.get(5)?)
    }

    fn load_running(&mut self, row: &Row<'_>, seq: i64) -> Result<(), StatementError> {
        let id = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
        let lease = ActiveLease {
            seq,
            route: row.get(1)?,
            fence: row.get(3)?,
            attempt: row.get(4)?,
            lease_until: row.get(5)?,
            cancel_requested: row.get(6)?,
            losses: row.get(7)?,
            options: read_current_options(row.get_ref(8)?, row.get_ref(9)?)?,
            cancel_reason: row.get(10)?,
            node: row.get(11)?,
            has_progress: false,
        };
        self.route_mut(lease.route)?;
        self.running.insert(parse_name(id)?, lease);
        Ok(())
    }

    fn load_counts(
        &mut self,
        conn: &Connection,
        damaged: &mut Vec<Damage>,
    ) -> Result<(), StatementError> {
        let mut in_group = conn.prepare("SELECT seq FROM task WHERE type IS ?1 AND state IS ?2")?;
        let mut rows = conn.prepare(
            "SELECT type, state, count(*), (SELECT text FROM word WHERE word = type)
             FROM task GROUP BY state, type",
        )?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let Err(error) = self.load_count(row) else {
                continue;
            };
            let group: [Value; 2] = [row.get(0)?, row.get(1)?];
            let reason = error.to_string();
            // Returns an error of another kind.
            Damage::of(0, error)?;
            let mut seqs = in_group.query(rusqlite::params_from_iter(group))?;
            while let Some(row) = seqs.next()? {
                damaged.push(Damage::new(row.get(0)?, &reason));
            }
        }
        Ok(())
    }

    fn load_count(&mut self, row: &Row<'_>) -> Result<(), StatementError> {
        let symbol = row.get(0)?;
        let state = state_kind(row.get(1)?)?;
        let count: u32 = row.get(2)?;
        let text = row.get_ref(3)?;
        let text = text.as_str_or_null().map_err(rusqlite::Error::from)?;
        let text =
            text.ok_or_else(|| StatementError::Corrupt(format!("there is no type {symbol}")))?;
        let route = parse_route(text)?;
        let entry = self.routes.entry(symbol);
        entry.or_insert_with(|| RouteIndex::new(route)).counts[state as usize] = count.into();
        if !state.is_terminal() {
            self.open += usize::try_from(count).unwrap_or(usize::MAX);
        }
        Ok(())
    }

    /// Returns a route for a change.
    pub fn route_mut(&mut self, symbol: SymbolId) -> Result<&mut RouteIndex, StatementError> {
        self.changed_routes.insert(symbol);
        self.heads.stale.insert(symbol);
        self.routes
            .get_mut(&symbol)
            .ok_or_else(|| StatementError::Corrupt(format!("a task has the unknown type {symbol}")))
    }

    /// Returns the lease that `token` still holds.
    pub fn lease_of(&mut self, token: &LeaseToken) -> Option<&mut ActiveLease> {
        self.running
            .get_mut(&token.id)
            .filter(|lease| u64::try_from(lease.fence) == Ok(token.fence))
    }

    /// Adds a pending task that was lost `losses` times, and whose first attempt may have to begin by a
    /// time.
    pub fn insert_pending(
        &mut self,
        route: SymbolId,
        position: QueuePosition,
        losses: u32,
        options: Option<&TaskOptions>,
        start_by: Option<i64>,
    ) -> Result<(), StatementError> {
        let entry = self.route_mut(route)?;
        let Some(options) = options else {
            entry.insert(position, losses, Priority::Normal, None);
            return Ok(());
        };
        let (priority, group) = (options.priority, options.group.as_ref());
        entry.insert(position, losses, priority, group);
        let placement = Placement::new(route, position, options, start_by);
        self.placements.insert(placement);
        Ok(())
    }

    /// Removes a pending task.
    pub fn remove_pending(
        &mut self,
        route: SymbolId,
        position: QueuePosition,
        losses: u32,
    ) -> Result<(), StatementError> {
        let placement = self.placements.remove(position.1);
        let (priority, group) = placement
            .as_ref()
            .map_or_else(Default::default, |it| (it.priority, it.group.as_ref()));
        let entry = self.route_mut(route)?;
        entry.remove(position, losses, priority, group);
        Ok(())
    }

    /// Moves a pending task to another due time, and to another priority if one is given.
    pub fn move_pending(
        &mut self,
        route: SymbolId,
        from: QueuePosition,
        due: i64,
        losses: u32,
        priority: Option<Priority>,
    ) -> Result<(), StatementError> {
        let known = self.placements.remove(from.1);
        let is_known = known.is_some();
        let plain = || Placement::new(route, from, &TaskOptions::default(), None);
        let mut placement = known.unwrap_or_else(plain);
        let entry = self.route_mut(route)?;
        let group = placement.group.as_ref();
        entry.remove(from, losses, placement.priority, group);
        placement.position = (due, from.1);
        placement.priority = priority.unwrap_or(placement.priority);
        entry.insert(placement.position, losses, placement.priority, group);
        if is_known || priority.is_some() {
            self.placements.insert(placement);
        }
        Ok(())
    }

    /// Counts a task that changed its state; `None` means that it was not, or is no longer, stored.
    pub fn count(
        &mut self,
        route: SymbolId,
        from: Option<StateKind>,
        to: Option<StateKind>,
    ) -> Result<(), StatementError> {
        let counts = &mut self.route_mut(route)?.counts;
        if let Some(from) = from {
            let count = &mut counts[from as usize];
            *count = count.saturating_sub(1);
        }
        if let Some(to) = to {
            counts[to as usize] += 1;
        }
        let is_open = |state: Option<StateKind>| state.is_some_and(|state| !state.is_terminal());
        match (is_open(from), is_open(to)) {
            (false, true) => self.open += 1,
            (true, false) => self.open = self.open.saturating_sub(1),
            _ => {}
        }
        Ok(())
    }
}

/// Reads the paused types. A row that cannot be read pauses nothing.
fn load_paused(conn: &Connection) -> rusqlite::Result<PausedTypes> {
    let mut rows = conn.prepare("SELECT type, since, reason FROM paused_type")?;
    let mut rows = rows.query([])?;
    let mut paused = PausedTypes::new();
    while let Some(row) = rows.next()? {
        let (Ok(task_type), Ok(since), Ok(reason)) =
            (row.get::<_, String>(0), row.get::<_, i64>(1), row.get(2))
        else {
            continue;
        };
        let since = UnixMs(u64::try_from(since).unwrap_or(0));
        if let Ok(task_type) = Name::parse("task type", &task_type) {
            paused.insert(task_type, TypePause { since, reason });
        }
    }
    Ok(paused)
}
