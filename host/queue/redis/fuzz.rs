//! Fuzz targets of what comes back from clients and from Redis: page tokens and tasks' records. What is
//! handed to the scripts is in `tests/conformance/redis_arguments.rs`, since it takes a server.

use super::{
    listing::parse_token,
    record::{end_head_bytes, task},
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

/// What is stored of tasks, as the scripts write it: a record, a lease, the end of a lease, an end, what an
/// earlier attempt left, and progress.
const SOUND: [&[u8]; 9] = [
    b"3677589133910016 0000000000000 0000000000 0000 -f\n\n{\"lane\":\"echo\"}\npayload",
    b"3677589133910016 1795698346793 0000000002 0001 +a\n0 7 + g k t\n{\"lane\":\"echo@node:n\",\"metadata\":{\"k\":\"v\"},\"options\":{\"start\":{\"after\":{\"secs\":1,\"nanos\":0}},\"priority\":\"high\",\"group\":\"g\",\"tags\":[\"t\"],\"unique\":{\"key\":\"k\"}}}\npayload",
    b"3677589133910016 3677589133910017 node-1 echo@node:n - k",
    b"1795698346793",
    b"c 1795698346793 0 - echo\n{\"fence\":\"3677589133910017\",\"by\":[\"node-1\",\"echo\",\"1.0.0\"],\"queue\":\"12345678\"}\nresult",
    b"f 1795698346793 0 7 echo\n{\"error\":\"why\",\"class\":\"corrupt\"}\n",
    b"3677589133910017p12345678\n{\"fence\":\"3677589133910017\",\"error\":\"why\",\"uncounted\":true}\n",
    br#"{"done":1,"total":2,"note":"n"}"#,
    b"\xff\0\n\n",
];

/// Records of any values read as a task: as one that has failed for its damage, if they are damaged.
pub const STORED_TASKS: Target = Target {
    name: "stored_tasks",
    seeds: Vec::new,
    check: |bytes| {
        let mut choices = Choices::new(bytes);
        let mut any = || {
            let sample = *choices.one_of(&SOUND);
            match choices.below(4) {
                0 => Vec::new(),
                1 => choices.near(&[sample]),
                _ => sample.to_vec(),
            }
        };
        let [record, run, lease_end, end, past] = [any(), any(), any(), any(), any()];
        let progress = any();
        assert!(end_head_bytes(&end) <= end.len());
        let parts = (record, 1, run, lease_end, end, 1, past, progress);
        let id = TaskId::parse("id", "task").expect("a sound id");
        assert_eq!(task(id.clone(), parts).id, id);
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
