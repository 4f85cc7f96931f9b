//! The errors of Redis, by what the caller can do about them.

use super::memory;
use crate::Error;
use hostel_redis::{Server, is_refusal};
use redis::{ErrorKind, RedisError, ServerErrorKind};
use std::time::Duration;

/// The rights that an ACL must give, as an error names them.
const NEEDS: &str = "the scripts (EVALSHA, EVAL, SCRIPT LOAD), what they call on the keys under \
                     queue.prefix, GET, GETRANGE, HGET, STRLEN, XREAD, XREVRANGE and ZSCORE there, \
                     SCAN, PING, and INFO to know how full its memory is";

/// Explains an error of a call. `reserve_percent` is part of the text if the memory is full.
pub(super) fn explain(server: &Server, reserve_percent: u64, error: &RedisError) -> Error {
    if error.code() == Some("OOM") {
        return Error::Full {
            reason: memory::full(reserve_percent),
        };
    }
    // The transient states without an error code of their own: too many clients, and WAIT on a server that
    // has become a replica.
    let passes = || {
        let text = error.to_string();
        text.contains("max number of clients") || text.contains("WAIT cannot be used with replica")
    };
    let wrong = matches!(
        error.kind(),
        ErrorKind::Parse
            | ErrorKind::UnexpectedReturnType
            | ErrorKind::Server(ServerErrorKind::ResponseError)
    ) || error.code() == Some("WRONGTYPE");
    if wrong && !is_refusal(error) && !passes() {
        return Error::Corrupt(error.to_string());
    }
    // Everything else passes: the server loads, is a replica, its memory or disk is full, or its cluster
    // is down. Then nothing was done.
    let lost = error.is_io_error() || error.is_timeout() || error.is_connection_dropped();
    Error::Unavailable {
        reason: server.describe(error, NEEDS),
        // The client of a cluster retries by itself, and reports only its last attempt.
        outcome_unknown: server.is_cluster() || (lost && !error.is_connection_refusal()),
    }
}

/// The error of a call without an answer in time.
pub(super) fn no_answer(within: Duration) -> Error {
    Error::Unavailable {
        reason: format!("no answer from Redis within {} s", within.as_secs()),
        outcome_unknown: true,
    }
}

/// The error of a call to a closed queue.
pub(super) fn closed() -> Error {
    Error::Unavailable {
        reason: "the task queue is closed".into(),
        outcome_unknown: false,
    }
}

/// The error of a task whose record is damaged: `what` cannot be read.
pub(super) fn corrupt(id: &str, what: &str) -> Error {
    Error::Corrupt(format!("task {id}: {what} cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error of a reply line.
    fn reply(line: &str) -> RedisError {
        let answer = redis::parse_redis_value(format!("-{line}\r\n").as_bytes());
        answer.and_then(redis::Value::extract_error).unwrap_err()
    }

    fn explained(cluster: bool, error: &RedisError) -> Error {
        let mut settings = hostel_config::Redis::at("redis://127.0.0.1:1", "test").unwrap();
        settings.cluster = cluster;
        explain(&Server::new(&settings, "queue", true).unwrap(), 10, error)
    }

    #[test]
    fn states_of_a_server_are_transient() {
        for line in [
            "READONLY You can't write against a read only replica.",
            "LOADING Redis is loading the dataset in memory",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "CLUSTERDOWN The cluster is down",
            "MOVED 3999 127.0.0.1:6381",
            "ASK 3999 127.0.0.1:6381",
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist",
            "NOREPLICAS Not enough good replicas to write.",
            "ERR max number of clients reached",
            "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a \
             replica is configured to be writable (which is not the default) writes to replicas are just \
             local and are not propagated.",
        ] {
            let word = line.split(' ').next().unwrap_or_default();
            match explained(false, &reply(line)) {
                Error::Unavailable {
                    reason,
                    outcome_unknown: false,
                } => assert!(word == "ERR" || reason.contains(word), "{reason}"),
                other => panic!("{line}: {other:?}"),
            }
            // The outcome of the attempts before the last one is not known.
            match explained(true, &reply(line)) {
                Error::Unavailable {
                    outcome_unknown, ..
                } => assert!(outcome_unknown, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn full_memory_is_a_full_queue() {
        let error = explained(
            false,
            &reply("OOM command not allowed when used memory > 'maxmemory'."),
        );
        assert!(matches!(error, Error::Full { .. }), "{error:?}");
    }

    #[test]
    fn errors_of_the_data_are_corrupt() {
        for line in [
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "ERR user_script:1: attempt to perform arithmetic on a nil value",
        ] {
            let error = explained(false, &reply(line));
            assert!(matches!(error, Error::Corrupt(_)), "{line}: {error:?}");
        }
    }

    #[test]
    fn a_refusal_names_the_setting_to_check() {
        for line in [
            "NOAUTH Authentication required.",
            "NOPERM this user has no permissions",
        ] {
            let error = explained(false, &reply(line)).to_string();
            assert!(error.contains("queue.url"), "{error}");
        }
    }
}
