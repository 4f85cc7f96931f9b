//! What waits and what runs, in the writer's memory: an index over the database, made from it at
//! start and after every failure, never the truth. Knows no SQL but its own loading.

use super::fresh::Fresh;
use crate::{
    queue::{LeaseToken, Want},
    sqlite::Fault,
    task::{self, Name, StateKind, TaskId},
};
use rusqlite::Connection;
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
    pub fresh: Fresh,
    pub next_seq: i64,
    /// Pending and running tasks.
    pub open: usize,
}

/// The tasks of one type that the same nodes may take.
pub(super) struct Lane {
    pub key: task::Lane,
    /// By due time, then in the order of submission.
    pub pending: BTreeSet<(i64, i64)>,
    pub counts: [u64; 5],
}

/// A running task.
#[derive(Debug, Clone)]
pub(super) struct Hold {
    pub seq: i64,
    pub fence: i64,
    pub lane: Word,
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
                lane: row.get(3)?,
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
                .or_insert(Lane::new(parse_lane(text)?));
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

    /// A lane that some task waits in or has waited in.
    pub fn lane(&mut self, word: Word) -> Result<&mut Lane, Fault> {
        self.touched.insert(word);
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
    /// none beyond the most of their type.
    pub fn take_due(&mut self, want: &Want, now: i64) -> Vec<(Word, i64)> {
        let mut room = Vec::with_capacity(want.types.len());
        // The heads of all lanes, each with its place in `room`.
        let mut heads = BinaryHeap::new();
        for wanted in &want.types {
            let running = |max: usize| max.saturating_sub(self.running_of(&wanted.task_type));
            let max = wanted.max_in_cluster.map_or(usize::MAX, running);
            for lane in want.lanes(&wanted.task_type) {
                let word = self.words.get(lane.to_string().as_str()).copied();
                let head = word.and_then(|word| Some((self.head(word, now)?, word)));
                heads.extend(head.map(|(head, word)| Reverse((head, word, room.len()))));
            }
            room.push(max.min(wanted.max));
        }
        let mut taken = Vec::new();
        while taken.len() < want.max {
            let Some(Reverse((first, word, place))) = heads.pop() else {
                break;
            };
            if room[place] == 0 {
                continue;
            }
            let lane = self.lanes.get_mut(&word);
            // A type that was asked for twice has its heads twice, and one of them may be old.
            if lane.is_some_and(|lane| lane.pending.remove(&first)) {
                taken.push((word, first.1));
                self.touched.insert(word);
                room[place] -= 1;
            }
            let next = self.head(word, now);
            heads.extend(next.map(|next| Reverse((next, word, place))));
        }
        taken
    }

    /// The first of a lane, if it is due.
    fn head(&self, word: Word, now: i64) -> Option<(i64, i64)> {
        let first = self.lanes.get(&word)?.pending.first().copied()?;
        (first.0 <= now).then_some(first)
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
    pub fn new(key: task::Lane) -> Self {
        Self {
            key,
            pending: BTreeSet::new(),
            counts: [0; 5],
        }
    }
}

/// A name that was valid when it was stored.
pub(super) fn parse_name(stored: &str) -> Result<Name, Fault> {
    Name::parse("a stored name", stored).map_err(|error| Fault::Corrupt(error.to_string()))
}

pub(super) fn parse_lane(stored: &str) -> Result<task::Lane, Fault> {
    let lane = task::Lane::parse(stored);
    lane.ok_or_else(|| Fault::Corrupt(format!("{stored:?} is no task type")))
}
