//! Conversions between bytes and the Rust values that handlers and components take, return, send and
//! store. Bytes that cannot be decoded are a permanent error, because every attempt gets the same
//! bytes.

use crate::{Result, TaskError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A type that a payload can be decoded to: the argument of a handler or component, the answer to a
/// request, or a value from a store.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be used as a payload",
    label = "takes a `{Self}`",
    note = "a payload is decoded as `Vec<u8>`, `String`, `Json<T>` or `()`, and `T` implements \
            `serde::Deserialize`"
)]
pub trait Input: Sized {
    /// Decodes a payload.
    ///
    /// # Errors
    ///
    /// Returns a permanent error that states what is wrong and where.
    fn decode(payload: Vec<u8>) -> Result<Self>;
}

/// A type that can be encoded as a payload: the result of a handler or component, a message that is
/// sent, or a value that is stored.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be used as a result",
    label = "returns a `{Self}`",
    note = "a result is `Vec<u8>`, `String`, `Json<T>` or `()`, and `T` implements \
            `serde::Serialize`; or it is a `Result` of one of these"
)]
pub trait Output {
    /// `true` if a component that returns this type answers the message. Of the types in this crate,
    /// only `()` does not.
    const ANSWERS: bool = true;

    /// Encodes the value.
    ///
    /// # Errors
    ///
    /// Returns a permanent error if the value cannot be encoded.
    fn encode(self) -> Result<Vec<u8>>;
}

/// A type that a component can return for a message. An [`Output`] is the answer; `()` and `None` send
/// no answer.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot answer a message",
    label = "not an answer",
    note = "`Out` of a component is `Vec<u8>`, `String`, `Json<T>`, `()` or an `Option` of one"
)]
pub trait Answer {
    /// Encodes the answer; `None` sends no answer.
    ///
    /// # Errors
    ///
    /// Returns a permanent error if the value cannot be encoded.
    fn encode_answer(self) -> Result<Option<Vec<u8>>>;
}

impl<T: Output> Answer for T {
    fn encode_answer(self) -> Result<Option<Vec<u8>>> {
        let payload = self.encode()?;
        Ok(T::ANSWERS.then_some(payload))
    }
}

impl<T: Output> Answer for Option<T> {
    fn encode_answer(self) -> Result<Option<Vec<u8>>> {
        self.map(Output::encode).transpose()
    }
}

/// A value that is encoded as JSON.
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
        // The text of the error ends with the line and the column.
        serde_json::from_slice(&payload).map(Json).map_err(|error| {
            TaskError::permanent(format!("the payload is not the expected JSON: {error}"))
        })
    }
}

/// The input of a handler without a payload. A payload is an error, because it was meant for another
/// handler.
impl Input for () {
    fn decode(payload: Vec<u8>) -> Result<Self> {
        if payload.is_empty() {
            return Ok(());
        }
        let len = payload.len();
        Err(TaskError::permanent(format!(
            "the payload has {len} bytes, and no payload is expected"
        )))
    }
}

impl Output for Vec<u8> {
    fn encode(self) -> Result<Vec<u8>> {
        Ok(self)
    }
}

/// For messages and stored values; the result of a handler is owned.
impl Output for &[u8] {
    fn encode(self) -> Result<Vec<u8>> {
        Ok(self.to_vec())
    }
}

impl Output for &str {
    fn encode(self) -> Result<Vec<u8>> {
        Ok(self.into())
    }
}

impl Output for String {
    fn encode(self) -> Result<Vec<u8>> {
        Ok(self.into_bytes())
    }
}

impl<T: Serialize> Output for Json<T> {
    fn encode(self) -> Result<Vec<u8>> {
        // A value that JSON cannot represent, such as a map whose keys are not strings, is an error in
        // the plugin, so the error is permanent.
        serde_json::to_vec(&self.0).map_err(|error| {
            TaskError::permanent(format!("the value cannot be encoded as JSON: {error}"))
        })
    }
}

impl Output for () {
    const ANSWERS: bool = false;

    fn encode(self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
}

/// For handlers that can fail: both `Json<T>` and `Result<Json<T>>` are outputs.
impl<T: Output, E: Into<TaskError>> Output for Result<T, E> {
    const ANSWERS: bool = T::ANSWERS;

    fn encode(self) -> Result<Vec<u8>> {
        self.map_err(Into::into)?.encode()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn decode_error<T: Input + std::fmt::Debug>(payload: &[u8]) -> String {
        let error = T::decode(payload.to_vec()).unwrap_err();
        assert!(error.is_permanent());
        error.message().to_owned()
    }

    #[test]
    fn decode_errors_name_the_position() {
        assert_eq!(
            decode_error::<String>(b"ab\xffc"),
            "the payload is not UTF-8: byte 0xff at offset 2"
        );
        assert_eq!(
            decode_error::<Json<Vec<u8>>>(b"[1,\n 2,"),
            "the payload is not the expected JSON: EOF while parsing a value at line 2 column 3"
        );
        assert_eq!(
            decode_error::<Json<Vec<u8>>>(b"[1, 300]"),
            "the payload is not the expected JSON: invalid value: integer `300`, expected u8 at line 1 column 7"
        );
        assert_eq!(
            decode_error::<()>(b"abc"),
            "the payload has 3 bytes, and no payload is expected"
        );
    }

    #[test]
    fn bytes_are_not_copied() {
        let payload = vec![7; 100];
        let place = payload.as_ptr();
        let result = Vec::<u8>::decode(payload).and_then(Output::encode).unwrap();
        assert_eq!(result.as_ptr(), place);
    }

    #[test]
    fn unit_and_none_send_no_answer() {
        assert_eq!("yes".to_owned().encode_answer(), Ok(Some(b"yes".to_vec())));
        assert_eq!(String::new().encode_answer(), Ok(Some(Vec::new())));
        assert_eq!(Some(Json(1)).encode_answer(), Ok(Some(b"1".to_vec())));
        assert_eq!(None::<String>.encode_answer(), Ok(None));
        assert_eq!(().encode_answer(), Ok(None));
        assert_eq!(Ok::<(), TaskError>(()).encode_answer(), Ok(None));
    }

    #[test]
    fn a_value_that_json_cannot_represent_is_a_permanent_error() {
        let error = Json(BTreeMap::from([(vec![1], 1)])).encode().unwrap_err();
        assert_eq!(
            error,
            TaskError::permanent("the value cannot be encoded as JSON: key must be a string")
        );
    }
}
