//! The fuzz target of messages as they go through Redis.

use super::wire::{decode, encode};
use crate::{Message, ReplyTo};
use bytes::Bytes;
use hostel_fuzz::Target;
use hostel_task::Name;

/// Bytes that decode are a message that encodes to itself.
pub const MESSAGES: Target = Target {
    name: "messages",
    seeds: || {
        let name = |text| Name::parse("name", text).expect("a sound name");
        let message = |reply_to| Message {
            id: "id".into(),
            from: String::new(),
            to: name("to"),
            message_type: "ä\n".into(),
            payload: Bytes::from_static(b"\0\xff payload"),
            in_reply_to: "earlier".into(),
            error: "why".into(),
            reply_to,
        };
        let node = name("node-1");
        let back = |request| {
            Some(ReplyTo {
                node: node.clone(),
                request,
            })
        };
        [None, back(None), back(Some(u64::MAX - 1))]
            .map(|reply_to| encode(&message(reply_to)))
            .into()
    },
    check: |bytes| {
        if let Ok(message) = decode(bytes) {
            assert_eq!(decode(&encode(&message)), Ok(message));
        }
    },
};

#[cfg(test)]
mod tests {
    #[test]
    fn fuzz_messages() {
        super::MESSAGES.run();
    }
}
