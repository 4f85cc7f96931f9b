//! A task as a client submits it. The constructor enforces every limit; nothing validates it later.

use super::{
    name::{InvalidName, Name, TaskId},
    route::{Route, Target},
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

/// Why a submission was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSubmission {
    /// The id, type or target is no name.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The payload is too large.
    #[error("the payload has {given} bytes; this node accepts {limit} (limits.max_payload_bytes)")]
    Payload {
        /// Its size in bytes.
        given: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// There are too many metadata entries.
    #[error("{given} metadata entries; this node accepts {limit} (limits.max_metadata_entries)")]
    MetadataEntries {
        /// Their number.
        given: usize,
        /// The largest number.
        limit: usize,
    },
    /// The metadata is too large.
    #[error(
        "the metadata has {given} bytes; this node accepts {limit} (limits.max_metadata_bytes)"
    )]
    MetadataBytes {
        /// Its size in bytes.
        given: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A metadata key is empty.
    #[error("a metadata key is empty")]
    MetadataKey,
}

impl Submission {
    /// The size of a submission without its payload and metadata, in bytes.
    const FIXED_BYTES: usize = 256;

    /// Makes a submission that is within the limits.
    pub fn new(
        id: &str,
        task_type: &str,
        payload: Bytes,
        metadata: BTreeMap<String, String>,
        limits: &SubmissionLimits,
    ) -> Result<Self, InvalidSubmission> {
        let id = Name::parse("task id", id)?;
        let task_type = Name::parse("task type", task_type)?;
        if payload.len() > limits.payload_bytes {
            let (given, limit) = (payload.len(), limits.payload_bytes);
            return Err(InvalidSubmission::Payload { given, limit });
        }
        check_metadata(&metadata, limits)?;
        Ok(Self {
            id,
            route: Route {
                task_type,
                target: Target::Any,
            },
            payload,
            metadata: Arc::new(metadata),
        })
    }

    /// Sets which nodes may run the task; without this, any may.
    pub fn to(mut self, target: Target) -> Self {
        self.route.target = target;
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

    /// Returns the size of what is sent to the store, in bytes.
    pub fn bytes(&self) -> usize {
        Self::FIXED_BYTES + self.payload.len() + metadata_bytes(&self.metadata)
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
) -> Result<(), InvalidSubmission> {
    if metadata.len() > limits.metadata_entries {
        let (given, limit) = (metadata.len(), limits.metadata_entries);
        return Err(InvalidSubmission::MetadataEntries { given, limit });
    }
    let given = metadata_bytes(metadata);
    if given > limits.metadata_bytes {
        let limit = limits.metadata_bytes;
        return Err(InvalidSubmission::MetadataBytes { given, limit });
    }
    if metadata.contains_key("") {
        return Err(InvalidSubmission::MetadataKey);
    }
    Ok(())
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
    ) -> Result<Submission, InvalidSubmission> {
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
        assert!(matches!(
            submit("a", b"12345", &[]),
            Err(InvalidSubmission::Payload { given: 5, limit: 4 })
        ));
        assert!(matches!(
            submit("a", b"", &[("a", ""), ("b", ""), ("c", "")]),
            Err(InvalidSubmission::MetadataEntries { given: 3, limit: 2 })
        ));
        assert!(matches!(
            submit("a", b"", &[("abcd", "efghi")]),
            Err(InvalidSubmission::MetadataBytes { given: 9, limit: 8 })
        ));
        assert!(matches!(
            submit("a", b"", &[("", "x")]),
            Err(InvalidSubmission::MetadataKey)
        ));
        assert!(matches!(
            submit("", b"", &[]),
            Err(InvalidSubmission::Name(_))
        ));
    }
}
