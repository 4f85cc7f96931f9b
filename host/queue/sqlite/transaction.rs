//! The transitions of tasks, each within a transaction that the writer has begun: database and index
//! change together. Begins and commits nothing. After an error the index may be ahead of the database,
//! and the writer has it loaded again.

use super::{
    clock::Clock,
    damage::Damage,
    encoding::{
        SymbolId, millis, parse_name, read_bytes, read_metadata, write_metadata, write_progress,
    },
    index::Index,
    offers::{HandedOff, Offers},
    room::TooManyPending,
    route_index::RouteIndex,
    running::ActiveLease,
    statements::Statements,
    take_due::Taken,
};
use crate::{
    lease_request::LeaseRequest,
    task_cache::{self, Snapshot, TaskCache},
    task_queue::{Expired, LeaseToken, Leased, Renew, Renewal, Submitted},
    watch::Change,
};
use hostel_sqlite::StatementError;
use hostel_task::{
    Name, Route, Spent, StateKind, Submission, Task, TaskId, TaskOptions, UnixMs, is_suspect,
};
use rusqlite::{Connection, params};
use std::{sync::Arc, time::Duration};

pub(super) struct Transaction<'c> {
    pub conn: &'c Connection,
    pub statements: Statements<'c>,
    pub index: Index,
    /// What the running transaction changes, for watchers.
    pub changes: Vec<Change>,
    /// What the running transaction makes of tasks: at least one entry for each that it changes.
    pub snapshots: Vec<Snapshot>,
    /// The lengths of `changes` and `snapshots` at the latest savepoint.
    pub savepoint: (usize, usize),
    /// As of the previous transaction.
    pub task_cache: Arc<TaskCache>,
    pub clock: Arc<Clock>,
    /// Why the disk has no room for the new tasks of this transaction.
    pub refusal: Option<Arc<str>>,
    /// The index may differ from the database, although nothing failed.
    pub must_reload: bool,
    /// Where a request waits for tasks.
    pub offers: Arc<Offers>,
    /// What the running transaction leases to it.
    pub handed_off: Option<HandedOff>,
    /// Whether the running transaction makes tasks pending.
    pub has_pending: bool,
    max_open: usize,
}

/// A pending task that is about to be leased.
struct Waiting {
    leased: Leased,
    fence: i64,
    losses: u32,
    /// Known for a task that was never leased and is in the submit cache.
    submitted_at: Option<UnixMs>,
}

impl<'c> Transaction<'c> {
    pub fn open(
        conn: &'c Connection,
        max_open: usize,
        task_cache: Arc<TaskCache>,
        clock: Arc<Clock>,
        offers: Arc<Offers>,
    ) -> Result<Self, StatementError> {
        let mut tx = Self {
            conn,
            statements: Statements::prepare(conn)?,
            index: Index::default(),
            changes: Vec::new(),
            snapshots: Vec::new(),
            savepoint: (0, 0),
            task_cache,
            clock,
            refusal: None,
            must_reload: false,
            offers,
            handed_off: None,
            has_pending: false,
            max_open,
        };
        tx.reload()?;
        Ok(tx)
    }

    pub fn forget_changes(&mut self) {
        self.handed_off = None;
        self.has_pending = false;
        self.changes.clear();
        self.snapshots.clear();
    }

    /// Loads the index from the database. Damaged records are marked.
    pub fn reload(&mut self) -> Result<(), StatementError> {
        self.must_reload = false;
        // A second time for the damaged records, and a third for those that they hid.
        for _ in 0..3 {
            let (index, damaged) = Index::load(self.conn)?;
            let before = std::mem::replace(&mut self.index, index);
            self.index.succeed(before);
            if damaged.is_empty() {
                return Ok(());
            }
            self.write_marks(&damaged)?;
        }
        Err(StatementError::Corrupt(
            "marking damaged tasks does not mend their records".into(),
        ))
    }

    /// Stores tasks. The inner error is the reason why the disk has no room for them.
    pub fn submit(
        &mut self,
        tasks: &[Submission],
    ) -> Result<Result<Vec<Submitted>, Arc<str>>, StatementError> {
        let now = self.clock.now();
        if let Some(reason) = self.refusal.clone() {
            return Ok(self.find_stored(tasks, now)?.ok_or(reason));
        }
        let submitted = tasks.iter().map(|task| self.submit_one(task, now));
        Ok(Ok(submitted.collect::<Result<_, _>>()?))
    }

    /// Returns the answers if no task is new.
    fn find_stored(
        &mut self,
        tasks: &[Submission],
        now: i64,
    ) -> Result<Option<Vec<Submitted>>, StatementError> {
        let mut answers = Vec::with_capacity(tasks.len());
        for task in tasks {
            answers.push(self.stored_answer(task, now)?);
        }
        Ok(answers.into_iter().collect())
    }

    fn submit_one(&mut self, task: &Submission, now: i64) -> Result<Submitted, StatementError> {
        let options = task.options().map(|options| &**options);
        let unique = options.and_then(|options| options.unique.as_ref());
        let is_full = self.index.open >= self.max_open;
        if (is_full || unique.is_some())
            && let Some(stored) = self.stored_answer(task, now)?
        {
            return Ok(stored);
        }
        if is_full {
            return Ok(Submitted::Full);
        }
        if let Some(limit) = self.index.too_many_pending(task) {
            let stored = self.stored_answer(task, now)?;
            return Ok(stored.unwrap_or(match limit {
                TooManyPending::OfType => Submitted::TypeFull,
                TooManyPending::OfGroup => Submitted::GroupFull,
            }));
        }
        let submitted_at = self.clock.to_wall(now);
        let route = self.route_symbol(task.route())?;
        let metadata = write_metadata(task.metadata());
        let seq = self.index.next_seq;
        let id = task.id().as_str();
        let (due, start_by) = options.map_or((now, None), |options| self.times(options, now));
        let values = params![seq, id, route, due, first_fence(seq), now];
        if self.statements.insert_task.execute(values)? == 0 {
            let stored = self.stored_answer(task, now)?;
            return stored.ok_or_else(|| {
                StatementError::Corrupt(format!("the id {id} is taken by no task"))
            });
        }
        let body = params![seq, metadata, &task.payload()[..]];
        self.statements.insert_body.execute(body)?;
        if let Some(options) = options {
            self.store_options(seq, options, start_by)?;
        }
        if let Some(unique) = unique {
            self.take_key(task.id(), task.task_type(), unique, now)?;
        }
        self.index.next_seq += 1;
        self.index.count(route, None, Some(StateKind::Pending))?;
        self.index
            .insert_pending(route, (due, seq), 0, options, start_by)?;
        // What is leased much later would keep others out of the cache.
        if due == now {
            self.index.submit_cache.insert(seq, task, submitted_at);
        }
        self.changed(task.id(), task.task_type().clone(), StateKind::Pending);
        self.describe_change(0, None, group_of(options));
        let due_at = options.map_or(submitted_at, |_| self.clock.to_wall(due));
        self.known(task_cache::submitted(task, submitted_at, due_at));
        Ok(Submitted::Created)
    }

    pub fn lease(&mut self, request: &LeaseRequest) -> Result<Vec<Leased>, StatementError> {
        let now = self.clock.now();
        let until = now.saturating_add(millis(request.ttl));
        let (leased_at, lease_until) = (self.clock.to_wall(now), self.clock.to_wall(until));
        let node = self.symbol(request.node.as_str())?;
        let taken = self.index.take_due(request, node, now);
        self.store_rates(request, now)?;
        if taken.is_empty() {
            return Ok(Vec::new());
        }
        let mut leased = Vec::with_capacity(taken.len());
        for taken in taken {
            let Taken { route, seq, .. } = taken;
            let waiting = match self.read_waiting(&taken) {
                Ok(waiting) => waiting,
                Err(error) => {
                    self.mark_taken(Damage::of(seq, error)?, route, StateKind::Pending)?;
                    continue;
                }
            };
            let (task, fence) = (waiting.leased, waiting.fence);
            let values = params![seq, until, fence, task.attempt, now, node];
            self.statements.lease.execute(values)?;
            let lease = ActiveLease {
                seq,
                fence,
                route,
                node,
                attempt: task.attempt,
                lease_until: until,
                cancel_requested: false,
                cancel_reason: None,
                losses: waiting.losses,
                options: task.options.clone(),
                has_progress: false,
            };
            let id = task.token.id.clone();
            self.changed(&id, task.task_type.clone(), StateKind::Running);
            let group = group_of(task.options.as_deref());
            self.describe_change(task.attempt, Some(&request.node), group);
            self.index.running.insert(id, lease);
            let (from, to) = (Some(StateKind::Pending), Some(StateKind::Running));
            self.index.count(route, from, to)?;
            if let Some(submitted_at) = waiting.submitted_at {
                let node = request.node.clone();
                let target = self.index.route_mut(route)?.route.target.clone();
                let times = [submitted_at, leased_at, lease_until];
                self.known(task_cache::first_leased(&task, target, node, times));
            }
            leased.push(task);
        }
        Ok(leased)
    }

    /// Stores what the lease of a request has spent of rates.
    fn store_rates(&mut self, request: &LeaseRequest, now: i64) -> Result<(), StatementError> {
        let now = u64::try_from(now).unwrap_or_default();
        for ((task_type, group), spent) in self.index.rates.changes(request, now) {
            let (task_type, group) = (task_type.as_str(), group.as_ref().map_or("", Name::as_str));
            let Some(Spent { units, at }) = spent else {
                self.statements.delete_rate.execute([task_type, group])?;
                continue;
            };
            // No rate has as many units, and no clock goes as far.
            let [units, at] = [units, at].map(|number| i64::try_from(number).unwrap_or(i64::MAX));
            let values = params![task_type, group, units, at];
            self.statements.store_rate.execute(values)?;
        }
        Ok(())
    }

    fn read_waiting(&mut self, taken: &Taken) -> Result<Waiting, StatementError> {
        let &Taken { route, seq, .. } = taken;
        let task_type = self.index.route_mut(route)?.route.task_type.clone();
        if let Some(cached) = self.index.submit_cache.remove(seq) {
            let fence = first_fence(seq) + 1;
            return Ok(Waiting {
                leased: Leased {
                    token: token(cached.id, fence),
                    task_type,
                    payload: cached.payload,
                    metadata: cached.metadata,
                    options: cached.options,
                    attempt: 1,
                    suspect: false,
                },
                fence,
                losses: 0,
                submitted_at: Some(cached.submitted_at),
            });
        }
        let options = taken.has_options.then(|| self.read_options(seq));
        let options = options.transpose()?;
        let mut rows = self.statements.waiting.query([seq])?;
        let row = rows.next()?;
        let row =
            row.ok_or_else(|| StatementError::Corrupt(format!("task number {seq} is missing")))?;
        let id = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
        let (fence, losses) = (row.get::<_, i64>(2)? + 1, row.get(5)?);
        Ok(Waiting {
            leased: Leased {
                token: token(parse_name(id)?, fence),
                task_type,
                payload: read_bytes(row.get_ref(4)?)?,
                metadata: read_metadata(row.get_ref(3)?)?,
                options,
                attempt: row.get::<_, u32>(1)?.saturating_add(1),
                suspect: is_suspect(losses),
            },
            fence,
            losses,
            submitted_at: None,
        })
    }

    pub fn renew(
        &mut self,
        leases: &[Renew],
        ttl: Duration,
    ) -> Result<Vec<Renewal>, StatementError> {
        let until = self.clock.now().saturating_add(millis(ttl));
        let mut answers = Vec::with_capacity(leases.len());
        for Renew { token, progress } in leases {
            let Some(lease) = self.index.lease_of(token) else {
                answers.push(Renewal::Lost);
                continue;
            };
            lease.lease_until = until;
            lease.has_progress |= progress.is_some();
            answers.push(if lease.cancel_requested {
                Renewal::CancelRequested
            } else {
                Renewal::Held
            });
            let seq = lease.seq;
            self.statements.set_at.execute([seq, until])?;
            if let Some(progress) = progress {
                let reported = params![seq, write_progress(progress)];
                self.statements.set_progress.execute(reported)?;
            }
            self.snapshots.push((token.id.clone(), None));
        }
        Ok(answers)
    }

    /// Finds expired leases in the index, without a look at the database.
    pub fn expired(&mut self, except: &[Name], max: usize) -> Result<Vec<Expired>, StatementError> {
        let now = self.clock.now();
        let running = self.index.running.iter();
        let mut late: Vec<_> = running
            .filter(|(_, lease)| lease.lease_until < now)
            .collect();
        late.sort_unstable_by_key(|(_, lease)| (lease.lease_until, lease.seq));
        let expired = late.into_iter().filter_map(|(id, lease)| {
            let task_type = &self.index.routes.get(&lease.route)?.route.task_type;
            (!except.contains(task_type)).then(|| Expired {
                token: token(id.clone(), lease.fence),
                task_type: task_type.clone(),
                options: lease.options.clone(),
                attempt: lease.attempt,
                losses: lease.losses,
                cancel_requested: lease.cancel_requested,
            })
        });
        Ok(expired.take(max).collect())
    }

    /// Counts a change of state and notes it for watchers.
    pub fn moved(
        &mut self,
        id: &TaskId,
        route: SymbolId,
        from: StateKind,
        to: StateKind,
    ) -> Result<(), StatementError> {
        self.index.count(route, Some(from), Some(to))?;
        let task_type = self.index.route_mut(route)?.route.task_type.clone();
        self.changed(id, task_type, to);
        Ok(())
    }

    /// Notes what a task is after its change, where that is known without reading it.
    pub fn known(&mut self, task: Task) {
        let task = Arc::new(task);
        match self.snapshots.last_mut() {
            // `changed` has just noted that it is not known.
            Some((id, unknown @ None)) if *id == task.id => *unknown = Some(task),
            _ => self.snapshots.push((task.id.clone(), Some(task))),
        }
    }

    pub fn changed(&mut self, id: &TaskId, task_type: Name, state: StateKind) {
        self.has_pending |= state == StateKind::Pending;
        self.snapshots.push((id.clone(), None));
        self.changes.push(Change::new(id.clone(), task_type, state));
    }

    /// Adds to the latest change which attempt it is about, and the group of its task.
    pub fn describe_change(&mut self, attempt: u32, node: Option<&Name>, group: Option<&Name>) {
        if let Some(change) = self.changes.last_mut() {
            change.attempt = attempt;
            change.node = node.cloned();
            change.group = group.cloned();
        }
    }

    /// Returns the symbol of a text, which is stored if it is new.
    pub fn symbol(&mut self, text: &str) -> Result<SymbolId, StatementError> {
        if let Some(&symbol) = self.index.symbols.get(text) {
            return Ok(symbol);
        }
        let symbol = 1 + self.index.symbols.values().max().copied().unwrap_or(0);
        self.statements
            .insert_symbol
            .execute(params![symbol, text])?;
        self.index.symbols.insert(text.into(), symbol);
        Ok(symbol)
    }

    fn route_symbol(&mut self, route: &Route) -> Result<SymbolId, StatementError> {
        let symbol = self.symbol(&route.to_string())?;
        let entry = self.index.routes.entry(symbol);
        entry.or_insert_with(|| RouteIndex::new(route.clone()));
        Ok(symbol)
    }
}

/// Returns the group of a task with these options.
pub(super) fn group_of(options: Option<&TaskOptions>) -> Option<&Name> {
    options.and_then(|options| options.group.as_ref())
}

/// The fence before the first lease. Each task has 2^20 fences of its own, so that a task that is
/// submitted again after a purge never gets an old one.
fn first_fence(seq: i64) -> i64 {
    seq << 20
}

fn token(id: TaskId, fence: i64) -> LeaseToken {
    // Fences are positive.
    let fence = fence.unsigned_abs();
    LeaseToken { id, fence }
}
