//! The names of Redis channels and the topics they stand for. Names contain no braces and no patterns.

use crate::message::Topic;
use hostel_task::Name;

/// The kind of a topic, which follows the prefix.
const SHARED: &str = "topic:";
const NODE: &str = "node:";

/// The channels of one cluster, all under one prefix.
pub(super) struct Channels {
    prefix: String,
}

impl Channels {
    pub fn new(prefix: &Name) -> Self {
        Self {
            prefix: format!("{prefix}:"),
        }
    }

    /// Returns the name of a topic's channel.
    pub fn name(&self, topic: &Topic) -> String {
        let (kind, name) = match topic {
            Topic::Shared(name) => (SHARED, name),
            Topic::Node(name) => (NODE, name),
        };
        format!("{}{kind}{name}", self.prefix)
    }

    /// Returns the topic of a channel, or `None` for a channel that is none of ours.
    pub fn topic(&self, channel: &str) -> Option<Topic> {
        let rest = channel.strip_prefix(&self.prefix)?;
        let name = |text| Name::parse("topic", text).ok();
        match rest.strip_prefix(SHARED) {
            Some(text) => Some(Topic::Shared(name(text)?)),
            None => Some(Topic::Node(name(rest.strip_prefix(NODE)?)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_topic_has_a_channel_of_its_own() {
        let name = |text| Name::parse("topic", text).unwrap();
        let channels = Channels::new(&name("a:topic"));
        let topics = [
            Topic::Shared(name("x")),
            Topic::Node(name("x")),
            Topic::Shared(name("node:x")),
            Topic::Node(name("topic:x")),
        ];
        for topic in &topics {
            let same = topics
                .iter()
                .filter(|other| channels.name(other) == channels.name(topic));
            assert_eq!(same.count(), 1);
            assert_eq!(channels.topic(&channels.name(topic)).as_ref(), Some(topic));
        }
        for other in [
            "x",
            "b:topic:x",
            "a:topic:x",
            "a:topic:topic:",
            "a:topic:topic:{x}",
        ] {
            assert_eq!(channels.topic(other), None, "{other}");
        }
    }
}
