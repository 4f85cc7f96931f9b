//! Bytes to Rust values and back: what handlers and components take and return, send and store.
//! Bytes that do not decode are refused here, permanently: the same bytes come with every attempt.

use crate::{Result, TaskError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a payload can be made into: what handlers and components take, messages are answered with,
/// and stores give back.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no payload that can be taken",
    label = "takes a `{Self}`",
    note = "a payload is taken as `Vec<u8>`, `String`, `Json<T>` or `()`, and `T` implements \
            `serde::Deserialize`"
)]
pub trait Input: Sized {
    /// Fails permanently, and says what is wrong and where.
    fn decode(payload: Vec<u8>) -> Result<Self>;
}

/// What can be made into a payload: what handlers and components return, send and store.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no result that can be returned",
    label = "returns a `{Self}`",
    note = "a result is `Vec<u8>`, `String`, `Json<T>` or `()`, and `T` implements \
            `serde::Serialize`; or it is a `Result` of one of these"
)]
pub trait Output {
    /// Whether it answers when a component returns it. Of the types here `()` alone does not.
    const ANSWERS: bool = true;

    /// Fails permanently where the value has no form in bytes.
    fn encode(self) -> Result<Vec<u8>>;
}

/// What a component can return for a message: any [`Output`] is the answer; `()`, and `None` of an
/// `Option`, is no answer.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot answer a message",
    label = "not an answer",
    note = "`Out` of a component is `Vec<u8>`, `String`, `Json<T>`, `()` or an `Option` of one"
)]
pub trait Answer {
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

/// For what needs no payload. One that comes all the same was meant for something else.
impl Input for () {
    fn decode(payload: Vec<u8>) -> Result<Self> {
        if payload.is_empty() {
            return Ok(());
        }
        let len = payload.len();
        Err(TaskError::permanent(format!(
            "no payload is taken here, and {len} bytes came"
        )))
    }
}

impl Output for Vec<u8> {
    fn encode(self) -> Result<Vec<u8>> {
        Ok(self)
    }
}

/// For what is sent or stored; what a handler returns is owned.
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
        // A value without a JSON form, such as a map with keys that are no text, is a fault of the
        // plugin: the same code makes it again.
        serde_json::to_vec(&self.0)
            .map_err(|error| TaskError::permanent(format!("the value has no JSON form: {error}")))
    }
}

impl Output for () {
    const ANSWERS: bool = false;

    fn encode(self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
}

/// A handler may fail or not: both `Json<T>` and `Result<Json<T>>` are outputs.
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
            "no payload is taken here, and 3 bytes came"
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
    fn nothing_and_none_are_no_answers() {
        assert_eq!("yes".to_owned().encode_answer(), Ok(Some(b"yes".to_vec())));
        assert_eq!(String::new().encode_answer(), Ok(Some(Vec::new())));
        assert_eq!(Some(Json(1)).encode_answer(), Ok(Some(b"1".to_vec())));
        assert_eq!(None::<String>.encode_answer(), Ok(None));
        assert_eq!(().encode_answer(), Ok(None));
        assert_eq!(Ok::<(), TaskError>(()).encode_answer(), Ok(None));
    }

    #[test]
    fn a_value_without_a_json_form_fails_permanently() {
        let error = Json(BTreeMap::from([(vec![1], 1)])).encode().unwrap_err();
        assert_eq!(
            error,
            TaskError::permanent("the value has no JSON form: key must be a string")
        );
    }
}
