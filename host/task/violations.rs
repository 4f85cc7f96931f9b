//! What is wrong with the fields of a task or a schedule, collected so that all faults are reported at once.
//! What is accepted stands where each field is checked.

use super::name::Name;
use std::fmt;

/// A field that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The name of the field in the message of the protocol.
    pub field: &'static str,
    /// What is wrong with it, and what is accepted.
    pub reason: String,
}

/// Why a task or a schedule was refused: every field that was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Violations(pub Vec<Violation>);

impl Violations {
    /// Refuses a field.
    pub fn refuse(&mut self, field: &'static str, reason: impl Into<String>) {
        let reason = reason.into();
        self.0.push(Violation { field, reason });
    }

    /// Returns the name in a field, or refuses it; `what` is the kind of name in the reason.
    pub fn name(&mut self, field: &'static str, what: &'static str, given: &str) -> Option<Name> {
        let parsed = Name::parse(what, given);
        let parsed = parsed.map_err(|error| self.refuse(field, error.to_string()));
        parsed.ok()
    }

    /// Returns the name in a field that may be empty, which is "not given", or refuses it.
    pub fn optional_name(
        &mut self,
        field: &'static str,
        what: &'static str,
        given: &str,
    ) -> Option<Name> {
        let given = (!given.is_empty()).then_some(given)?;
        self.name(field, what, given)
    }

    /// Whether no field was refused.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Violation { field, reason }) in self.0.iter().enumerate() {
            let separator = if number > 0 { "; " } else { "" };
            write!(f, "{separator}{field}: {reason}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}
