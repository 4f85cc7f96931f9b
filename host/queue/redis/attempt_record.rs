//! What an attempt left, as it is stored with the end of a task, or until the next attempt has ended
//! (`layout.md`). A new datum about an attempt is a field here.

use crate::Finish;
use hostel_task::{ExecutedBy, Name, Outcome, UnixMs};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// An order and a fencing token are a time with low bits that count within a millisecond, as `STEP` of
/// `scripts/shared/base.lua`.
pub(super) const STEP: u64 = 2048;

/// What an attempt left: stored with the end of the task, or until the next attempt has ended.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct AttemptRecord<'a> {
    /// The fencing token, which says when the attempt began; none if no attempt ended the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fence: Option<Cow<'a, str>>,
    /// Node, plugin and version that ran it.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<[Cow<'a, str>; 3]>,
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
    let error = match &finish.outcome {
        Outcome::Retry { error, .. } | Outcome::Lost { error, .. } | Outcome::Failed { error } => {
            Some(error.as_str())
        }
        Outcome::Completed { .. } | Outcome::Cancelled | Outcome::Released => None,
    };
    let attempt = AttemptRecord {
        fence: Some(finish.token.fence.to_string().into()),
        by: by.map(|by| {
            [by.node.as_str(), by.plugin.as_str(), &by.plugin_version].map(Cow::Borrowed)
        }),
        error: error.map(Cow::Borrowed),
        why: None,
        class: None,
        uncounted: matches!(finish.outcome, Outcome::Released | Outcome::Lost { .. }),
        queue: Some(Cow::Borrowed(&queue_id[queue_id.len().saturating_sub(8)..])),
    };
    // Strings always serialize, on one line.
    let mut left = serde_json::to_vec(&attempt).unwrap_or_default();
    left.push(b'\n');
    if let Outcome::Completed { result } = &finish.outcome {
        left.extend_from_slice(result);
    }
    left
}

impl AttemptRecord<'_> {
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
}

/// Returns when the attempt with this fencing token began; `None` if it is no number.
pub(super) fn time_of_fence(fence: &str) -> Option<UnixMs> {
    let fence: u64 = fence.parse().ok()?;
    Some(begun_at(fence))
}

/// Does the same for the token as a number.
pub(super) fn begun_at(fence: u64) -> UnixMs {
    UnixMs(fence / STEP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LeaseToken;

    #[test]
    fn what_an_attempt_left_comes_back() {
        let id = Name::parse("id", "a").unwrap();
        let node = Name::parse("node", "node-1").unwrap();
        let executed_by = Some(ExecutedBy {
            plugin: node.clone(),
            node,
            plugin_version: "1.0.0+\"\n".into(),
        });
        let fence = 7 * STEP + 3;
        let finish = |outcome| Finish {
            token: LeaseToken {
                id: id.clone(),
                fence,
            },
            outcome,
            executed_by: executed_by.clone(),
        };
        let error = "no\nway".to_owned();
        let stored = write_attempt(&finish(Outcome::Failed { error }), "queue-12345678");
        // One line, so that scripts and results can follow it.
        let line = stored.strip_suffix(b"\n").unwrap();
        assert!(!line.contains(&b'\n'));
        let attempt = AttemptRecord::read(line);
        assert_eq!(attempt.error(), Some("no\nway"));
        assert_eq!(attempt.started_at(), Some(UnixMs(7)));
        assert_eq!(attempt.executed_by(), executed_by);
        assert!(!attempt.uncounted);
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
}
