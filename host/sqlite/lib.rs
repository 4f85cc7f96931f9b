//! What every SQLite file of a node needs: claiming the file, connections that check what they open, a
//! thread that reads, a thread that writes in groups, free space in reserve, files kept small, and
//! classified errors. Knows no table.

mod batch;
mod connection;
mod database;
mod disk_space;
mod error;
mod file;
mod lock_holders;
mod maintenance;
mod operation;
mod pragma;
mod reader;
mod receive;
mod statement_error;
mod store;
mod thread;
mod writer;
mod writer_thread;

pub use database::Database;
pub use error::Error;
pub use file::Lock;
pub use operation::{SyncLevel, WriteCost};
pub use reader::Reader;
pub use statement_error::{OperationError, StatementError};
pub use store::{Session, Store};
pub use writer::{WeakWriter, Writer, WriterOptions};
