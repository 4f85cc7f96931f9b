//! A configuration before it is understood: nested tables whose every value knows where it was
//! said. Parses and merges; knows no setting.

use super::fault::{Fault, Origin};
use std::collections::{BTreeMap, btree_map::Entry as Slot};
use toml::de::{DeTable, DeValue};

pub(super) type Table = BTreeMap<String, Entry>;

/// A value and its origins.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub value: Value,
    /// Where the value stands.
    pub origin: Origin,
    /// Where its key stands.
    pub key_origin: Origin,
    /// The text of the variable that gave it: a variable has no quotes, so its text may be meant
    /// even where it also reads as something else.
    pub raw: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Table(Table),
    Text(String),
    Integer(i128),
    Boolean(bool),
    /// As written; no setting is one, but a plugin's own may be.
    Float(String),
    List(Vec<Value>),
    Date,
}

impl Value {
    /// For "found a …".
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

/// Reads a whole file. A fault here means that the text is no TOML; all of these are reported, but
/// no setting is looked at before they are mended.
pub(super) fn parse(text: &str) -> Result<Table, Vec<Fault>> {
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
    let fault = |error: &toml::de::Error| {
        let span = error.span().unwrap_or_default();
        let said = text.get(span.clone()).unwrap_or_default();
        let said = said.lines().next().unwrap_or_default();
        let message = error.message().trim().replace('\n', ", ");
        // What the parser makes of text without quotes says little to who forgot them.
        let problem = match message.starts_with("invalid float") {
            true => format!("not TOML: {said:?} is no number, and text needs quotes"),
            false if said.is_empty() => format!("not TOML: {message}"),
            false => format!("not TOML: {message}, at {said:?}"),
        };
        Fault {
            origin: place(span.start),
            setting: String::new(),
            problem: format!("{problem} (settings are checked once this is mended)"),
        }
    };
    Err(errors.iter().map(fault).collect())
}

/// Reads the value of a variable: as TOML where it is some, else as it stands.
pub(super) fn parse_variable(name: &str, text: &str) -> Entry {
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
        // Beyond 128 bits it is out of every range anyway.
        DeValue::Integer(number) => Value::Integer(
            i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX),
        ),
        DeValue::Float(number) => Value::Float(number.as_str().to_owned()),
        DeValue::Boolean(value) => Value::Boolean(value),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(items) => {
            let items = items.into_iter();
            Value::List(
                items
                    .map(|item| convert(item.into_inner(), place))
                    .collect(),
            )
        }
    }
}

/// Says of everything in `table` that it is a default.
pub(super) fn mark_default(table: &mut Table) {
    for entry in table.values_mut() {
        entry.origin = Origin::Default;
        entry.key_origin = Origin::Default;
        if let Value::Table(table) = &mut entry.value {
            mark_default(table);
        }
    }
}

/// Lays `over` on `under`: what `over` says wins, key by key.
pub(super) fn merge(under: &mut Table, over: Table) {
    for (key, upper) in over {
        match under.entry(key) {
            Slot::Vacant(slot) => {
                slot.insert(upper);
            }
            Slot::Occupied(mut slot) => {
                let lower = slot.get_mut();
                match (&mut lower.value, upper.value) {
                    (Value::Table(below), Value::Table(above)) => {
                        if !same_kind(below, &above) {
                            // A default that the other kind does not know is not looked at.
                            below.retain(|_, entry| entry.origin == Origin::Default);
                        }
                        merge(below, above);
                        lower.origin = upper.origin;
                        lower.key_origin = upper.key_origin;
                    }
                    (_, value) => *lower = Entry { value, ..upper },
                }
            }
        }
    }
}

/// Settings of one kind of backend say nothing about another kind.
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
