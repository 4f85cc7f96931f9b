//! The pending and running tasks, in the memory of the writer's thread: an index over the database,
//! loaded from it at start and after every failure. The database is authoritative. Runs no SQL except
//! to load.

use super::{
    damage::Damage,
    encoding::{SymbolId, parse_name, parse_route, state_kind},
    submit_cache::SubmitCache,
};
use crate::{lease_request::LeaseRequest, task_queue::LeaseToken};
use hostel_sqlite::StatementError;
use hostel_task::{Name, Route, StateKind, TaskId, is_suspect};
use rusqlite::{Connection, Row, types::Value};
use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap, HashSet},
};

#[derive(Default)]
pub(super) struct Index {
    pub symbols: HashMap<Box<str>, SymbolId>,
    pub routes: HashMap<SymbolId, RouteIndex>,
    pub running: HashMap<TaskId, ActiveLease>,
    /// Routes that changed since this set was last drained.
    pub changed_routes: HashSet<SymbolId>,
    /// The first pending task of each route, and the first suspect; out of date for `stale_heads`.
    heads: BTreeSet<(QueuePosition, SymbolId, bool)>,
    stale_heads: HashSet<SymbolId>,
    pub submit_cache: SubmitCache,
    pub next_seq: i64,
    /// The number of pending and running tasks.
    pub open: usize,
}

/// The tasks of one route.
pub(super) struct RouteIndex {
    pub route: Route,
    /// Ordered by due time, then by submission. Suspects are apart, in the second set.
    pending: [BTreeSet<QueuePosition>; 2],
    pub counts: [u64; 5],
    /// What `Index::heads` has of this route.
    heads: [Option<QueuePosition>; 2],
}

/// When a task is due, and its sequence number.
type QueuePosition = (i64, i64);

/// The lease of a running task.
#[derive(Debug, Clone)]
pub(super) struct ActiveLease {
    pub seq: i64,
    pub fence: i64,
    pub route: SymbolId,
    pub attempt: u32,
    pub lease_until: i64,
    pub cancel_requested: bool,
    pub losses: u32,
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
        index.load_counts(conn, &mut damaged)?;
        let pending = "SELECT seq, type, at, losses FROM task WHERE state = 0";
        index.load_rows(conn, pending, &mut damaged, Self::load_pending)?;
        let running = "SELECT seq, type, id, fence, attempt, at, cancel_asked, losses FROM task
             WHERE state = 1";
        index.load_rows(conn, running, &mut damaged, Self::load_running)?;
        index.changed_routes = index.routes.keys().copied().collect();
        Ok((index, damaged))
    }

    /// Keeps the routes of the previous index: that they are empty now is a change, too.
    pub fn keep_routes(&mut self, before: Self) {
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
        let (at, losses) = (row.get(2)?, row.get(3)?);
        self.route_mut(row.get(1)?)?.insert((at, seq), losses);
        Ok(())
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
        self.stale_heads.insert(symbol);
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

    /// Removes the tasks that are to be leased from what is pending: those due by `now`, oldest first,
    /// within the limits of the request and the concurrency limits of their types, and at most one
    /// suspect. Returns their routes and sequence numbers.
    pub fn take_due(&mut self, request: &LeaseRequest, now: i64) -> Vec<(SymbolId, i64)> {
        self.update_heads();
        let (mut heads, mut remaining) = self.due_heads(request, now);
        let (mut taken, mut available) = (Vec::new(), request.available);
        let mut has_suspect = false;
        while taken.len() < request.max {
            let Some(Reverse((first, symbol, suspect))) = heads.pop() else {
                break;
            };
            let Some(entry) = self.routes.get_mut(&symbol) else {
                continue;
            };
            let task_type = &entry.route.task_type;
            let of_type = remaining.get_mut(task_type).filter(|count| **count > 0);
            let needs = request.types.get(task_type).map(|limits| limits.needs);
            let rest = needs.and_then(|needs| available.checked_sub(needs));
            // Otherwise tasks of other types may still fit.
            let (Some(count), Some(rest), false) = (of_type, rest, suspect && has_suspect) else {
                continue;
            };
            *count -= 1;
            (available, has_suspect) = (rest, has_suspect || suspect);
            let pending = &mut entry.pending[usize::from(suspect)];
            pending.remove(&first);
            taken.push((symbol, first.1));
            let next = pending.first().filter(|next| next.0 <= now);
            heads.extend(next.map(|&next| Reverse((next, symbol, suspect))));
            self.changed_routes.insert(symbol);
            self.stale_heads.insert(symbol);
        }
        taken
    }

    /// Returns the heads that are due and requested, and how many more tasks of each type may run.
    fn due_heads(&self, request: &LeaseRequest, now: i64) -> (DueHeads, HashMap<Name, usize>) {
        let (mut heads, mut remaining) = (BinaryHeap::new(), HashMap::new());
        for &(head, symbol, suspect) in self.heads.iter().take_while(|(head, ..)| head.0 <= now) {
            if suspect && !request.allow_suspect {
                continue;
            }
            let Some(route) = self.routes.get(&symbol).map(|entry| &entry.route) else {
                continue;
            };
            let Some(limits) = request.for_route(route) else {
                continue;
            };
            let task_type = &route.task_type;
            if !remaining.contains_key(task_type) {
                let in_cluster = limits.max_cluster_concurrency.map_or(usize::MAX, |max| {
                    max.saturating_sub(self.running_of(task_type))
                });
                let count = request.remaining_of(task_type, limits).min(in_cluster);
                remaining.insert(task_type.clone(), count);
            }
            heads.push(Reverse((head, symbol, suspect)));
        }
        (heads, remaining)
    }

    /// Brings `heads` up to date for the routes that changed.
    fn update_heads(&mut self) {
        for symbol in self.stale_heads.drain() {
            let Some(entry) = self.routes.get_mut(&symbol) else {
                continue;
            };
            for suspect in [false, true] {
                let head = entry.first(suspect);
                let before = &mut entry.heads[usize::from(suspect)];
                if *before == head {
                    continue;
                }
                if let Some(before) = before.take() {
                    self.heads.remove(&(before, symbol, suspect));
                }
                self.heads.extend(head.map(|head| (head, symbol, suspect)));
                *before = head;
            }
        }
    }

    fn running_of(&self, task_type: &Name) -> usize {
        let routes = self.routes.values();
        let of_type = routes.filter(|entry| entry.route.task_type == *task_type);
        let running = of_type.map(|entry| entry.counts[StateKind::Running as usize]);
        usize::try_from(running.sum::<u64>()).unwrap_or(usize::MAX)
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

type DueHeads = BinaryHeap<Reverse<(QueuePosition, SymbolId, bool)>>;

impl RouteIndex {
    pub fn new(route: Route) -> Self {
        Self {
            route,
            pending: Default::default(),
            counts: [0; 5],
            heads: [None; 2],
        }
    }

    /// Adds a pending task that was lost `losses` times.
    pub fn insert(&mut self, position: QueuePosition, losses: u32) {
        self.pending[usize::from(is_suspect(losses))].insert(position);
    }

    pub fn remove(&mut self, position: QueuePosition, losses: u32) {
        self.pending[usize::from(is_suspect(losses))].remove(&position);
    }

    /// Returns the first pending task, of the suspects or of the others.
    pub fn first(&self, suspect: bool) -> Option<QueuePosition> {
        self.pending[usize::from(suspect)].first().copied()
    }
}
