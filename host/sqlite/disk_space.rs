//! Disk space of one database: a reserve in a file beside it, which is released when the disk is full, so
//! that finishing, cancelling and deleting still work. Operations that add data are refused before the
//! reserve is needed.

use super::{database::Database, file, pragma};
use hostel_runtime::health::{Health, Part};
use rusqlite::Connection;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// What a transaction writes besides its payloads: indexes, pages that are not full.
const OVERHEAD_BYTES: u64 = 256 << 10;

/// With so much free space, nothing is measured.
const PLENTY_BYTES: u64 = 1 << 30;

/// The reserve takes at most this fraction of the file system.
const PART_OF_DISK: u64 = 8;

/// How long to wait after the reserve could not be created though the disk had room.
const RESERVE_INTERVAL: Duration = Duration::from_secs(60);

/// How often a full disk may cause a checkpoint.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// The length of the write-ahead log that causes a checkpoint, in pages. A checkpoint every 4 MB delays a
/// commit by some milliseconds; rarer ones gained nothing at the usual batch sizes.
const LOG_PAGES: u64 = 1000;

/// The kind of the reported fault.
const FAULT: &str = "full";

/// The disk space of one database, as its writer uses it.
pub struct DiskSpace {
    database: Database,
    part: Part,
    health: Health,
    reserve: PathBuf,
    reserve_bytes: u64,
    /// The reserve exists, or none is configured.
    is_whole: bool,
    /// The largest refused operation since the disk had room for everything.
    refused: Option<u64>,
    last_checkpoint: Option<Instant>,
    /// When to create the reserve again after that failed.
    next_attempt: Option<Instant>,
}

/// What can be written without the reserve.
pub struct FreeSpace {
    free: u64,
    /// Free pages of the database, which new data can use.
    reusable: u64,
    /// Pages that are only in the log yet and have to go to the end of the database.
    owed: u64,
}

impl FreeSpace {
    /// Returns whether `bytes` fit: they are written to the log, and later to the database.
    pub fn fits(&self, bytes: u64) -> bool {
        let log = bytes.saturating_add(OVERHEAD_BYTES);
        let database = bytes.saturating_sub(self.reusable);
        let needed = log.saturating_add(database).saturating_add(self.owed);
        needed <= self.free
    }
}

impl DiskSpace {
    /// Creates the reserve, or takes over the existing one. Faults are reported as those of `part`.
    pub fn new(database: &Database, reserve_bytes: u64, part: Part, health: &Health) -> Self {
        let mut space = Self {
            database: database.clone(),
            part,
            health: health.clone(),
            reserve: file::with_suffix(&database.path, ".reserve"),
            reserve_bytes: 0,
            is_whole: false,
            refused: None,
            last_checkpoint: None,
            next_attempt: None,
        };
        let most = disk(&database.path).map_or(0, |disk| disk.f_blocks * disk.f_frsize);
        space.reserve_bytes = reserve_bytes.min(most / PART_OF_DISK);
        space.create_reserve();
        space
    }

    /// Returns what can be written now, after a checkpoint if that is needed to fit `bytes`.
    pub fn free_space(&mut self, conn: &Connection, bytes: u64) -> rusqlite::Result<FreeSpace> {
        let free = self.measured(conn)?;
        let may_checkpoint = self
            .last_checkpoint
            .is_none_or(|at| at.elapsed() >= CHECKPOINT_INTERVAL);
        if free.fits(bytes) || !may_checkpoint {
            return Ok(free);
        }
        self.last_checkpoint = Some(Instant::now());
        // On a disk without a free byte this fails, and changes nothing.
        match pragma::checkpoint(conn) {
            Ok(()) => self.measured(conn),
            Err(_) => Ok(free),
        }
    }

    /// Limits the log, so that the reserve has room for a checkpoint.
    pub fn bound_log(&self, conn: &Connection) -> rusqlite::Result<()> {
        let page = pragma::number(conn, "PRAGMA page_size")?.unsigned_abs();
        let pages = match self.reserve_bytes {
            0 => LOG_PAGES,
            bytes => (bytes / 4 / page.max(1)).clamp(16, LOG_PAGES),
        };
        conn.execute_batch(&format!("PRAGMA wal_autocheckpoint = {pages}"))
    }

    fn measured(&self, conn: &Connection) -> rusqlite::Result<FreeSpace> {
        let free = if self.is_whole {
            free_bytes(&self.database.path)
        } else {
            0
        };
        if free > PLENTY_BYTES {
            return Ok(FreeSpace {
                free,
                reusable: 0,
                owed: 0,
            });
        }
        let number = |pragma| pragma::number(conn, pragma).map(i64::unsigned_abs);
        let page = number("PRAGMA page_size")?;
        let length = fs::metadata(&self.database.path).map_or(0, |file| file.len());
        Ok(FreeSpace {
            free,
            reusable: number("PRAGMA freelist_count")? * page,
            owed: (number("PRAGMA page_count")? * page).saturating_sub(length),
        })
    }

    /// Returns whether an operation was refused for which there is no room yet.
    pub fn is_short(&self) -> bool {
        self.refused.is_some() || !self.is_whole
    }

    /// Returns whether almost nothing can be written without the reserve.
    pub fn is_exhausted(&self) -> bool {
        free_bytes(&self.database.path) < OVERHEAD_BYTES
    }

    /// Records that `bytes` were refused, and returns the reason.
    pub fn refuse(&mut self, bytes: u64) -> String {
        self.refused = self.refused.max(Some(bytes));
        self.report();
        self.reason()
    }

    /// Releases the reserve, because a write has met a full disk. Returns false if it was released
    /// already.
    pub fn release_reserve(&mut self) -> bool {
        let released = fs::remove_file(&self.reserve).is_ok();
        self.is_whole = false;
        self.refused = self.refused.max(Some(0));
        self.report();
        released
    }

    /// Creates the reserve again, and clears the fault, once there is room for what was refused.
    pub fn restore(&mut self, conn: &Connection) {
        if !self.is_whole && self.next_attempt.is_none_or(|at| at <= Instant::now()) {
            self.create_reserve();
        }
        let Some(refused) = self.refused else { return };
        let free = self.is_whole.then(|| self.measured(conn).ok()).flatten();
        if free.is_some_and(|free| free.fits(refused)) {
            self.refused = None;
            self.health.clear(self.part, FAULT);
        }
    }

    /// Creates the reserve if the disk has room for it and for a transaction.
    fn create_reserve(&mut self) {
        if self.reserve_bytes == 0 {
            let _ = fs::remove_file(&self.reserve);
            self.is_whole = free_bytes(&self.database.path) > OVERHEAD_BYTES;
            return;
        }
        let allocated = allocated_bytes(&self.reserve);
        let length = fs::metadata(&self.reserve).map_or(0, |file| file.len());
        if length == self.reserve_bytes && allocated >= length {
            self.is_whole = true;
            return;
        }
        let missing = self.reserve_bytes.saturating_sub(allocated);
        if free_bytes(&self.database.path) < missing + OVERHEAD_BYTES {
            self.is_whole = false;
            return;
        }
        let created = allocate(&self.reserve, self.reserve_bytes);
        self.is_whole = created.is_ok();
        if let Err(error) = created {
            let _ = fs::remove_file(&self.reserve);
            self.next_attempt = Some(Instant::now() + RESERVE_INTERVAL);
            let (what, path) = (self.database.what, self.reserve.display());
            tracing::warn!(%error, "the {what} has no reserve: {path} cannot be created");
        }
    }

    /// Returns why operations are refused, without the path, which callers have no use for.
    pub fn reason(&self) -> String {
        self.reason_on("the node's disk")
    }

    fn reason_on(&self, disk: &str) -> String {
        let (section, what) = (self.database.section, self.database.what);
        format!(
            "{disk} is full; free some space, and the {what} continues by itself (the \
             space that {}.reserve_bytes keeps free is used only to finish, cancel and delete)",
            section.trim_matches(['[', ']'])
        )
    }

    fn report(&self) {
        let disk = format!("the disk that holds {}", self.database.path.display());
        self.health.warn(self.part, FAULT, self.reason_on(&disk));
    }
}

/// Returns how much of the disk a file takes: less than its length if a process was killed while it filled the
/// file.
fn allocated_bytes(path: &Path) -> u64 {
    // In units of 512 bytes, whatever the file system.
    fs::metadata(path).map_or(0, |file| file.blocks() * 512)
}

fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = file::private().truncate(false).open(path)?;
    file.set_len(bytes)?;
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP) => fill(&mut file, bytes),
        Err(error) => Err(error.into()),
    }
}

/// Fills a file, on file systems that cannot allocate blocks ahead.
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

/// Returns what this user may still write to the disk; `u64::MAX` if that is not known.
fn free_bytes(path: &Path) -> u64 {
    match disk(path) {
        Ok(disk) if disk.f_blocks > 0 => disk.f_bavail.saturating_mul(disk.f_frsize),
        _ => u64::MAX,
    }
}
