//! The choice of a key-value backend.

use super::{
    key_value::{Error, KeyValue},
    sqlite::SqliteKeyValue,
};
use hostel_config as config;
use hostel_runtime::health::Health;
use std::sync::Arc;

/// Opens the configured backend, which reports its faults to `health`.
pub async fn open(
    keyvalue: &config::KeyValue,
    health: &Health,
) -> Result<Arc<dyn KeyValue>, Error> {
    match &keyvalue.backend {
        config::KeyValueBackend::Sqlite(sqlite) => {
            let limits = &keyvalue.limits;
            let opened =
                SqliteKeyValue::open(&sqlite.path, sqlite.reserve_bytes, limits, health).await?;
            Ok(Arc::new(opened))
        }
    }
}
