//! A message as bytes, for channels that nodes of several versions share. No Redis in here.
//!
//! One byte of version, then the fields in order, each text as its length (four bytes, little end
//! first) and itself. What follows the last field is for later versions and is skipped.

use super::super::{Message, ReplyTo};
use bytes::Bytes;
use hostel_task::Name;

const VERSION: u8 = 1;

/// Why bytes are no message.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("its format {0} is not known to this version of Hostel")]
    Version(u8),
    #[error("it is broken")]
    Broken,
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
    // No node has the empty name, so it says that nobody waits.
    let back = message.reply_to.as_ref();
    put(
        &mut bytes,
        back.map_or(b"", |back| back.node.as_str().as_bytes()),
    );
    let request = back.map_or(0, |back| back.request);
    bytes.extend_from_slice(&request.to_le_bytes());
    bytes
}

fn put(bytes: &mut Vec<u8>, text: &[u8]) {
    // Longer than Redis takes in one message, so never cut in fact.
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&text[..length as usize]);
}

pub(super) fn decode(bytes: &[u8]) -> Result<Message, Unreadable> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => fields(rest).ok_or(Unreadable::Broken),
        Some((&version, _)) => Err(Unreadable::Version(version)),
        None => Err(Unreadable::Broken),
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
    let reply_to = match node.is_empty() {
        true => None,
        false => Some(ReplyTo {
            node: name(node)?,
            request: u64::from_le_bytes(*request),
        }),
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
    use hostel_fuzz as fuzz;

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

    fn waiting() -> Option<ReplyTo> {
        let (node, request) = (name(b"node-1").unwrap(), u64::MAX - 1);
        Some(ReplyTo { node, request })
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for sent in [message(None), message(waiting())] {
            let mut bytes = encode(&sent);
            assert_eq!(decode(&bytes).unwrap(), sent);
            bytes.extend_from_slice(b"what a later version adds");
            assert_eq!(decode(&bytes).unwrap(), sent);
        }
    }

    #[test]
    fn whatever_else_comes_is_refused() {
        let bytes = encode(&message(waiting()));
        for length in 0..bytes.len() {
            assert_eq!(
                decode(&bytes[..length]),
                Err(Unreadable::Broken),
                "{length}"
            );
        }
        assert_eq!(decode(&[9, 1, 2]), Err(Unreadable::Version(9)));
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..10_000 {
            let mut changed = bytes.clone();
            changed[random.usize(..bytes.len())] = random.u8(..);
            // It may be another message; it may not be a panic.
            let _ = decode(&changed);
        }
    }

    #[test]
    fn fuzz_message_bytes() {
        let samples = [encode(&message(None)), encode(&message(waiting()))];
        let samples = [&samples[0][..], &samples[1][..]];
        fuzz::each(|near| {
            if let Ok(read) = decode(&near.bytes(&samples)) {
                assert_eq!(decode(&encode(&read)).unwrap(), read);
            }
        });
    }
}
