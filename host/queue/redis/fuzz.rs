//! Fuzz targets of what comes back from clients and from Redis: page tokens and tasks' records. What is
//! handed to the scripts is in `tests/conformance/redis_arguments.rs`, since it takes a server.

use super::{
    queries::parse_token,
    record::{BULK, FIELDS, task},
};
use hostel_fuzz::{Choices, Target};
use hostel_task::{Name, TaskId};

/// What a token says can be an argument of a script.
pub const REDIS_PAGE_TOKENS: Target = Target {
    name: "redis_page_tokens",
    seeds: || {
        let tokens = ["p1-task", "p18446744073709551615-order:4711"];
        tokens.map(Vec::from).into()
    },
    check: |bytes| {
        let token = String::from_utf8_lossy(bytes);
        if let Ok(place) = parse_token(Some(&token)) {
            let (order, id) = place.expect("a token has a place");
            assert!(order.parse::<u64>().is_ok());
            assert!(Name::parse("id", &id).is_ok());
        }
    },
};

/// Each field of a record as a script writes it, in the order of `FIELDS` and `BULK`, and one value that
/// no script writes.
const SOUND: [&[u8]; 18] = [
    b"c",
    b"1795698346793",
    b"2",
    b"1",
    b"1",
    b"node-1",
    b"1",
    b"why",
    br#"["node-1","echo","1.0.0"]"#,
    b"1",
    b"corrupt",
    b"echo@node:n",
    b"1",
    br#"{"start":{"after":{"secs":1,"nanos":0}},"priority":"high","group":"g","tags":["t"],"unique":{"key":"k"}}"#,
    b"result",
    br#"{"lane":"echo@node:n","metadata":{"k":"v"}}"#,
    b"payload",
    b"\xff\0",
];

/// A record of any values reads as a task, as one that has failed for its damage, or as none.
pub const STORED_TASKS: Target = Target {
    name: "stored_tasks",
    seeds: Vec::new,
    check: |bytes| {
        let mut choices = Choices::new(bytes);
        // Most records have one damaged field. One choice in four makes all of them any of the samples.
        let damaged = choices.below(4 * SOUND.len());
        // Of a status, of a status with its result, or of a whole task.
        let read = FIELDS.len() + [0, 1, BULK.len()][choices.below(3)];
        let values = (0..read).map(|field| {
            if damaged >= SOUND.len() {
                choices.maybe(|choices| choices.near(&SOUND))
            } else if damaged == field {
                choices.maybe(|choices| choices.near(&[SOUND[field]]))
            } else {
                Some(SOUND[field].to_vec())
            }
        });
        let values: Vec<Option<Vec<u8>>> = values.collect();
        let is_there = values.iter().any(Option::is_some);
        let id = TaskId::parse("id", "task").expect("a sound id");
        assert_eq!(task(id, values).is_some(), is_there);
    },
};

#[cfg(test)]
mod tests {
    #[test]
    fn fuzz_redis_page_tokens() {
        super::REDIS_PAGE_TOKENS.run();
    }

    #[test]
    fn fuzz_stored_tasks() {
        super::STORED_TASKS.run();
    }
}
