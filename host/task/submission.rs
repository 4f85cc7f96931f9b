//! A task as a client submits it. The constructor enforces every limit; nothing validates it later.

use super::{
    name::{Name, TaskId},
    options::TaskOptions,
    route::{Route, Target},
    violations::Violations,
};
use bytes::Bytes;
use std::{collections::BTreeMap, sync::Arc};

/// A valid task that is not stored yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    id: TaskId,
    route: Route,
    payload: Bytes,
    metadata: Arc<BTreeMap<String, String>>,
    options: Option<Arc<TaskOptions>>,
    pending_limits: PendingLimits,
}

/// How many tasks may be pending for a submission to be accepted. No part of what makes two submissions the
/// same: they come from the limits in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PendingLimits {
    /// Tasks of its type.
    pub of_type: Option<usize>,
    /// Tasks of its type and its group.
    pub of_group: Option<usize>,
}

/// The limits of one submission, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmissionLimits {
    /// The largest payload in bytes.
    pub payload_bytes: usize,
    /// The largest number of metadata entries.
    pub metadata_entries: usize,
    /// The sum of all keys and values.
    pub metadata_bytes: usize,
}

impl Submission {
    /// The size of a submission without its payload and metadata, in bytes.
    const FIXED_BYTES: usize = 256;

    /// Makes a submission that is within the limits, or returns all its faults.
    pub fn new(
        id: &str,
        task_type: &str,
        payload: Bytes,
        metadata: BTreeMap<String, String>,
        limits: &SubmissionLimits,
    ) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let id = violations.name("task_id", "task id", id);
        let task_type = violations.name("task_type", "task type", task_type);
        if payload.len() > limits.payload_bytes {
            let (given, limit) = (payload.len(), limits.payload_bytes);
            let reason =
                format!("{given} bytes; this node accepts {limit} (limits.max_payload_bytes)");
            violations.refuse("payload", reason);
        }
        check_metadata(&metadata, limits, &mut violations);
        match (id, task_type) {
            (Some(id), Some(task_type)) if violations.is_empty() => Ok(Self {
                id,
                route: Route {
                    task_type,
                    target: Target::Any,
                },
                payload,
                metadata: Arc::new(metadata),
                options: None,
                pending_limits: PendingLimits::default(),
            }),
            _ => Err(violations),
        }
    }

    /// Sets the options of the task; without this, it asks for nothing.
    pub fn with(mut self, options: TaskOptions) -> Self {
        self.options = (!options.is_default()).then(|| Arc::new(options));
        self
    }

    /// Sets which nodes may run the task; without this, any may.
    pub fn to(mut self, target: Target) -> Self {
        self.route.target = target;
        self
    }

    /// Sets how many tasks may be pending for it to be accepted; without this, any number.
    pub fn limited(mut self, pending_limits: PendingLimits) -> Self {
        self.pending_limits = pending_limits;
        self
    }

    /// The task's id.
    pub fn id(&self) -> &TaskId {
        &self.id
    }

    /// The task type.
    pub fn task_type(&self) -> &Name {
        &self.route.task_type
    }

    /// Which nodes may run the task.
    pub fn target(&self) -> &Target {
        &self.route.target
    }

    /// The type and the target.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// The payload.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// The metadata.
    pub fn metadata(&self) -> &Arc<BTreeMap<String, String>> {
        &self.metadata
    }

    /// The options; `None` if the task asks for nothing.
    pub fn options(&self) -> Option<&Arc<TaskOptions>> {
        self.options.as_ref()
    }

    /// The group, if the task has one.
    pub fn group(&self) -> Option<&Name> {
        self.options.as_ref()?.group.as_ref()
    }

    /// How many tasks may be pending for it to be accepted.
    pub fn pending_limits(&self) -> PendingLimits {
        self.pending_limits
    }

    /// Returns the size of what is sent to the store, in bytes.
    pub fn bytes(&self) -> usize {
        let options = self.options.as_ref().map_or(0, |options| options.bytes());
        Self::FIXED_BYTES + self.payload.len() + metadata_bytes(&self.metadata) + options
    }
}

/// Returns the size of all keys and values.
pub(crate) fn metadata_bytes(metadata: &BTreeMap<String, String>) -> usize {
    metadata
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum()
}

fn check_metadata(
    metadata: &BTreeMap<String, String>,
    limits: &SubmissionLimits,
    violations: &mut Violations,
) {
    let mut refuse = |reason: String| violations.refuse("metadata", reason);
    let (given, limit) = (metadata.len(), limits.metadata_entries);
    if given > limit {
        refuse(format!(
            "{given} entries; this node accepts {limit} (limits.max_metadata_entries)"
        ));
    }
    let (given, limit) = (metadata_bytes(metadata), limits.metadata_bytes);
    if given > limit {
        refuse(format!(
            "{given} bytes; this node accepts {limit} (limits.max_metadata_bytes)"
        ));
    }
    if metadata.contains_key("") {
        refuse("a key is empty".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SubmissionLimits = SubmissionLimits {
        payload_bytes: 4,
        metadata_entries: 2,
        metadata_bytes: 8,
    };

    fn submit(
        id: &str,
        payload: &'static [u8],
        metadata: &[(&str, &str)],
    ) -> Result<Submission, Violations> {
        let metadata = metadata
            .iter()
            .map(|&(k, v)| (k.into(), v.into()))
            .collect();
        Submission::new(id, "echo", Bytes::from_static(payload), metadata, &LIMITS)
    }

    #[test]
    fn metadata_counts_in_the_size() {
        let without = submit("a", b"1234", &[]).unwrap().bytes();
        let with = submit("a", b"1234", &[("abcd", "efg"), ("h", "")]).unwrap();
        assert_eq!(with.bytes(), without + 8);
    }

    #[test]
    fn each_limit_is_enforced_and_its_edge_is_accepted() {
        assert!(submit("a", b"1234", &[("abcd", "efg"), ("h", "")]).is_ok());
        let refused = |id, payload, metadata: &[_]| {
            let Violations(violations) = submit(id, payload, metadata).unwrap_err();
            violations
                .into_iter()
                .map(|it| it.field)
                .collect::<Vec<_>>()
        };
        assert_eq!(refused("a", b"12345", &[]), ["payload"]);
        assert_eq!(
            refused("a", b"", &[("a", ""), ("b", ""), ("c", "")]),
            ["metadata"]
        );
        assert_eq!(refused("a", b"", &[("abcd", "efghi")]), ["metadata"]);
        assert_eq!(refused("a", b"", &[("", "x")]), ["metadata"]);
        assert_eq!(refused("", b"", &[]), ["task_id"]);
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let error = submit("a b", b"12345", &[("", "123456789")]).unwrap_err();
        let text = error.to_string();
        for part in [
            "task_id: ",
            "payload: 5 bytes",
            "metadata: 9 bytes",
            "a key is empty",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
