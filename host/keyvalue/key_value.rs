//! The contract that every key-value backend keeps, and the values of its calls.
//!
//! Calls take batches, because a backend pays for each round trip or sync and not for each key.
//! Answers come in the order of the keys.

use async_trait::async_trait;
use hostel_task::Name;

/// The most keys that one page of `list` has.
pub const PAGE_KEYS: usize = 1000;

/// What a plugin is charged for every key and every store besides the bytes of names and values: about
/// what a row costs on disk.
pub const KEY_COST_BYTES: u64 = 64;

/// Returns what a plugin is charged for a store that has keys, or for a key besides its value, by its name.
/// A name is stored twice, in a row and in an index.
pub fn name_cost(name: &str) -> u64 {
    2 * name.len() as u64 + KEY_COST_BYTES
}

/// A value for each key; `None` for a key that does not exist.
pub type Values = Vec<Option<Vec<u8>>>;

/// Keys and values in named stores of plugins.
#[async_trait]
pub trait KeyValue: Send + Sync {
    /// Names a store of a plugin. Any name is valid that is not too long, the empty one included.
    fn bucket(&self, plugin: &Name, store: &str) -> Result<Bucket, Error>;

    /// Returns the values of `keys`, in the same order.
    async fn get(&self, bucket: &Bucket, keys: Vec<String>) -> Result<Values, Error>;

    /// Returns whether each key exists.
    async fn exists(&self, bucket: &Bucket, keys: Vec<String>) -> Result<Vec<bool>, Error>;

    /// Applies all changes in their order, or none. They are durable on return. If the call is
    /// cancelled, they may have been made.
    async fn apply(&self, bucket: &Bucket, changes: Vec<Change>) -> Result<(), Error>;

    /// Adds to a number, and returns the sum once that is durable. A number is stored as its decimal
    /// digits, so that `get` and `apply` read and write it as text; a missing key counts as 0. Fails
    /// with `Invalid`, and changes nothing, if the value is not a number or the sum exceeds 64 bits.
    async fn increment(&self, bucket: &Bucket, key: String, delta: u64) -> Result<u64, Error>;

    /// Returns a page of keys, in no particular order: the first page, or the one that follows the
    /// page whose `next` is given. A key that exists from the first page to the last is listed once,
    /// whatever happens to other keys meanwhile.
    async fn list(&self, bucket: &Bucket, cursor: Option<u64>) -> Result<Page, Error>;

    /// Writes what is pending and closes the backend. Later calls fail with `Unavailable`.
    async fn close(&self);
}

/// A store of one plugin, apart from the stores of other plugins. It exists while it has keys. Made
/// by `KeyValue::bucket`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bucket {
    plugin: Name,
    store: String,
}

impl Bucket {
    /// Creates the bucket for a backend, which has checked the length of the name.
    pub fn new(plugin: Name, store: String) -> Self {
        Self { plugin, store }
    }

    /// The plugin that owns the bucket.
    pub fn plugin(&self) -> &Name {
        &self.plugin
    }

    /// The store's name, as the guest opened it.
    pub fn store(&self) -> &str {
        &self.store
    }
}

/// A change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets the value of a key.
    Set {
        /// The key.
        key: String,
        /// The new value.
        value: Vec<u8>,
    },
    /// Deletes a key.
    Delete {
        /// The key.
        key: String,
    },
}

impl Change {
    /// The key that is changed.
    pub fn key(&self) -> &str {
        match self {
            Change::Set { key, .. } | Change::Delete { key } => key,
        }
    }
}

/// A page of keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The keys, in no particular order.
    pub keys: Vec<String>,
    /// Set when there may be more keys.
    pub next: Option<u64>,
}

/// Why a call did nothing, by what can be done about it. `Limit` and `Invalid` are for the author of
/// the plugin, the others for the operator.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The same call may succeed later. If `outcome_unknown`, the change may have been made.
    #[error("the key-value store is unavailable: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
        /// Whether the change may have been stored.
        outcome_unknown: bool,
    },
    /// The call exceeds a limit, which the text names.
    #[error("{0}")]
    Limit(String),
    /// The call does not fit what is stored.
    #[error("{0}")]
    Invalid(String),
    /// What is stored does not make sense; an operator has to look.
    #[error("the key-value store is corrupt: {0}")]
    Corrupt(String),
    /// A setting has to change.
    #[error("the key-value store cannot be opened: {0}")]
    Misconfigured(String),
}
