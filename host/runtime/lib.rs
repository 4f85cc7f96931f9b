//! What every part of a node runs on: supervised background tasks and the health they report, the lifecycle
//! of components, budgets in bytes, bounds on repeated log lines, text that others wrote or that is never
//! printed, certificates and keys, files that are replaced atomically or watched for changes, and processes
//! that end with their parent. Nothing here knows of tasks, plugins or stores.

pub mod atomic_file;
pub mod budget;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod file_fingerprint;
pub mod health;
pub mod lifecycle;
pub mod log_limit;
pub mod parent;
pub mod pem;
pub mod secret;
pub mod untrusted;
