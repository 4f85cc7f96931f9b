//! The hash of a token: all that a node knows of it.

use sha2::{Digest, Sha256};
use std::fmt;

/// The SHA-256 of a token. It needs neither salt nor stretching, because tokens are 32 random bytes
/// (`hostel token new`), which cannot be guessed.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

/// The error for a text that is no hash. It does not repeat the text, which may be the token itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected the SHA-256 of a token in 64 hexadecimal digits, as `hostel token new` prints it; \
     never the token itself"
)]
pub struct InvalidHash;

impl TokenHash {
    /// Hashes `token`.
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Parses 64 hexadecimal digits.
    pub fn parse(hex: &str) -> Result<Self, InvalidHash> {
        let digits = hex.as_bytes();
        if digits.len() != 64 {
            return Err(InvalidHash);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).ok_or(InvalidHash);
            *byte = u8::try_from(digit(0)? * 16 + digit(1)?).map_err(|_| InvalidHash)?;
        }
        Ok(Self(hash))
    }

    /// Returns the bytes of the hash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_read_and_printed_in_hexadecimal() {
        let hex = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert_eq!(TokenHash::of(b"test").to_string(), hex);
        assert_eq!(TokenHash::parse(hex), Ok(TokenHash::of(b"test")));
        assert_eq!(
            TokenHash::parse(&hex.to_uppercase()),
            Ok(TokenHash::of(b"test"))
        );
        for wrong in ["", "9f", &hex[1..], &format!("{hex}0"), &"+1".repeat(32)] {
            assert_eq!(TokenHash::parse(wrong), Err(InvalidHash), "{wrong}");
        }
    }
}
