//! What waits and what runs, in the writer's memory: an index over the database, made from it at
//! start and after every failure, never the truth. Knows no SQL but its own loading.

use super::fresh::Fresh;
use crate::{
    queue::{LeaseToken, Want},
    sqlite::Fault,
    task::{Name, StateKind, TaskId},
};
use rusqlite::Connection;
use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap, HashSet},
};

/// A task type's number in the table `word`.
pub(super) type Word = i64;

#[derive(Default)]
pub(super) struct Board {
    pub words: HashMap<Box<str>, Word>,
    pub lanes: HashMap<Word, Lane>,
    pub running: HashMap<TaskId, Hold>,
    /// Types whose lane changed since the last look.
    pub touched: HashSet<Word>,
    pub fresh: Fresh,
    pub next_seq: i64,
    /// Pending and running tasks.
    pub open: usize,
}

/// The tasks of one type.
pub(super) struct Lane {
    pub task_type: Name,
    /// By due time, then in the order of submission.
    pub pending: BTreeSet<(i64, i64)>,
    pub counts: [u64; 5],
}

/// A running task.
#[derive(Debug, Clone)]
pub(super) struct Hold {
    pub seq: i64,
    pub fence: i64,
    pub task_type: Word,
    pub attempt: u32,
    pub lease_until: i64,
    pub cancel_asked: bool,
}

impl Board {
    pub fn load(conn: &Connection) -> Result<Self, Fault> {
        let mut board = Self::default();
        let mut rows = conn.prepare("SELECT word, text FROM word")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            board.words.insert(row.get(1)?, row.get(0)?);
        }
        board.next_seq = conn.query_row(
            "SELECT max(next_seq, 1 + (SELECT ifnull(max(seq), 0) FROM task)) FROM meta",
            [],
            |row| row.get(0),
        )?;
        board.load_counts(conn)?;
        let mut rows = conn.prepare("SELECT type, at, seq FROM task WHERE state = 0")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let lane = board.lane(row.get(0)?)?;
            lane.pending.insert((row.get(1)?, row.get(2)?));
        }
        let mut rows = conn.prepare(
            "SELECT id, seq, fence, type, attempt, at, cancel_asked FROM task WHERE state = 1",
        )?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let id = parse_name(row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?;
            let hold = Hold {
                seq: row.get(1)?,
                fence: row.get(2)?,
                task_type: row.get(3)?,
                attempt: row.get(4)?,
                lease_until: row.get(5)?,
                cancel_asked: row.get(6)?,
            };
            board.running.insert(id, hold);
        }
        board.touched = board.lanes.keys().copied().collect();
        Ok(board)
    }

    fn load_counts(&mut self, conn: &Connection) -> Result<(), Fault> {
        let mut rows = conn.prepare(
            "SELECT type, state, count(*), (SELECT text FROM word WHERE word = type)
             FROM task GROUP BY state, type",
        )?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let text = row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?;
            let lane = self
                .lanes
                .entry(row.get(0)?)
                .or_insert(Lane::new(parse_name(text)?));
            let (state, count): (usize, u64) =
                (row.get::<_, u32>(1)? as usize, row.get::<_, u32>(2)?.into());
            let slot = lane.counts.get_mut(state);
            *slot.ok_or_else(|| Fault::Corrupt(format!("a task is in state {state}")))? = count;
            if state < 2 {
                self.open += usize::try_from(count).unwrap_or(usize::MAX);
            }
        }
        Ok(())
    }

    /// The lane of a type that some task has or has had.
    pub fn lane(&mut self, task_type: Word) -> Result<&mut Lane, Fault> {
        self.touched.insert(task_type);
        self.lanes
            .get_mut(&task_type)
            .ok_or_else(|| Fault::Corrupt(format!("a task has the unknown type {task_type}")))
    }

    /// The hold that `token` still has.
    pub fn held(&mut self, token: &LeaseToken) -> Option<&mut Hold> {
        self.running
            .get_mut(&token.id)
            .filter(|hold| u64::try_from(hold.fence) == Ok(token.fence))
    }

    /// Takes the tasks that `want` asks for out of what waits: those due by `now`, oldest first,
    /// none beyond the most of their type.
    pub fn take_due(&mut self, want: &Want, now: i64) -> Vec<(Word, i64)> {
        let mut left: Vec<(Word, usize)> = Vec::with_capacity(want.types.len());
        for (name, max) in &want.types {
            if let Some(&word) = self.words.get(name.as_str()) {
                left.push((word, *max));
            }
        }
        let head = |lanes: &HashMap<Word, Lane>, word: Word| {
            let first = lanes.get(&word)?.pending.first().copied()?;
            (first.0 <= now).then_some(first)
        };
        let mut heads: BinaryHeap<_> = left
            .iter()
            .enumerate()
            .filter(|(_, (_, max))| *max > 0)
            .filter_map(|(slot, &(word, _))| Some(Reverse((head(&self.lanes, word)?, slot))))
            .collect();
        let mut taken = Vec::new();
        while taken.len() < want.max {
            let Some(Reverse((first, slot))) = heads.pop() else {
                break;
            };
            let (word, max) = &mut left[slot];
            let lane = self.lanes.get_mut(word);
            // A type that was asked for twice has two heads, and one of them may be old.
            if lane.is_some_and(|lane| lane.pending.remove(&first)) {
                taken.push((*word, first.1));
                self.touched.insert(*word);
                *max -= 1;
            }
            if *max > 0 {
                heads.extend(head(&self.lanes, *word).map(|head| Reverse((head, slot))));
            }
        }
        taken
    }

    /// Counts a task that went from one state to another; `None` is outside the queue.
    pub fn count(
        &mut self,
        task_type: Word,
        from: Option<StateKind>,
        to: Option<StateKind>,
    ) -> Result<(), Fault> {
        let lane = self.lane(task_type)?;
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
    pub fn new(task_type: Name) -> Self {
        Self {
            task_type,
            pending: BTreeSet::new(),
            counts: [0; 5],
        }
    }
}

/// A name that was valid when it was stored.
pub(super) fn parse_name(stored: &str) -> Result<Name, Fault> {
    Name::parse("a stored name", stored).map_err(|error| Fault::Corrupt(error.to_string()))
}
