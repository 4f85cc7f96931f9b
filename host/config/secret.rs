//! Secrets among the settings, which no log line and no command prints.

pub use hostel_runtime::secret::Secret;
use std::fmt;

/// A URL, or several separated by commas. Passwords in them are never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// Wraps a URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// Returns the text with its passwords.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut urls: Vec<String> = Vec::new();
        for part in self.0.split(',') {
            match urls.last_mut() {
                // An unescaped comma in a password.
                Some(url) if !part.contains("://") => *url += &format!(",{part}"),
                _ => urls.push(part.to_owned()),
            }
        }
        let masked: Vec<String> = urls.iter().map(|url| masked(url)).collect();
        f.write_str(&masked.join(","))
    }
}

fn masked(url: &str) -> String {
    let scheme = url.find("://").map_or(0, |at| at + "://".len());
    let (scheme, rest) = url.split_at(scheme);
    // The last `@`, in case the password has an unescaped one.
    let hidden = rest.rsplit_once('@').and_then(|(user, host)| {
        let (user, _password) = user.split_once(':')?;
        Some(format!("{scheme}{user}:***@{host}"))
    });
    hidden.unwrap_or_else(|| url.to_owned())
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_printed() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://:hush@host:1/2", "redis://:***@host:1/2"),
            ("rediss://me:hu@/sh@host", "rediss://me:***@host"),
            ("redis://me@host", "redis://me@host"),
            ("me:hush@host", "me:***@host"),
            ("redis://me:hu,sh@host", "redis://me:***@host"),
            (
                "redis://me:hush@one:1,redis://me:hush@two:2",
                "redis://me:***@one:1,redis://me:***@two:2",
            ),
        ] {
            let url = SecretUrl::new(url);
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
        }
        assert!(!format!("{:?}", Secret::new("hush")).contains("hush"));
    }
}
