//! Encodes the options of a task: as JSON, which is stored and compared, and as words for the scripts, which
//! do not read JSON (`scripts/submit.lua`, and field `y` in `scripts/common.lua`).

use super::{errors::corrupt, scripts::ms};
use crate::Error;
use hostel_task::{Name, Priority, Start, Submission, TaskOptions, UnixMs};
use std::{fmt::Write, sync::Arc, time::Duration};

/// The largest time that is passed to a script, which a double still holds exactly.
const FAR: u64 = 1 << 52;

/// Stands for an absent word. No name begins with it.
const ABSENT: &str = "-";

/// Returns the options as they are stored and compared; an empty text if there are none.
pub(super) fn write(task: &Submission) -> String {
    // Options always serialize.
    let json = |options: &Arc<TaskOptions>| serde_json::to_string(&**options).unwrap_or_default();
    task.options().map(json).unwrap_or_default()
}

/// Reads options; `None` for an empty text.
pub(super) fn read(id: &str, stored: &[u8]) -> Result<Option<Arc<TaskOptions>>, Error> {
    if stored.is_empty() {
        return Ok(None);
    }
    let options = serde_json::from_slice(stored);
    let options = options.map_err(|error| corrupt(id, &format!("its options ({error})")))?;
    Ok(Some(Arc::new(options)))
}

/// Returns what scripts need of the options, as words. `reserved_until` is the time until which the
/// reservation of the unique key allows to store the task, 0 if it has none.
pub(super) fn words(options: &TaskOptions, reserved_until: u64) -> String {
    let (after, at) = match options.start {
        Start::Now => (0, 0),
        Start::After(delay) => (ms(delay), 0),
        Start::At(UnixMs(at)) => (0, at.min(FAR)),
    };
    // Zero stands for none, so the smallest time is one.
    let start_by = options.start_by.map_or(0, |UnixMs(by)| by.clamp(1, FAR));
    let result_ttl = options.result_ttl.map_or(0, |ttl| ms(ttl).max(1));
    let priority = priority_mark(options.priority);
    let name = |name: Option<&Name>| name.map_or(ABSENT, Name::as_str).to_owned();
    let group = name(options.group.as_ref());
    let key = name(options.unique.as_ref().map(|unique| &unique.key));
    let mut words =
        format!("{after} {at} {reserved_until} {start_by} {result_ttl} {priority} {group} {key}");
    for tag in &options.tags {
        // Writing to a text cannot fail.
        let _ = write!(words, " {tag}");
    }
    words
}

/// Returns the mark of a priority in the names of backlogs; the one for normal stands for none.
fn priority_mark(priority: Priority) -> char {
    match priority {
        Priority::High => '+',
        Priority::Normal => '-',
        Priority::Low => '~',
    }
}

/// Returns the name of a task's unique key in its shard, and how long the task has it at least, in
/// milliseconds; `None` if it has none.
pub(super) fn unique_key(task_type: &Name, options: &TaskOptions) -> Option<(String, u64)> {
    let unique = options.unique.as_ref()?;
    let time = unique.time.map_or(0, |time: Duration| ms(time));
    Some((format!("{task_type} {}", unique.key), time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostel_task::{SHARES, Unique};

    #[test]
    fn absent_options_have_a_word_each() {
        assert_eq!(words(&TaskOptions::default(), 0), "0 0 0 0 0 - - -");
        let name = |text| Name::parse("name", text).unwrap();
        let options = TaskOptions {
            start: Start::After(Duration::from_micros(1500)),
            start_by: Some(UnixMs(0)),
            result_ttl: Some(Duration::ZERO),
            priority: Priority::Low,
            group: Some(name("g")),
            tags: [name("b"), name("a")].into(),
            unique: Some(Unique {
                key: name("k"),
                time: None,
            }),
            ..TaskOptions::default()
        };
        assert_eq!(words(&options, 7), "1 0 7 1 1 ~ g k a b");
        let far = TaskOptions {
            start: Start::At(UnixMs(u64::MAX)),
            start_by: Some(UnixMs(u64::MAX)),
            result_ttl: Some(Duration::MAX),
            ..TaskOptions::default()
        };
        let far = words(&far, 0);
        assert!(far.split(' ').all(|word| word.len() <= 16), "{far}");
    }

    #[test]
    fn scripts_and_policy_agree_on_the_turns_of_priorities() {
        let cycle = SHARES.iter().sum();
        let turns: String = (0..cycle)
            .map(Priority::of_turn)
            .map(priority_mark)
            .collect();
        let line = format!("local TURNS = '{turns}'\n");
        assert!(include_str!("scripts/lease.lua").contains(&line), "{line}");
    }
}
