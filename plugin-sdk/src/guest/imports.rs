//! The node's functions for configuration, log, messages and tasks, with the types of the SDK.

use super::describes::wasi::config::store;
use super::describes::wasi::logging::logging;
use crate::{Result, TaskError};

pub(crate) fn config(key: &str) -> Result<Option<String>> {
    store::get(key).map_err(|error| {
        let (store::Error::Upstream(why) | store::Error::Io(why)) = error;
        TaskError::retryable(format!("config `{key}` cannot be read: {why}"))
    })
}

pub(crate) fn log(level: log::Level, target: &str, message: &str) {
    let level = match level {
        log::Level::Error => logging::Level::Error,
        log::Level::Warn => logging::Level::Warn,
        log::Level::Info => logging::Level::Info,
        log::Level::Debug => logging::Level::Debug,
        log::Level::Trace => logging::Level::Trace,
    };
    logging::log(level, target, message);
}

pub(crate) mod messaging {
    use crate::guest::describes::hostel::plugin::messaging as node;
    use crate::guest::millis;
    use crate::messaging::Error;
    use std::time::Duration;

    pub fn publish(to: &str, message_type: &str, payload: Vec<u8>) -> Result<u32, Error> {
        node::publish(to, message_type, &payload).map_err(error)
    }

    pub fn request(
        to: &str,
        message_type: &str,
        payload: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, Error> {
        node::request(to, message_type, &payload, millis(timeout)).map_err(error)
    }

    fn error(error: node::Error) -> Error {
        match error {
            node::Error::Undeliverable(why) => Error::Undeliverable(why),
            node::Error::Failed(why) => Error::from_answer(why),
            node::Error::Timeout(why) => Error::Timeout(why),
            node::Error::Refused(why) => Error::Refused(why),
        }
    }
}

pub(crate) use super::describes::hostel::plugin::tasks;
