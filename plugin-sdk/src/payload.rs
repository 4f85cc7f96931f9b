//! Bytes to Rust values and back: what a handler may take and return. Bytes that do not decode are
//! refused here, permanently, since the same bytes come again with every attempt.

use crate::{Result, TaskError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a handler can take: made of a task's payload.
pub trait Input: Sized {
    /// Fails permanently, and says what is wrong and where.
    fn decode(payload: Vec<u8>) -> Result<Self>;
}

/// What a handler can return: becomes a task's result.
pub trait Output {
    fn encode(self) -> Result<Vec<u8>>;
}

/// A value that travels as JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl Input for Vec<u8> {
    fn decode(payload: Vec<u8>) -> Result<Self> {
        Ok(payload)
    }
}

impl Input for String {
    fn decode(payload: Vec<u8>) -> Result<Self> {
        String::from_utf8(payload).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            TaskError::permanent(match error.as_bytes().get(at) {
                Some(byte) => {
                    format!("the payload is not UTF-8: byte {byte:#04x} at offset {at}")
                }
                None => format!("the payload is not UTF-8: offset {at}"),
            })
        })
    }
}

impl<T: DeserializeOwned> Input for Json<T> {
    fn decode(payload: Vec<u8>) -> Result<Self> {
        // The error's own text ends with the line and the column.
        serde_json::from_slice(&payload)
            .map(Json)
            .map_err(|error| TaskError::permanent(format!("the payload is not as due: {error}")))
    }
}

/// For a task that needs no payload. One that comes all the same was meant for something else.
impl Input for () {
    fn decode(payload: Vec<u8>) -> Result<Self> {
        if payload.is_empty() {
            return Ok(());
        }
        let len = payload.len();
        Err(TaskError::permanent(format!(
            "this task takes no payload, and {len} bytes came"
        )))
    }
}

impl Output for Vec<u8> {
    fn encode(self) -> Result<Vec<u8>> {
        Ok(self)
    }
}

impl Output for String {
    fn encode(self) -> Result<Vec<u8>> {
        Ok(self.into_bytes())
    }
}

impl<T: Serialize> Output for Json<T> {
    fn encode(self) -> Result<Vec<u8>> {
        // A value without a JSON form, such as a map with keys that are no text, is a fault of the
        // plugin: the same code makes it again.
        serde_json::to_vec(&self.0)
            .map_err(|error| TaskError::permanent(format!("the result has no JSON form: {error}")))
    }
}

impl Output for () {
    fn encode(self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
}

/// A handler may fail or not: both `Json<T>` and `Result<Json<T>>` are outputs.
impl<T: Output, E: Into<TaskError>> Output for Result<T, E> {
    fn encode(self) -> Result<Vec<u8>> {
        self.map_err(Into::into)?.encode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn refusal<T: Input + std::fmt::Debug>(payload: &[u8]) -> String {
        let error = T::decode(payload.to_vec()).unwrap_err();
        assert!(error.is_permanent());
        error.message().to_owned()
    }

    #[test]
    fn what_does_not_decode_says_where() {
        assert_eq!(
            refusal::<String>(b"ab\xffc"),
            "the payload is not UTF-8: byte 0xff at offset 2"
        );
        assert_eq!(
            refusal::<Json<Vec<u8>>>(b"[1,\n 2,"),
            "the payload is not as due: EOF while parsing a value at line 2 column 3"
        );
        assert_eq!(
            refusal::<Json<Vec<u8>>>(b"[1, 300]"),
            "the payload is not as due: invalid value: integer `300`, expected u8 at line 1 column 7"
        );
        assert_eq!(
            refusal::<()>(b"abc"),
            "this task takes no payload, and 3 bytes came"
        );
    }

    #[test]
    fn bytes_pass_without_a_copy() {
        let payload = vec![7; 100];
        let place = payload.as_ptr();
        let result = Vec::<u8>::decode(payload).and_then(Output::encode).unwrap();
        assert_eq!(result.as_ptr(), place);
    }

    #[test]
    fn a_value_without_a_json_form_fails_permanently() {
        let error = Json(BTreeMap::from([(vec![1], 1)])).encode().unwrap_err();
        assert_eq!(
            error,
            TaskError::permanent("the result has no JSON form: key must be a string")
        );
    }
}
