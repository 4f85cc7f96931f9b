//! Encodes for the scripts, which do not read JSON, what they need of the options of a task: a line of its
//! record (`layout.md`), and what a submission asks for (`scripts/submit.lua`).

use super::scripts::ms;
use hostel_task::{Name, Priority, Start, TaskOptions, UnixMs};
use std::{fmt::Write, time::Duration};

/// The largest time that is passed to a script, which a double still holds exactly.
const FAR: u64 = 1 << 52;

/// Stands for an absent word. No name begins with it.
const ABSENT: &str = "-";

/// How a submission gets its unique key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reservation {
    /// It has none.
    NotNeeded,
    /// The key is reserved, and allows to store the task until this time of the task's shard.
    Until(u64),
    /// The script that stores the task takes the key, which is in the same shard.
    InScript,
}

/// Returns when a task is due and has to begin, as words, and what the script has to know of its unique key.
pub(super) fn asks(options: &TaskOptions, reservation: Reservation) -> String {
    let (after, at) = match options.start {
        Start::Now => (0, 0),
        Start::After(delay) => (ms(delay), 0),
        Start::At(UnixMs(at)) => (0, at.min(FAR)),
    };
    let start_by = start_by(options);
    let asks = |reserved_until: u64| format!("{after} {at} {reserved_until} {start_by}");
    match (reservation, &options.unique) {
        (Reservation::InScript, Some(unique)) => {
            let time = unique.time.map_or(0, |time: Duration| ms(time));
            format!("{} {time}", asks(0))
        }
        (Reservation::Until(time), _) => asks(time),
        (Reservation::NotNeeded | Reservation::InScript, _) => asks(0),
    }
}

/// Returns the time by which the first attempt has to begin. Zero stands for none, so the smallest time is
/// one.
fn start_by(options: &TaskOptions) -> u64 {
    options.start_by.map_or(0, |UnixMs(by)| by.clamp(1, FAR))
}

/// Returns the line of options in a record, as words.
pub(super) fn words(options: &TaskOptions) -> String {
    let start_by = start_by(options);
    let result_ttl = options.result_ttl.map_or(0, |ttl| ms(ttl).max(1));
    let priority = priority_mark(options.priority);
    let name = |name: Option<&Name>| name.map_or(ABSENT, Name::as_str).to_owned();
    let group = name(options.group.as_ref());
    let key = name(options.unique.as_ref().map(|unique| &unique.key));
    let mut words = format!("{start_by} {result_ttl} {priority} {group} {key}");
    for tag in &options.tags {
        // Writing to a text cannot fail.
        let _ = write!(words, " {tag}");
    }
    words
}

/// Returns the mark of a priority in records and in the names of backlogs; the one for normal stands for none
/// there.
pub(super) fn priority_mark(priority: Priority) -> char {
    match priority {
        Priority::High => '+',
        Priority::Normal => '-',
        Priority::Low => '~',
    }
}

/// Returns the options of a task that has a priority with this mark now, which may be another one than was
/// submitted.
pub(super) fn with_mark(options: Option<TaskOptions>, mark: char) -> Option<TaskOptions> {
    let mut all = Priority::ALL.into_iter();
    let current = all.find(|&priority| priority_mark(priority) == mark);
    let submitted = options.as_ref().map_or(Priority::Normal, |it| it.priority);
    match current {
        Some(priority) if priority != submitted => Some(TaskOptions {
            priority,
            ..options.unwrap_or_default()
        }),
        _ => options,
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
        assert_eq!(words(&TaskOptions::default()), "0 0 - - -");
        assert_eq!(
            asks(&TaskOptions::default(), Reservation::NotNeeded),
            "0 0 0 0"
        );
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
        assert_eq!(words(&options), "1 1 ~ g k a b");
        assert_eq!(asks(&options, Reservation::Until(7)), "1 0 7 1");
        assert_eq!(asks(&options, Reservation::InScript), "1 0 0 1 0");
        let far = TaskOptions {
            start: Start::At(UnixMs(u64::MAX)),
            start_by: Some(UnixMs(u64::MAX)),
            result_ttl: Some(Duration::MAX),
            ..TaskOptions::default()
        };
        let far = format!("{} {}", words(&far), asks(&far, Reservation::NotNeeded));
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

    #[test]
    fn the_priority_of_a_record_is_the_one_that_counts() {
        let high = TaskOptions {
            priority: Priority::High,
            ..TaskOptions::default()
        };
        assert_eq!(with_mark(None, '-'), None);
        assert_eq!(with_mark(None, '+'), Some(high.clone()));
        assert_eq!(with_mark(Some(high.clone()), '+'), Some(high.clone()));
        assert_eq!(with_mark(Some(high.clone()), '?'), Some(high.clone()));
        let normal = with_mark(Some(high), '-');
        assert_eq!(normal, Some(TaskOptions::default()));
    }
}
