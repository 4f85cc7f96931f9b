//! How a payload is stored in JSON: as text if it is one, else in hexadecimal digits.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::borrow::Cow;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Stored<'a> {
    Text(Cow<'a, str>),
    Hex(String),
}

pub(crate) fn serialize<S: Serializer>(payload: &Bytes, to: S) -> Result<S::Ok, S::Error> {
    let stored = match std::str::from_utf8(payload) {
        Ok(text) => Stored::Text(text.into()),
        Err(_) => {
            let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
            let digits = payload
                .iter()
                .flat_map(|&byte| [digit(byte >> 4), digit(byte & 15)]);
            Stored::Hex(digits.collect())
        }
    };
    stored.serialize(to)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    match Stored::deserialize(from)? {
        Stored::Text(text) => Ok(text.into_owned().into()),
        Stored::Hex(digits) => {
            let digits: Option<Vec<u8>> = digits
                .chars()
                .map(|digit| digit.to_digit(16).and_then(|value| value.try_into().ok()))
                .collect();
            let digits = digits.filter(|digits| digits.len().is_multiple_of(2));
            let digits = digits.ok_or_else(|| D::Error::custom("not hexadecimal digits"))?;
            Ok(digits
                .chunks_exact(2)
                .map(|pair| pair[0] << 4 | pair[1])
                .collect())
        }
    }
}
