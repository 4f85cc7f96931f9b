//! What waits and what runs, in the writer's memory: an index over the database, made from it at
//! start and after every failure, never the truth. Knows no SQL but its own loading.

use super::{damage::Damage, fresh::Fresh, row::state_kind};
use crate::{LeaseToken, Want};
use hostel_sqlite::Fault;
use hostel_task::{Name, StateKind, TaskId, is_suspect};
use rusqlite::{Connection, Row};
use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap, HashSet},
};

/// A lane's number in the table `word`.
pub(super) type Word = i64;

#[derive(Default)]
pub(super) struct Board {
    pub words: HashMap<Box<str>, Word>,
    pub lanes: HashMap<Word, Lane>,
    pub running: HashMap<TaskId, Hold>,
    /// Lanes that changed since the last look.
    pub touched: HashSet<Word>,
    /// Lanes in which a task waits, by the first of them, and by the first suspect; but for those that
    /// changed since.
    heads: BTreeSet<(Place, Word, bool)>,
    unsorted: HashSet<Word>,
    pub fresh: Fresh,
    pub next_seq: i64,
    /// Pending and running tasks.
    pub open: usize,
}

/// The tasks of one type that the same nodes may take.
pub(super) struct Lane {
    pub key: hostel_task::Lane,
    /// By due time, then in the order of submission; those that are no suspects, and those that are.
    pending: [BTreeSet<Place>; 2],
    pub counts: [u64; 5],
    /// Under which first tasks it stands among the heads.
    sorted: [Option<Place>; 2],
}

/// When a task is due, and its number.
type Place = (i64, i64);

/// A running task.
#[derive(Debug, Clone)]
pub(super) struct Hold {
    pub seq: i64,
    pub fence: i64,
    pub lane: Word,
    pub attempt: u32,
    pub lease_until: i64,
    pub cancel_asked: bool,
    pub losses: u32,
}

impl Board {
    /// The board, and what of the database it cannot take over.
    pub fn load(conn: &Connection) -> Result<(Self, Vec<Damage>), Fault> {
        let (mut board, mut damaged) = (Self::default(), Vec::new());
        let mut rows = conn.prepare("SELECT word, text FROM word")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            // A word that cannot be read explains nothing, as if it were not there.
            if let (Ok(text), Ok(word)) = (row.get(1), row.get(0)) {
                board.words.insert(text, word);
            }
        }
        board.next_seq = conn.query_row(
            "SELECT max(next_seq, 1 + (SELECT ifnull(max(seq), 0) FROM task)) FROM meta",
            [],
            |row| row.get(0),
        )?;
        board.load_counts(conn, &mut damaged)?;
        let mut rows = conn.prepare("SELECT seq, type, at, losses FROM task WHERE state = 0")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            board.load_row(row, &mut damaged, |board, row, seq| {
                let (at, losses) = (row.get(2)?, row.get(3)?);
                board.lane(row.get(1)?)?.wait((at, seq), losses);
                Ok(())
            })?;
        }
        let mut rows = conn.prepare(
            "SELECT seq, type, id, fence, attempt, at, cancel_asked, losses FROM task
             WHERE state = 1",
        )?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            board.load_row(row, &mut damaged, |board, row, seq| {
                let id = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
                let hold = Hold {
                    seq,
                    lane: row.get(1)?,
                    fence: row.get(3)?,
                    attempt: row.get(4)?,
                    lease_until: row.get(5)?,
                    cancel_asked: row.get(6)?,
                    losses: row.get(7)?,
                };
                board.lane(hold.lane)?;
                board.running.insert(parse_name(id)?, hold);
                Ok(())
            })?;
        }
        board.touched = board.lanes.keys().copied().collect();
        Ok((board, damaged))
    }

    /// Keeps the lanes of the board before: that they are empty now is news, too.
    pub fn keep_lanes(&mut self, before: Self) {
        for (word, lane) in before.lanes {
            let kept = || Lane::new(lane.key);
            self.lanes.entry(word).or_insert_with(kept);
            self.touched.insert(word);
        }
    }

    /// Takes over a row that begins with the task's number, or notes what is wrong with it.
    fn load_row(
        &mut self,
        row: &Row<'_>,
        damaged: &mut Vec<Damage>,
        load: impl FnOnce(&mut Self, &Row<'_>, i64) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let seq = row.get(0)?;
        if let Err(fault) = load(self, row, seq) {
            damaged.push(Damage::of(seq, fault)?);
        }
        Ok(())
    }

    fn load_counts(&mut self, conn: &Connection, damaged: &mut Vec<Damage>) -> Result<(), Fault> {
        let mut of_group = conn.prepare("SELECT seq FROM task WHERE type IS ?1 AND state IS ?2")?;
        let mut rows = conn.prepare(
            "SELECT type, state, count(*), (SELECT text FROM word WHERE word = type)
             FROM task GROUP BY state, type",
        )?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let Err(fault) = self.load_count(row) else {
                continue;
            };
            let group: [rusqlite::types::Value; 2] = [row.get(0)?, row.get(1)?];
            let mut seqs = of_group.query(rusqlite::params_from_iter(group))?;
            let what = fault.to_string();
            Damage::of(0, fault)?;
            while let Some(row) = seqs.next()? {
                damaged.push(Damage::new(row.get(0)?, &what));
            }
        }
        Ok(())
    }

    fn load_count(&mut self, row: &Row<'_>) -> Result<(), Fault> {
        let word = row.get(0)?;
        let state = state_kind(row.get(1)?)?;
        let count: u32 = row.get(2)?;
        let text = row
            .get_ref(3)?
            .as_str_or_null()
            .map_err(rusqlite::Error::from)?;
        let text = text.ok_or_else(|| Fault::Corrupt(format!("there is no type {word}")))?;
        let key = parse_lane(text)?;
        let lane = self.lanes.entry(word).or_insert_with(|| Lane::new(key));
        lane.counts[state as usize] = count.into();
        if !state.is_terminal() {
            self.open += usize::try_from(count).unwrap_or(usize::MAX);
        }
        Ok(())
    }

    /// A lane that some task waits in or has waited in.
    pub fn lane(&mut self, word: Word) -> Result<&mut Lane, Fault> {
        self.touched.insert(word);
        self.unsorted.insert(word);
        self.lanes
            .get_mut(&word)
            .ok_or_else(|| Fault::Corrupt(format!("a task has the unknown type {word}")))
    }

    /// The hold that `token` still has.
    pub fn held(&mut self, token: &LeaseToken) -> Option<&mut Hold> {
        self.running
            .get_mut(&token.id)
            .filter(|hold| u64::try_from(hold.fence) == Ok(token.fence))
    }

    /// Takes the tasks that `want` asks for out of what waits: those due by `now`, oldest first,
    /// none beyond the most of their type, none that does not fit into the room, and one suspect.
    pub fn take_due(&mut self, want: &Want, now: i64) -> Vec<(Word, i64)> {
        self.sort_heads();
        // The heads of all lanes that are due and wanted, and how many more of each type there may be.
        let (mut heads, mut left) = (BinaryHeap::new(), HashMap::new());
        for &(head, word, suspect) in self.heads.iter().take_while(|it| it.0.0 <= now) {
            let Some(lane) = self.lanes.get(&word).filter(|_| want.suspect || !suspect) else {
                continue;
            };
            let Some(wanted) = want.of_lane(&lane.key) else {
                continue;
            };
            let task_type = &lane.key.task_type;
            if !left.contains_key(task_type) {
                let running = |max: usize| max.saturating_sub(self.running_of(task_type));
                let in_cluster = wanted.max_in_cluster.map_or(usize::MAX, running);
                let most = want.left_of(task_type, wanted).min(in_cluster);
                left.insert(task_type.clone(), most);
            }
            heads.push(Reverse((head, word, suspect)));
        }
        let (mut taken, mut room, mut has_suspect) = (Vec::new(), want.room, false);
        while taken.len() < want.max {
            let Some(Reverse((first, word, suspect))) = heads.pop() else {
                break;
            };
            let Some(lane) = self.lanes.get_mut(&word) else {
                continue;
            };
            let (task_type, mut more) = (&lane.key.task_type, 0);
            let left = left.get_mut(task_type).unwrap_or(&mut more);
            let needs = want.types.get(task_type).map(|wanted| wanted.needs);
            let rest = needs.and_then(|needs| room.less(needs));
            // Others may still fit, of other types.
            let Some(rest) = rest.filter(|_| *left > 0 && !(suspect && has_suspect)) else {
                continue;
            };
            (room, *left, has_suspect) = (rest, *left - 1, has_suspect || suspect);
            let pending = &mut lane.pending[usize::from(suspect)];
            pending.remove(&first);
            taken.push((word, first.1));
            let next = pending.first().filter(|next| next.0 <= now);
            heads.extend(next.map(|&next| Reverse((next, word, suspect))));
            self.touched.insert(word);
            self.unsorted.insert(word);
        }
        taken
    }

    /// Puts the lanes that changed where their first tasks belong.
    fn sort_heads(&mut self) {
        for word in self.unsorted.drain() {
            let Some(lane) = self.lanes.get_mut(&word) else {
                continue;
            };
            for suspect in [false, true] {
                let head = lane.first(suspect);
                let before = &mut lane.sorted[usize::from(suspect)];
                if *before != head {
                    if let Some(before) = before.take() {
                        self.heads.remove(&(before, word, suspect));
                    }
                    self.heads.extend(head.map(|head| (head, word, suspect)));
                    *before = head;
                }
            }
        }
    }

    fn running_of(&self, task_type: &Name) -> usize {
        let of_type = self
            .lanes
            .values()
            .filter(|lane| lane.key.task_type == *task_type);
        let running: u64 = of_type
            .map(|lane| lane.counts[StateKind::Running as usize])
            .sum();
        usize::try_from(running).unwrap_or(usize::MAX)
    }

    /// Counts a task that went from one state to another; `None` is outside the queue.
    pub fn count(
        &mut self,
        word: Word,
        from: Option<StateKind>,
        to: Option<StateKind>,
    ) -> Result<(), Fault> {
        let lane = self.lane(word)?;
        if let Some(from) = from {
            let slot = &mut lane.counts[from as usize];
            *slot = slot.saturating_sub(1);
        }
        if let Some(to) = to {
            lane.counts[to as usize] += 1;
        }
        let open = |state: Option<StateKind>| state.is_some_and(|state| !state.is_terminal());
        match (open(from), open(to)) {
            (false, true) => self.open += 1,
            (true, false) => self.open = self.open.saturating_sub(1),
            _ => {}
        }
        Ok(())
    }
}

impl Lane {
    /// A task begins to wait that was lost so often.
    pub fn wait(&mut self, place: Place, losses: u32) {
        self.pending[usize::from(is_suspect(losses))].insert(place);
    }

    /// It waits no longer.
    pub fn leave(&mut self, place: Place, losses: u32) {
        self.pending[usize::from(is_suspect(losses))].remove(&place);
    }

    /// The first task that waits, among suspects or the others.
    pub fn first(&self, suspect: bool) -> Option<Place> {
        self.pending[usize::from(suspect)].first().copied()
    }

    pub fn new(key: hostel_task::Lane) -> Self {
        Self {
            key,
            pending: Default::default(),
            counts: [0; 5],
            sorted: [None; 2],
        }
    }
}

/// A name that was valid when it was stored.
pub(super) fn parse_name(stored: &str) -> Result<Name, Fault> {
    Name::parse("a stored name", stored).map_err(|error| Fault::Corrupt(error.to_string()))
}

pub(super) fn parse_lane(stored: &str) -> Result<hostel_task::Lane, Fault> {
    let lane = hostel_task::Lane::parse(stored);
    lane.ok_or_else(|| Fault::Corrupt(format!("{stored:?} is no task type")))
}
