//! An untyped configuration: nested tables whose values know the place where they were given. Parses
//! and merges; knows no setting.

use super::diagnostic::{Diagnostic, Origin};
use std::collections::{BTreeMap, btree_map::Entry as Slot};
use toml::de::{DeTable, DeValue};

pub(super) type Table = BTreeMap<String, Entry>;

/// A value and where it was given.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub value: Value,
    pub origin: Origin,
    pub key_origin: Origin,
    /// The text of the environment variable that gave the value. A variable has no quotes, so it may
    /// be meant as text even if it parses as another type.
    pub raw: Option<String>,
}

impl Entry {
    /// Returns the value for "expected …, found …".
    pub fn describe(&self) -> String {
        match &self.raw {
            Some(raw) => format!("{raw:?}"),
            None => self.value.describe(),
        }
    }
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Table(Table),
    Text(String),
    Integer(i128),
    Boolean(bool),
    /// As written. No setting is a float, but a value for a plugin may be.
    Float(String),
    List(Vec<Value>),
    Date,
}

impl Value {
    /// Returns the type of the value for "expected …, found …", where the value may be a secret.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Table(_) => "a section",
            Self::Text(_) => "text",
            Self::Integer(_) | Self::Float(_) => "a number",
            Self::Boolean(_) => "true or false",
            Self::List(_) => "a list",
            Self::Date => "a date",
        }
    }

    /// Returns the value for "expected …, found …".
    pub fn describe(&self) -> String {
        match self {
            Self::Table(_) => "a section".into(),
            Self::Text(text) => format!("the text {text:?}"),
            Self::Integer(number) => format!("the number {number}"),
            Self::Boolean(value) => format!("{value}"),
            Self::Float(number) => format!("the number {number}"),
            Self::List(_) => "a list".into(),
            Self::Date => "a date".into(),
        }
    }
}

/// Parses a file. Returns all syntax errors at once; settings are only checked in valid TOML.
pub(super) fn parse(text: &str) -> Result<Table, Vec<Diagnostic>> {
    let place = |offset: usize| {
        let before = &text[..text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Origin::Line {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(convert_table(table.into_inner(), &|span| place(span.start)));
    }
    let diagnostic = |error: &toml::de::Error| {
        let span = error.span().unwrap_or_default();
        let message = error.message().trim().replace('\n', ", ");
        // The parser's message for text without quotes does not mention quotes. What was found may be a
        // secret, so it is not repeated.
        let problem = if message.starts_with("invalid float") {
            "this is no number, and text needs quotes".to_owned()
        } else {
            message
        };
        Diagnostic {
            origin: place(span.start),
            setting: String::new(),
            problem: format!(
                "invalid TOML: {problem} (settings are checked once the syntax is valid)"
            ),
        }
    };
    Err(errors.iter().map(diagnostic).collect())
}

/// Parses the value of an environment variable as TOML if it is valid, else takes it as text.
pub(super) fn parse_env_value(name: &str, text: &str) -> Entry {
    let origin = Origin::Variable(name.into());
    let value = match DeValue::parse(text.trim()) {
        Ok(value) => convert(value.into_inner(), &|_| origin.clone()),
        Err(_) => Value::Text(text.to_owned()),
    };
    Entry {
        value,
        origin: origin.clone(),
        key_origin: origin,
        raw: Some(text.to_owned()),
    }
}

fn convert_table(table: DeTable<'_>, place: &impl Fn(std::ops::Range<usize>) -> Origin) -> Table {
    let entry = |(key, value): (toml::Spanned<_>, toml::Spanned<DeValue<'_>>)| {
        let key_origin = place(key.span());
        let origin = place(value.span());
        let value = convert(value.into_inner(), place);
        let key: std::borrow::Cow<'_, str> = key.into_inner();
        let entry = Entry {
            value,
            origin,
            key_origin,
            raw: None,
        };
        (key.into_owned(), entry)
    };
    table.into_iter().map(entry).collect()
}

fn convert(value: DeValue<'_>, place: &impl Fn(std::ops::Range<usize>) -> Origin) -> Value {
    match value {
        DeValue::Table(table) => Value::Table(convert_table(table, place)),
        DeValue::String(text) => Value::Text(text.into_owned()),
        // A number of more than 128 bits is out of every range anyway.
        DeValue::Integer(number) => Value::Integer(
            i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX),
        ),
        DeValue::Float(number) => Value::Float(number.as_str().to_owned()),
        DeValue::Boolean(value) => Value::Boolean(value),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(items) => {
            let items = items
                .into_iter()
                .map(|item| convert(item.into_inner(), place));
            Value::List(items.collect())
        }
    }
}

/// Merges `over` into `under`, section by section: a section of another kind replaces the one below.
pub(super) fn merge(under: &mut Table, over: Table) {
    for (section, upper) in &over {
        if let (Some(Value::Table(below)), Value::Table(above)) = (
            under.get_mut(section).map(|lower| &mut lower.value),
            &upper.value,
        ) && !same_kind(below, above)
        {
            below.clear();
        }
    }
    merge_keys(under, over);
}

/// Merges tables key by key; values of `over` replace those of `under`.
fn merge_keys(under: &mut Table, over: Table) {
    for (key, upper) in over {
        match under.entry(key) {
            Slot::Vacant(slot) => {
                slot.insert(upper);
            }
            Slot::Occupied(mut slot) => {
                let lower = slot.get_mut();
                match (&mut lower.value, upper.value) {
                    (Value::Table(below), Value::Table(above)) => {
                        merge_keys(below, above);
                        lower.origin = upper.origin;
                        lower.key_origin = upper.key_origin;
                    }
                    (_, value) => *lower = Entry { value, ..upper },
                }
            }
        }
    }
}

/// Whether both sections are of the same kind; settings of one kind do not apply to another.
fn same_kind(below: &Table, above: &Table) -> bool {
    let kind = |table: &Table| match table.get("kind").map(|entry| &entry.value) {
        Some(Value::Text(kind)) => Some(kind.clone()),
        _ => None,
    };
    match (kind(below), kind(above)) {
        (Some(below), Some(above)) => below == above,
        _ => true,
    }
}
