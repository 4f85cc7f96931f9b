//! The limits of a task type or of a group, and as one origin gives them: their texts, and what is accepted.

use super::{rate::Rate, violations::Violations};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

/// The largest `max_concurrency`.
pub const MAX_CONCURRENCY: usize = 10_000;

/// The largest `max_cluster_concurrency`.
pub const MAX_CLUSTER_CONCURRENCY: usize = 1_000_000;

/// The largest `max_pending`.
pub const MAX_PENDING: usize = 1_000_000_000;

/// The limits in force of a task type, or of one of its groups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// How many tasks may run on one node.
    pub max_concurrency: Option<usize>,
    /// How many tasks may run on all nodes together.
    pub max_cluster_concurrency: Option<usize>,
    /// How often tasks may begin on all nodes together. Each attempt counts.
    pub max_rate: Option<Rate>,
    /// How many tasks may be pending for one more to be accepted.
    pub max_pending: Option<usize>,
}

/// A limit as one origin gives it. Its text is the limit, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenLimit<T> {
    /// There is no limit, whatever the other origins give.
    Unlimited,
    /// The limit.
    Max(T),
}

/// The limits of a task type or of a group as one origin gives them. Those that are `None` are left to the
/// other origins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GivenLimits {
    /// See [`Limits::max_concurrency`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<GivenLimit<usize>>,
    /// See [`Limits::max_cluster_concurrency`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cluster_concurrency: Option<GivenLimit<usize>>,
    /// See [`Limits::max_rate`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rate: Option<GivenLimit<Rate>>,
    /// See [`Limits::max_pending`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pending: Option<GivenLimit<usize>>,
}

/// The texts of limits; one that is empty is not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LimitTexts {
    /// See [`Limits::max_concurrency`].
    pub max_concurrency: String,
    /// See [`Limits::max_cluster_concurrency`].
    pub max_cluster_concurrency: String,
    /// See [`Limits::max_rate`].
    pub max_rate: String,
    /// See [`Limits::max_pending`].
    pub max_pending: String,
}

impl<T: FromStr> FromStr for GivenLimit<T> {
    type Err = T::Err;

    fn from_str(given: &str) -> Result<Self, T::Err> {
        if given == "none" {
            return Ok(Self::Unlimited);
        }
        given.parse().map(Self::Max)
    }
}

impl<T: fmt::Display> fmt::Display for GivenLimit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("none"),
            Self::Max(limit) => limit.fmt(f),
        }
    }
}

impl<T: fmt::Display> Serialize for GivenLimit<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, T: FromStr> Deserialize<'de> for GivenLimit<T>
where
    T::Err: fmt::Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// Parses digits.
fn whole_number(text: &str) -> Option<usize> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok())?
}

impl GivenLimits {
    /// Reads limits, or returns all their faults.
    pub fn parse(texts: &LimitTexts) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let mut number = |field, given: &str, max| match given {
            "" => None,
            "none" => Some(GivenLimit::Unlimited),
            given => {
                let limit = whole_number(given).filter(|limit| (1..=max).contains(limit));
                if limit.is_none() {
                    let shown: String = given.chars().take(64).collect();
                    let reason =
                        format!("{shown:?}; expected a whole number from 1 to {max}, or \"none\"");
                    violations.refuse(field, reason);
                }
                limit.map(GivenLimit::Max)
            }
        };
        let max_concurrency = number("max_concurrency", &texts.max_concurrency, MAX_CONCURRENCY);
        let max_cluster_concurrency = number(
            "max_cluster_concurrency",
            &texts.max_cluster_concurrency,
            MAX_CLUSTER_CONCURRENCY,
        );
        let max_pending = number("max_pending", &texts.max_pending, MAX_PENDING);
        let max_rate = match texts.max_rate.as_str() {
            "" => None,
            given => match given.parse::<GivenLimit<Rate>>() {
                Ok(rate) => Some(rate),
                Err(reason) => {
                    violations.refuse("max_rate", format!("{reason}; or \"none\""));
                    None
                }
            },
        };
        if !violations.is_empty() {
            return Err(violations);
        }
        Ok(Self {
            max_concurrency,
            max_cluster_concurrency,
            max_rate,
            max_pending,
        })
    }

    /// Returns these limits with those that `changes` gives in their place.
    pub fn with(self, changes: Self) -> Self {
        Self {
            max_concurrency: changes.max_concurrency.or(self.max_concurrency),
            max_cluster_concurrency: changes
                .max_cluster_concurrency
                .or(self.max_cluster_concurrency),
            max_rate: changes.max_rate.or(self.max_rate),
            max_pending: changes.max_pending.or(self.max_pending),
        }
    }

    /// Whether it gives no limit.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Parses limits in the order of the fields.
    pub(crate) fn parse(texts: [&str; 4]) -> Result<GivenLimits, Violations> {
        let [concurrency, cluster, rate, pending] = texts.map(str::to_owned);
        GivenLimits::parse(&LimitTexts {
            max_concurrency: concurrency,
            max_cluster_concurrency: cluster,
            max_rate: rate,
            max_pending: pending,
        })
    }

    #[test]
    fn all_faults_are_reported_at_once_with_what_is_accepted() {
        for bad in [
            "0",
            "-1",
            "+1",
            "1.0",
            "NaN",
            "99999999999999999999999",
            "None",
            " 1",
        ] {
            let Violations(faults) = parse([bad; 4]).unwrap_err();
            let fields: Vec<_> = faults.iter().map(|fault| fault.field).collect();
            let all = [
                "max_concurrency",
                "max_cluster_concurrency",
                "max_pending",
                "max_rate",
            ];
            assert_eq!(fields, all, "{bad}");
            for fault in &faults {
                assert!(fault.reason.contains("or \"none\""), "{fault:?}");
            }
        }
        let over = MAX_CONCURRENCY + 1;
        let over = parse([&over.to_string(), "10001", "", ""]).unwrap_err();
        assert_eq!(over.0.len(), 1, "{over}");
        assert!(over.to_string().contains("from 1 to 10000"), "{over}");
        let long = "9".repeat(100_000);
        let long = parse([&long; 4].map(|text: &String| text.as_str())).unwrap_err();
        assert!(long.to_string().len() < 2000);
    }

    #[test]
    fn given_limits_survive_a_round_trip_and_ignore_what_is_newer() {
        for (texts, stored) in [
            (["", "", "", ""], "{}"),
            (
                ["4", "", "none", ""],
                r#"{"max_concurrency":"4","max_rate":"none"}"#,
            ),
            (
                ["", "10", "60/m burst 5", "7"],
                r#"{"max_cluster_concurrency":"10","max_rate":"60/m burst 5","max_pending":"7"}"#,
            ),
        ] {
            let given = parse(texts).unwrap();
            assert_eq!(serde_json::to_string(&given).unwrap(), stored);
            let newer = stored.replacen('{', r#"{"max_colour":"red","#, 1);
            let newer = newer.replace(",}", "}");
            for text in [stored, &newer] {
                assert_eq!(serde_json::from_str::<GivenLimits>(text).unwrap(), given);
            }
        }
        assert!(serde_json::from_str::<GivenLimits>(r#"{"max_rate":"0/s"}"#).is_err());
    }

    #[test]
    fn a_change_leaves_the_other_limits() {
        let before = parse(["1", "2", "", ""]).unwrap();
        let after = before.with(parse(["none", "", "1/s", ""]).unwrap());
        assert_eq!(after, parse(["none", "2", "1/s", ""]).unwrap());
        assert!(!after.is_empty());
    }
}
