//! Connections to a database. Checks that the file is this program's and of a known version, creates its
//! schema or migrates it.

use super::{
    database::Database,
    error::Error,
    pragma::{self, BUSY_TIMEOUT},
    statement_error::StatementError,
};
use rusqlite::{Connection, OpenFlags, config::DbConfig};

/// The most pages of a file that is rewritten on opening, so that its free pages can be returned.
const REWRITTEN_PAGES: i64 = 8192;

impl Database {
    /// Opens the file for writing, after it was claimed. Creates the schema of a new file and migrates an
    /// older one.
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
        self.enable_shrinking(&conn).map_err(opening)?;
        Ok(conn)
    }

    /// Opens the file for reading beside the writer. Not memory-mapped: a failed read of a mapped page
    /// would kill the process.
    pub fn open_reader(&self) -> Result<Connection, StatementError> {
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
            tracing::info!("{path} was migrated from schema {from} to {to}");
        }
        Ok(())
    }

    /// Rewrites a small file of a version that did not return free pages, so that it can.
    fn enable_shrinking(&self, conn: &Connection) -> rusqlite::Result<()> {
        let number = |pragma| pragma::number(conn, pragma);
        if number("PRAGMA auto_vacuum")? != 0 {
            return Ok(());
        }
        let path = self.path.display();
        let used = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
        if used > REWRITTEN_PAGES {
            tracing::warn!(
                "{path} was created by a version that does not return free space; to enable that, \
                 stop the node and run `sqlite3 {path} 'PRAGMA auto_vacuum = 2; VACUUM'`"
            );
        } else if let Err(error) = conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM") {
            tracing::warn!(%error, "{path} cannot be rewritten to return free space");
        }
        Ok(())
    }

    /// Returns the version of the schema, 0 for an empty file.
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
                "{path} is a database of another program; set {} path to another file",
                self.section
            )));
        }
        let known = self.version;
        match number("PRAGMA user_version")? {
            version if (1..=known).contains(&version) => Ok(version),
            newer if newer > known => Err(Error::Misconfigured(format!(
                "{path} was written by a newer hostel (schema {newer}; this one knows {known}); use the \
                 version that wrote it, or set {} path to another file",
                self.section
            ))),
            other => Err(Error::Corrupt(format!(
                "{path} has schema {other}, which does not exist"
            ))),
        }
    }
}

fn prepare_connection(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(BUSY_TIMEOUT)?;
    // More than a connection uses; the default is less.
    conn.set_prepared_statement_cache_capacity(64);
    // Without this a statement is compiled again for every value bound to it, in case another index
    // suits that value better: a third of the writer's work, and most of a reader's.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}
