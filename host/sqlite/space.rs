//! Space on the disk for one database: a reserve in a file beside it, given up when the disk is
//! full so that what ends, cancels or deletes can still be written, and a bound for everything else,
//! which is refused before the reserve is touched. Writes no row.

use super::{Database, file, upkeep};
use hostel_runtime::health::{Health, Part};
use rusqlite::Connection;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// What a transaction writes besides the bytes that it is about: indexes, pages that are not full.
const OVERHEAD_BYTES: u64 = 256 << 10;

/// With so much free, nobody has to look closer.
const PLENTY_BYTES: u64 = 1 << 30;

/// The reserve takes no larger part of the file system than this.
const PART_OF_DISK: u64 = 8;

/// How often a log of changes is folded into the database at once because the disk is full.
const FOLD_AGAIN: Duration = Duration::from_secs(1);

/// How long the log gets before it is folded into the database, in pages. A fold at every 4 MB holds
/// up a commit by some milliseconds; rarer ones gained nothing at the batches that matter.
const LOG_PAGES: u64 = 1000;

/// The kind of fault that is reported.
const FAULT: &str = "full";

/// The space of one database, as its writer sees it.
pub struct Space {
    database: Database,
    part: Part,
    health: Health,
    reserve: PathBuf,
    reserve_bytes: u64,
    /// The reserve is there, or none is to be kept.
    is_whole: bool,
    /// The most bytes that were refused since there was room for everything.
    refused: Option<u64>,
    folded: Option<Instant>,
}

/// What may be written without touching the reserve.
pub struct Room {
    free: u64,
    /// Free pages of the database, which what is written can use there.
    reusable: u64,
    /// Pages that have to go to the end of the database and are still in its log only.
    owed: u64,
}

impl Room {
    /// Whether `bytes` fit: they are written to the log, and later to the database.
    pub fn takes(&self, bytes: u64) -> bool {
        let log = bytes.saturating_add(OVERHEAD_BYTES);
        let database = bytes.saturating_sub(self.reusable);
        let needed = log.saturating_add(database).saturating_add(self.owed);
        needed <= self.free
    }
}

impl Space {
    /// Claims the reserve, or what of it is there. Faults are reported as those of `part`.
    pub fn new(database: &Database, reserve_bytes: u64, part: Part, health: &Health) -> Self {
        let mut space = Self {
            database: database.clone(),
            part,
            health: health.clone(),
            reserve: file::with_suffix(&database.path, ".reserve"),
            reserve_bytes: 0,
            is_whole: false,
            refused: None,
            folded: None,
        };
        let most = disk(&database.path).map_or(0, |disk| disk.f_blocks * disk.f_frsize);
        space.reserve_bytes = reserve_bytes.min(most / PART_OF_DISK);
        space.keep();
        space
    }

    /// What may be written now; folds the log into the database where that gives some back.
    pub fn room(&mut self, conn: &Connection, bytes: u64) -> rusqlite::Result<Room> {
        let room = self.measured(conn)?;
        let may_fold = self.folded.is_none_or(|at| at.elapsed() >= FOLD_AGAIN);
        if room.takes(bytes) || !may_fold {
            return Ok(room);
        }
        self.folded = Some(Instant::now());
        // On a disk without a byte this fails, and changes nothing.
        match upkeep::fold(conn) {
            Ok(()) => self.measured(conn),
            Err(_) => Ok(room),
        }
    }

    /// Has the log folded into the database early enough for the reserve to have room for it.
    pub fn bound_log(&self, conn: &Connection) -> rusqlite::Result<()> {
        let page = upkeep::number(conn, "PRAGMA page_size")?.unsigned_abs();
        let pages = match self.reserve_bytes {
            0 => LOG_PAGES,
            bytes => (bytes / 4 / page.max(1)).clamp(16, LOG_PAGES),
        };
        conn.execute_batch(&format!("PRAGMA wal_autocheckpoint = {pages}"))
    }

    fn measured(&self, conn: &Connection) -> rusqlite::Result<Room> {
        let free = match self.is_whole {
            true => free_bytes(&self.database.path),
            false => 0,
        };
        if free > PLENTY_BYTES {
            return Ok(Room {
                free,
                reusable: 0,
                owed: 0,
            });
        }
        let number = |pragma| upkeep::number(conn, pragma).map(i64::unsigned_abs);
        let page = number("PRAGMA page_size")?;
        let length = fs::metadata(&self.database.path).map_or(0, |file| file.len());
        Ok(Room {
            free,
            reusable: number("PRAGMA freelist_count")? * page,
            owed: (number("PRAGMA page_count")? * page).saturating_sub(length),
        })
    }

    /// Whether something was refused for which there is no room yet.
    pub fn is_short(&self) -> bool {
        self.refused.is_some() || !self.is_whole
    }

    /// Whether next to nothing can be written to the disk but through the reserve.
    pub fn is_exhausted(&self) -> bool {
        free_bytes(&self.database.path) < OVERHEAD_BYTES
    }

    /// Notes that `bytes` were refused, and returns why.
    pub fn refuse(&mut self, bytes: u64) -> String {
        self.refused = self.refused.max(Some(bytes));
        self.report();
        self.reason()
    }

    /// Gives the reserve up, since the disk is full in the middle of work. False when it was gone
    /// already.
    pub fn give_up(&mut self) -> bool {
        let had_it = fs::remove_file(&self.reserve).is_ok();
        self.is_whole = false;
        self.refused = self.refused.max(Some(0));
        self.report();
        had_it
    }

    /// Takes the fault back, and makes the reserve again, once there is room for what was refused.
    pub fn restore(&mut self, conn: &Connection) {
        if !self.is_whole {
            self.keep();
        }
        let Some(refused) = self.refused else { return };
        let room = self.is_whole.then(|| self.measured(conn).ok()).flatten();
        if room.is_some_and(|room| room.takes(refused)) {
            self.refused = None;
            self.health.clear(self.part, FAULT);
        }
    }

    /// Makes the reserve where the disk has room for it and as much again as a transaction needs.
    fn keep(&mut self) {
        if self.reserve_bytes == 0 {
            let _ = fs::remove_file(&self.reserve);
            self.is_whole = free_bytes(&self.database.path) > OVERHEAD_BYTES;
            return;
        }
        let there = fs::metadata(&self.reserve).map_or(0, |file| file.len());
        if there == self.reserve_bytes {
            self.is_whole = true;
            return;
        }
        let missing = self.reserve_bytes.saturating_sub(there);
        if free_bytes(&self.database.path) < missing + OVERHEAD_BYTES {
            self.is_whole = false;
            return;
        }
        let made = make(&self.reserve, self.reserve_bytes);
        self.is_whole = made.is_ok();
        if let Err(error) = made {
            let _ = fs::remove_file(&self.reserve);
            let (what, path) = (self.database.what, self.reserve.display());
            tracing::warn!(%error, "the {what} has no reserve: {path} cannot be made");
        }
    }

    /// Why something is refused, for callers, whom the path does not concern.
    pub fn reason(&self) -> String {
        self.reason_on("the node's disk")
    }

    fn reason_on(&self, disk: &str) -> String {
        let (section, what) = (self.database.section, self.database.what);
        format!(
            "{disk} is full; free some space and the {what} goes on by itself (what \
             {}.reserve_bytes keeps free is for what is under way)",
            section.trim_matches(['[', ']'])
        )
    }

    fn report(&self) {
        let disk = format!("the disk that holds {}", self.database.path.display());
        self.health.warn(self.part, FAULT, self.reason_on(&disk));
    }
}

fn make(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = file::private().truncate(false).open(path)?;
    file.set_len(bytes)?;
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP) => fill(&mut file, bytes),
        Err(error) => Err(error.into()),
    }
}

/// For file systems that cannot set blocks aside.
fn fill(file: &mut File, bytes: u64) -> io::Result<()> {
    let zeros = [0; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        let part = zeros.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.write_all(&zeros[..part])?;
        left -= part as u64;
    }
    Ok(())
}

fn disk(path: &Path) -> io::Result<rustix::fs::StatVfs> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    Ok(statvfs(dir.unwrap_or(Path::new(".")))?)
}

/// What this user may still write to the disk; all there could be where that is not known.
fn free_bytes(path: &Path) -> u64 {
    match disk(path) {
        Ok(disk) if disk.f_blocks > 0 => disk.f_bavail.saturating_mul(disk.f_frsize),
        _ => u64::MAX,
    }
}
