//! What attempts leave in Redis: a line of JSON for each, with the end of the task or before that in
//! `TAG:past:ID`, and the history that follows from them. `layout.md` documents both.

use crate::Finish;
use hostel_task::{
    AttemptClass, AttemptHistory, AttemptRecord, AttemptReport, AttemptUsage, ExecutedBy, Name,
    Outcome, UnixMs,
};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, str::FromStr};

/// An order and a fencing token are a time with low bits that count within a millisecond, as `STEP` of
/// `scripts/shared/base.lua`.
pub(super) const STEP: u64 = 2048;

/// What an attempt left.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Left<'a> {
    /// The fencing token, which says when the attempt began; none if no attempt ended the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fence: Option<Cow<'a, str>>,
    /// Node, plugin and version that ran it.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<[Cow<'a, str>; 3]>,
    /// How it ended, unless it completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    how: Option<AttemptClass>,
    /// Processor time in microseconds, peak memory and log in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<[u64; 3]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Cow<'a, str>>,
    /// The reason of its cancellation, which a script puts before the rest. It takes the place of the error.
    #[serde(skip_serializing)]
    why: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<Cow<'a, str>>,
    /// The attempt is not counted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub uncounted: bool,
    /// The queue that ended it, so that another one does not take this for its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<Cow<'a, str>>,
}

/// Returns what a finish leaves: a line about the attempt, and the result if there is one. The same finish of
/// the same queue leaves the same bytes.
pub(super) fn write_attempt(finish: &Finish, queue_id: &str) -> Vec<u8> {
    let by = finish.executed_by.as_ref();
    let AttemptReport { class, usage } = finish.report;
    let used = [usage.cpu_us, usage.peak_memory_bytes, usage.log_bytes];
    let left = Left {
        fence: Some(finish.token.fence.to_string().into()),
        by: by.map(|by| {
            [by.node.as_str(), by.plugin.as_str(), &by.plugin_version].map(Cow::Borrowed)
        }),
        how: Some(class).filter(|class| *class != AttemptClass::Completed),
        used: Some(used).filter(|used| *used != [0; 3]),
        error: finish.error().map(Cow::Borrowed),
        why: None,
        class: None,
        uncounted: matches!(finish.outcome, Outcome::Released | Outcome::Lost { .. }),
        queue: Some(Cow::Borrowed(&queue_id[queue_id.len().saturating_sub(8)..])),
    };
    // Strings always serialize, on one line.
    let mut line = serde_json::to_vec(&left).unwrap_or_default();
    line.push(b'\n');
    if let Outcome::Completed { result } = &finish.outcome {
        line.extend_from_slice(result);
    }
    line
}

impl Left<'_> {
    /// Decodes what `write_attempt` or a script wrote; the default if there is nothing or it is malformed.
    pub fn read(line: &[u8]) -> Self {
        serde_json::from_slice(line).unwrap_or_default()
    }

    pub fn error(&self) -> Option<&str> {
        self.why.as_deref().or(self.error.as_deref())
    }

    pub fn started_at(&self) -> Option<UnixMs> {
        time_of_fence(self.fence.as_deref()?)
    }

    pub fn executed_by(&self) -> Option<ExecutedBy> {
        let [node, plugin, version] = self.by.as_ref()?;
        Some(ExecutedBy {
            node: Name::parse("node", node).ok()?,
            plugin: Name::parse("plugin", plugin).ok()?,
            plugin_version: (**version).into(),
        })
    }

    /// Returns the attempt of this number, which ended at a time, under a lease of a node; `None` if none began.
    pub fn record(
        &self,
        number: u32,
        ended_at: UnixMs,
        node: Option<Name>,
    ) -> Option<AttemptRecord> {
        let started_at = self.started_at()?;
        let by = self.executed_by();
        // An earlier version did not store the class.
        let class = match (self.how, &self.error) {
            (Some(class), _) => class,
            (None, Some(_)) => AttemptClass::Retryable,
            (None, None) => AttemptClass::Completed,
        };
        // What was lost was not cancelled itself.
        let error = if self.uncounted {
            self.error.as_deref()
        } else {
            self.error()
        };
        let [cpu_us, peak_memory_bytes, log_bytes] = self.used.unwrap_or_default();
        let report = AttemptReport {
            class,
            usage: AttemptUsage {
                cpu_us,
                peak_memory_bytes,
                log_bytes,
            },
        };
        report.is_recorded(by.as_ref()).then(|| AttemptRecord {
            number,
            class,
            error: error.map(str::to_owned),
            node: by.as_ref().map(|by| by.node.clone()).or(node),
            plugin: by.as_ref().map(|by| by.plugin.clone()),
            plugin_version: by.map(|by| by.plugin_version),
            started_at,
            ended_at,
            usage: report.usage,
        })
    }
}

/// What the earlier attempts of a task left: `TAG:past:ID`.
pub(super) struct Past<'a> {
    /// When the last one began that was tried again since, unless the task was requeued.
    pub started_at: Option<UnixMs>,
    /// How many there were.
    count: u32,
    status: &'a [u8],
    /// The latest ones, newest first.
    lines: &'a [u8],
}

impl<'a> Past<'a> {
    pub fn read(stored: &'a [u8]) -> Self {
        let (mark, rest) = split_line(stored);
        let (status, lines) = split_line(rest);
        let (mark, count) = split_at(mark, b' ');
        let digits = mark.iter().take_while(|byte| byte.is_ascii_digit()).count();
        Self {
            started_at: parse(&mark[..digits]).map(begun_at),
            count: parse(count).unwrap_or(0),
            status,
            lines,
        }
    }

    /// What the task says of its earlier attempts: what the latest one left that has an error.
    pub fn status(&self) -> Left<'a> {
        if self.status.is_empty() {
            let (line, _) = split_line(self.lines);
            Left::read(split_words(line).1)
        } else {
            Left::read(self.status)
        }
    }

    /// Returns the history up to now, without the attempt that ended the task.
    pub fn history(&self) -> AttemptHistory {
        let (mut records, mut rest, mut lines) = (Vec::new(), self.lines, 0);
        while !rest.is_empty() {
            let (line, next) = split_line(rest);
            (rest, lines) = (next, lines + 1);
            let ([ended_at, number, node], left) = split_words(line);
            let node = parse::<String>(node).and_then(|node| Name::parse("node", &node).ok());
            let ended_at = UnixMs(parse(ended_at).unwrap_or(0));
            records.extend(Left::read(left).record(parse(number).unwrap_or(0), ended_at, node));
        }
        let mut history = AttemptHistory::after(self.count.saturating_sub(lines));
        records
            .into_iter()
            .rev()
            .for_each(|record| history.push(record));
        history
    }
}

/// Splits off the three words before what an attempt left.
fn split_words(line: &[u8]) -> ([&[u8]; 3], &[u8]) {
    let (first, rest) = split_at(line, b' ');
    let (second, rest) = split_at(rest, b' ');
    let (third, rest) = split_at(rest, b' ');
    ([first, second, third], rest)
}

/// Splits a text behind its first line.
pub(super) fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    split_at(text, b'\n')
}

fn split_at(text: &[u8], separator: u8) -> (&[u8], &[u8]) {
    match text.iter().position(|&byte| byte == separator) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[]),
    }
}

pub(super) fn parse<T: FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Returns when the attempt with this fencing token began.
pub(super) fn time_of_fence(fence: &str) -> Option<UnixMs> {
    let fence: u64 = fence.parse().ok()?;
    Some(begun_at(fence))
}

/// Returns when the attempt with this fencing token began.
pub(super) fn begun_at(fence: u64) -> UnixMs {
    UnixMs(fence / STEP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LeaseToken;

    const FENCE: u64 = 1000 * STEP;

    #[test]
    fn a_history_has_what_scripts_have_gathered() {
        let stored = format!(
            "{FENCE}p12345678 40\n\n\
             1700 2 node-1 {{\"fence\":\"{0}\",\"by\":[\"n\",\"p\",\"1\"],\"how\":\"trap\",\
             \"used\":[1,2,3],\"error\":\"new\"}}\n\
             1600 1 node-1 {{\"fence\":\"{FENCE}\",\"how\":\"lost\",\"error\":\"old\"}}\n",
            FENCE + 500 * STEP
        );
        let past = Past::read(stored.as_bytes());
        assert_eq!(past.started_at, Some(UnixMs(1000)));
        assert_eq!(past.status().error(), Some("new"));
        let history = past.history();
        assert_eq!(history.left_out(), 38);
        let seen: Vec<_> = history
            .latest()
            .map(|it| (it.number, it.class.as_str(), it.started_at.0, it.ended_at.0))
            .collect();
        assert_eq!(seen, [(1, "lost", 1000, 1600), (2, "trap", 1500, 1700)]);
        let nodes = history
            .latest()
            .map(|it| it.node.as_ref().unwrap().as_str());
        assert_eq!(nodes.collect::<Vec<_>>(), ["node-1", "n"]);
    }

    #[test]
    fn what_an_earlier_format_left_says_what_the_task_is() {
        let past = Past::read(b"\n{\"error\":\"no\",\"by\":[\"n\",\"p\",\"1\"]}\n");
        assert_eq!(past.status().error(), Some("no"));
        assert!(past.status().executed_by().is_some());
        assert_eq!((past.started_at, past.history().latest().len()), (None, 0));
        let empty = Past::read(b"");
        assert!(empty.status().error().is_none());
        assert_eq!(empty.history(), AttemptHistory::default());
    }

    #[test]
    fn what_an_attempt_left_comes_back() {
        let id = Name::parse("id", "a").unwrap();
        let node = Name::parse("node", "node-1").unwrap();
        let executed_by = Some(ExecutedBy {
            plugin: node.clone(),
            node,
            plugin_version: "1.0.0+\"\n".into(),
        });
        let finish = |outcome| {
            let token = LeaseToken {
                id: id.clone(),
                fence: 7 * STEP + 3,
            };
            Finish::new(token, outcome, executed_by.clone())
        };
        let error = "no\nway".to_owned();
        let stored = write_attempt(&finish(Outcome::Failed { error }), "queue-12345678");
        // One line, so that scripts and results can follow it.
        let line = stored.strip_suffix(b"\n").unwrap();
        assert!(!line.contains(&b'\n'));
        let left = Left::read(line);
        assert_eq!(left.error(), Some("no\nway"));
        assert_eq!(left.started_at(), Some(UnixMs(7)));
        assert_eq!(left.executed_by(), executed_by);
        assert!(!left.uncounted);
        let result = "a\nb".into();
        let stored = write_attempt(&finish(Outcome::Completed { result }), "q");
        assert!(stored.ends_with(b"}\na\nb"));
    }

    #[test]
    fn scripts_have_the_same_step() {
        let base = include_str!("scripts/shared/base.lua");
        let line = format!("local STEP = {STEP}\n");
        assert!(base.contains(&line), "{line}");
    }

    #[test]
    fn malformed_lines_are_left_out() {
        let past = Past::read(b"x y\n\n\n1 2\n{}\n\xff\xff \xff\n1 1 n {\"fence\":\"x\"}");
        assert_eq!(past.history().latest().len(), 0);
        assert!(past.status().error().is_none());
    }
}
