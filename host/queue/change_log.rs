//! The latest changes of a queue in memory, with a number for each, so that a reader goes on where it stopped.
//! Bounded, and kept only while somebody reads it: until then a change costs nothing.

use super::{error::Error, watch::Change};
use hostel_task::UnixMs;
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

/// The most changes that are kept, which is more than is promised.
const MAX_CHANGES: u64 = 120_000;

/// What the kept changes may take. No 120,000 of them take more, whatever their names.
const MAX_BYTES: usize = 64 << 20;

/// What a change takes besides the letters of its names.
const CHANGE_BYTES: usize = size_of::<Change>() + 3 * 24;

/// How long changes are kept that nobody reads.
const IDLE: Duration = Duration::from_secs(600);

/// A change, and where it is in the sequence of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedChange {
    /// The change.
    pub change: Change,
    /// When it was made.
    pub at: UnixMs,
    /// The cursor behind it.
    pub cursor: String,
}

/// The changes after a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangesRead {
    /// The changes, of each task in the order in which they happened.
    pub changes: Vec<LoggedChange>,
    /// The cursor behind all of them.
    pub cursor: String,
    /// Changes were missed, and there are none: the reader has to read the tasks that it follows.
    pub resync: bool,
}

/// The changes of one queue.
#[derive(Default)]
pub(super) struct ChangeLog(Mutex<Option<Kept>>);

/// What is kept while there are readers.
struct Kept {
    /// Tells the numbers of this log from those of another.
    epoch: u64,
    batches: VecDeque<Batch>,
    /// The number of the next change.
    next: u64,
    bytes: usize,
    read_at: Instant,
}

/// The changes of one transaction.
struct Batch {
    /// The number of the first change.
    first: u64,
    at: UnixMs,
    changes: Arc<[Change]>,
}

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    epoch: u64,
    /// The number of the next change.
    next: u64,
}

impl ChangeLog {
    /// Adds the changes of a transaction that was committed at a time.
    pub fn append(&self, at: impl FnOnce() -> UnixMs, changes: &Arc<[Change]>) {
        let mut log = self.0.lock();
        let Some(kept) = log.as_mut().filter(|_| !changes.is_empty()) else {
            return;
        };
        if kept.read_at.elapsed() < IDLE {
            kept.append(at(), changes.clone());
        } else {
            *log = None;
        }
    }

    /// Returns up to `max` changes after a cursor, at least one if there is one; none without a cursor.
    pub fn read(&self, after: Option<&str>, max: usize) -> Result<ChangesRead, Error> {
        let after = after.map(Cursor::parse).transpose()?;
        let mut log = self.0.lock();
        let kept = log.get_or_insert_with(Kept::new);
        kept.read_at = Instant::now();
        Ok(kept.read(after, max.max(1)))
    }
}

impl Kept {
    fn new() -> Self {
        Self {
            epoch: fastrand::u64(..),
            batches: VecDeque::new(),
            next: 0,
            bytes: 0,
            read_at: Instant::now(),
        }
    }

    fn append(&mut self, at: UnixMs, changes: Arc<[Change]>) {
        let first = self.next;
        self.next += changes.len() as u64;
        self.bytes += bytes(&changes);
        self.batches.push_back(Batch { first, at, changes });
        while self.bytes > MAX_BYTES || self.next - self.first() > MAX_CHANGES {
            let Some(oldest) = self.batches.pop_front() else {
                return;
            };
            self.bytes -= bytes(&oldest.changes);
        }
    }

    /// The number of the oldest change that is kept.
    fn first(&self) -> u64 {
        self.batches.front().map_or(self.next, |batch| batch.first)
    }

    fn read(&self, after: Option<Cursor>, max: usize) -> ChangesRead {
        let at = |next| Cursor {
            epoch: self.epoch,
            next,
        };
        let is_kept = |cursor: &Cursor| {
            cursor.epoch == self.epoch && (self.first()..=self.next).contains(&cursor.next)
        };
        let resync = after.is_some_and(|cursor| !is_kept(&cursor));
        let mut next = after
            .filter(is_kept)
            .map_or(self.next, |cursor| cursor.next);
        let mut changes = Vec::new();
        let begin = self
            .batches
            .partition_point(|batch| batch.first + batch.changes.len() as u64 <= next);
        for batch in self.batches.range(begin..) {
            let skipped = usize::try_from(next - batch.first).unwrap_or(usize::MAX);
            let left = max - changes.len();
            for change in batch.changes.iter().skip(skipped).take(left) {
                next += 1;
                changes.push(LoggedChange {
                    change: change.clone(),
                    at: batch.at,
                    cursor: at(next).format(),
                });
            }
            if changes.len() == max {
                break;
            }
        }
        ChangesRead {
            changes,
            cursor: at(next).format(),
            resync,
        }
    }
}

impl Cursor {
    /// Parses what `format` has written.
    fn parse(text: &str) -> Result<Self, Error> {
        let parsed = || {
            let (epoch, next) = text.strip_prefix('m')?.split_once('-')?;
            let number = |digits| u64::from_str_radix(digits, 16).ok();
            let (epoch, next) = (number(epoch)?, number(next)?);
            Some(Self { epoch, next }).filter(|cursor| cursor.format() == text)
        };
        parsed().ok_or(Error::BadCursor)
    }

    fn format(self) -> String {
        format!("m{:x}-{:x}", self.epoch, self.next)
    }
}

fn bytes(changes: &[Change]) -> usize {
    // Nodes are few, and changes share their names.
    let names = |change: &Change| {
        let group = change
            .group
            .as_ref()
            .map_or(0, |group| group.as_str().len());
        change.id.as_str().len() + change.task_type.as_str().len() + group
    };
    let names: usize = changes.iter().map(names).sum();
    names + changes.len() * CHANGE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostel_task::{Name, StateKind};

    fn batch(numbers: impl IntoIterator<Item = u64>) -> Arc<[Change]> {
        let name = |given: &str| Name::parse("name", given).unwrap();
        let change =
            |number| Change::new(name(&format!("t{number}")), name("a"), StateKind::Pending);
        numbers.into_iter().map(change).collect()
    }

    fn ids(read: &ChangesRead) -> Vec<&str> {
        let changes = read.changes.iter();
        changes.map(|logged| logged.change.id.as_str()).collect()
    }

    #[test]
    fn a_reader_goes_on_where_it_stopped() {
        let log = ChangeLog::default();
        log.append(|| UnixMs(1), &batch([0]));
        let start = log.read(None, 9).unwrap();
        assert!(start.changes.is_empty() && !start.resync);
        log.append(|| UnixMs(2), &batch([1, 2, 3]));
        log.append(|| UnixMs(3), &batch([4]));
        let read = |after: &str, max| log.read(Some(after), max).unwrap();
        let first = read(&start.cursor, 2);
        assert_eq!(ids(&first), ["t1", "t2"]);
        assert_eq!(first.changes[1].cursor, first.cursor);
        // Within a transaction, too.
        assert_eq!(ids(&read(&first.changes[0].cursor, 9)), ["t2", "t3", "t4"]);
        let rest = read(&first.cursor, 9);
        assert_eq!(ids(&rest), ["t3", "t4"]);
        let times: Vec<u64> = rest.changes.iter().map(|it| it.at.0).collect();
        assert_eq!(times, [2, 3]);
        let end = read(&rest.cursor, 9);
        assert_eq!((end.changes.len(), end.cursor), (0, rest.cursor));
    }

    #[test]
    fn more_changes_are_kept_than_are_promised_and_older_ones_need_a_resync() {
        let log = ChangeLog::default();
        let start = log.read(None, 1).unwrap().cursor;
        log.append(|| UnixMs(1), &batch([0]));
        let later = log.read(Some(&start), 1).unwrap().cursor;
        for part in 0..100 {
            log.append(|| UnixMs(2), &batch(part * 1000..(part + 1) * 1000));
        }
        let read = log.read(Some(&later), 7).unwrap();
        assert_eq!((read.changes.len(), read.resync), (7, false));
        for part in 0..30 {
            log.append(|| UnixMs(3), &batch(part * 1000..(part + 1) * 1000));
        }
        let read = log.read(Some(&later), 7).unwrap();
        assert_eq!((read.changes.len(), read.resync), (0, true));
        let read = log.read(Some(&read.cursor), 7).unwrap();
        assert_eq!((read.changes.len(), read.resync), (0, false));
        let log = log.0.lock();
        let kept = log.as_ref().unwrap();
        assert!(kept.next - kept.first() <= MAX_CHANGES);
        let counted: usize = kept.batches.iter().map(|batch| bytes(&batch.changes)).sum();
        assert_eq!(kept.bytes, counted);
    }

    #[test]
    fn the_bound_in_bytes_has_room_for_the_longest_names() {
        const { assert!((CHANGE_BYTES + 3 * Name::MAX_BYTES) * 120_000 <= MAX_BYTES) };
    }

    #[test]
    fn a_cursor_of_another_log_needs_a_resync_and_other_texts_are_refused() {
        let (log, other) = (ChangeLog::default(), ChangeLog::default());
        let foreign = other.read(None, 1).unwrap().cursor;
        assert!(log.read(Some(&foreign), 1).unwrap().resync);
        let own = log.read(None, 1).unwrap().cursor;
        let (epoch, _) = own.split_once('-').unwrap();
        assert!(log.read(Some(&format!("{epoch}-7")), 1).unwrap().resync);
        for text in [
            "", "m", "m-", "m1", "m1-", "m01-1", "m+1-1", "x1-1", "m1-1 ", "☃",
        ] {
            let refused = log.read(Some(text), 1);
            assert!(matches!(refused, Err(Error::BadCursor)), "{text:?}");
        }
    }

    #[test]
    fn nothing_is_kept_before_the_first_read() {
        let log = ChangeLog::default();
        log.append(|| panic!("the time is not needed"), &batch([1]));
        assert!(log.0.lock().is_none());
    }
}
