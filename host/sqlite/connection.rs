//! Connections to a database, which is ours, of a version that we know, or made now.

use super::{Database, Error, Fault, upkeep};
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use std::time::Duration;

/// How long to wait for a lock that another process has.
pub(super) const BUSY: Duration = Duration::from_secs(5);

/// The most pages of a file that is written anew when it is opened, so that it gives space back.
const REWRITTEN_PAGES: i64 = 8192;

impl Database {
    /// Opens the file for writing and gives it its tables when it is new. The file has been claimed.
    pub fn open_writer(&self) -> Result<Connection, Error> {
        let opening = |error: rusqlite::Error| self.opening_error(&error.into());
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&self.path, flags).map_err(opening)?;
        prepare_connection(&conn).map_err(opening)?;
        let version = self.check_identity(&conn)?;
        conn.execute_batch(self.tuning).map_err(opening)?;
        match version {
            0 => self.create(&conn).map_err(opening)?,
            version => self.migrate(&conn, version).map_err(opening)?,
        }
        self.let_shrink(&conn).map_err(opening)?;
        Ok(conn)
    }

    /// Opens the file for reading beside the writer. No memory map: under one, a read that fails
    /// kills the process instead of failing.
    pub fn open_reader(&self) -> Result<Connection, Fault> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&self.path, flags)?;
        prepare_connection(&conn)?;
        conn.execute_batch("PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY;")?;
        Ok(conn)
    }

    fn create(&self, conn: &Connection) -> rusqlite::Result<()> {
        let Self {
            create,
            application,
            version,
            ..
        } = self;
        conn.execute_batch(&format!(
            "BEGIN IMMEDIATE; {create}
             PRAGMA application_id = {application}; PRAGMA user_version = {version}; COMMIT;"
        ))
    }

    fn migrate(&self, conn: &Connection, version: i64) -> rusqlite::Result<()> {
        for (from, step) in (1..)
            .zip(self.migrations)
            .skip_while(|&(from, _)| from < version)
        {
            let to = from + 1;
            conn.execute_batch(&format!(
                "BEGIN IMMEDIATE; {step}; PRAGMA user_version = {to}; COMMIT;"
            ))
            .inspect_err(|_| drop(conn.execute_batch("ROLLBACK")))?;
            let path = self.path.display();
            tracing::info!("{path} has been brought from schema {from} to {to}");
        }
        Ok(())
    }

    /// Files of versions that gave no space back learn to, once, where that is cheap.
    fn let_shrink(&self, conn: &Connection) -> rusqlite::Result<()> {
        let number = |pragma| upkeep::number(conn, pragma);
        if number("PRAGMA auto_vacuum")? != 0 {
            return Ok(());
        }
        let path = self.path.display();
        let used = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
        let rewritten = match used <= REWRITTEN_PAGES {
            true => conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM"),
            false => {
                tracing::warn!(
                    "{path} was made by a version that gives no space back; while the node is \
                     stopped, `sqlite3 {path} 'PRAGMA auto_vacuum = 2; VACUUM'` changes that"
                );
                Ok(())
            }
        };
        if let Err(error) = rewritten {
            tracing::warn!(%error, "{path} cannot be rewritten so that it gives space back");
        }
        Ok(())
    }

    /// The schema's version, 0 for an empty file.
    fn check_identity(&self, conn: &Connection) -> Result<i64, Error> {
        let number = |pragma: &str| {
            conn.query_row(pragma, [], |row| row.get::<_, i64>(0))
                .map_err(|error| self.opening_error(&error.into()))
        };
        let path = self.path.display();
        let tables = number("SELECT count(*) FROM sqlite_schema")?;
        if tables == 0 {
            return Ok(0);
        }
        if number("PRAGMA application_id")? != self.application {
            return Err(Error::Misconfigured(format!(
                "{path} is a database of another program; point {} path elsewhere",
                self.section
            )));
        }
        let known = self.version;
        match number("PRAGMA user_version")? {
            version if (1..=known).contains(&version) => Ok(version),
            newer if newer > known => Err(Error::Misconfigured(format!(
                "{path} was written by a newer hostel (schema {newer}; this one knows {known})"
            ))),
            other => Err(Error::Corrupt(format!(
                "{path} says that its schema is {other}"
            ))),
        }
    }
}

fn prepare_connection(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(BUSY)?;
    // More than anybody here prepares; the default is not.
    conn.set_prepared_statement_cache_capacity(64);
    // Without this a statement is compiled anew for every value bound to it, in case another index
    // served that value better; measured as a third of the writer's work, and most of a reader's.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}
