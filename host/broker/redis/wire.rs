//! The encoding of messages, which nodes of several versions share.
//!
//! A message is one byte of version and then its fields in order. A text is its length (four bytes,
//! little-endian) and its bytes. Bytes after the last field belong to later versions and are skipped.

use crate::message::{Message, ReplyTo};
use bytes::Bytes;
use hostel_task::Name;

const VERSION: u8 = 1;

/// Why bytes cannot be decoded.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("its format {0} is not known to this version of Hostel")]
    Version(u8),
    #[error("it is malformed")]
    Malformed,
}

pub(super) fn encode(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.payload.len() + 256);
    bytes.push(VERSION);
    let texts = [
        message.id.as_bytes(),
        message.from.as_bytes(),
        message.to.as_str().as_bytes(),
        message.message_type.as_bytes(),
        message.in_reply_to.as_bytes(),
        message.error.as_bytes(),
        &message.payload,
    ];
    for text in texts {
        put(&mut bytes, text);
    }
    // No node has the empty name, so it stands for no request.
    let reply_to = message.reply_to.as_ref();
    put(
        &mut bytes,
        reply_to.map_or(b"", |reply_to| reply_to.node.as_str().as_bytes()),
    );
    // Nor has any request the number 0.
    let request = reply_to.and_then(|reply_to| reply_to.request);
    let request = request.unwrap_or_default();
    bytes.extend_from_slice(&request.to_le_bytes());
    bytes
}

fn put(bytes: &mut Vec<u8>, text: &[u8]) {
    // Redis takes no message this long, so no text is ever cut.
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&text[..length as usize]);
}

pub(super) fn decode(bytes: &[u8]) -> Result<Message, Unreadable> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => fields(rest).ok_or(Unreadable::Malformed),
        Some((&version, _)) => Err(Unreadable::Version(version)),
        None => Err(Unreadable::Malformed),
    }
}

fn fields(rest: &[u8]) -> Option<Message> {
    let mut rest = rest;
    let mut text = || {
        let (length, behind) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (text, behind) = behind.split_at_checked(length)?;
        rest = behind;
        Some(text)
    };
    let message = Message {
        id: owned(text()?)?,
        from: owned(text()?)?,
        to: name(text()?)?,
        message_type: owned(text()?)?,
        in_reply_to: owned(text()?)?,
        error: owned(text()?)?,
        payload: Bytes::copy_from_slice(text()?),
        reply_to: None,
    };
    let node = text()?;
    let (request, _) = rest.split_first_chunk()?;
    let reply_to = if node.is_empty() {
        None
    } else {
        let request = u64::from_le_bytes(*request);
        Some(ReplyTo {
            node: name(node)?,
            request: Some(request).filter(|&number| number > 0),
        })
    };
    Some(Message {
        reply_to,
        ..message
    })
}

fn owned(text: &[u8]) -> Option<String> {
    Some(std::str::from_utf8(text).ok()?.to_owned())
}

fn name(text: &[u8]) -> Option<Name> {
    Name::parse("name", std::str::from_utf8(text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(reply_to: Option<ReplyTo>) -> Message {
        Message {
            id: "id".into(),
            from: String::new(),
            to: name(b"to").unwrap(),
            message_type: "ä\n".into(),
            payload: Bytes::from_static(b"\0\xff payload"),
            in_reply_to: "earlier".into(),
            error: "why".into(),
            reply_to,
        }
    }

    fn reply_to(request: Option<u64>) -> Option<ReplyTo> {
        let node = name(b"node-1").unwrap();
        Some(ReplyTo { node, request })
    }

    fn waiting() -> Option<ReplyTo> {
        reply_to(Some(u64::MAX - 1))
    }

    #[test]
    fn decoding_reverses_encoding() {
        for back in [None, waiting(), reply_to(None)] {
            let sent = message(back);
            let mut bytes = encode(&sent);
            assert_eq!(decode(&bytes).unwrap(), sent);
            bytes.extend_from_slice(b"what a later version adds");
            assert_eq!(decode(&bytes).unwrap(), sent);
        }
    }

    #[test]
    fn malformed_bytes_are_refused() {
        let bytes = encode(&message(waiting()));
        for length in 0..bytes.len() {
            assert_eq!(
                decode(&bytes[..length]),
                Err(Unreadable::Malformed),
                "{length}"
            );
        }
        assert_eq!(decode(&[9, 1, 2]), Err(Unreadable::Version(9)));
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..10_000 {
            let mut changed = bytes.clone();
            changed[random.usize(..bytes.len())] = random.u8(..);
            // It may be another message, but must not panic.
            let _ = decode(&changed);
        }
    }
}
