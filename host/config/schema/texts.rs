//! A section of texts whose keys the user chooses.

use super::super::group::{Field, Item, Line, Reference, Section, SectionItem, Visibility};
use std::collections::BTreeMap;

/// The keys and values of such a section.
pub(super) struct Texts {
    /// A key and its value, for the reference.
    pub example: (&'static str, &'static str),
    /// Whether the values may be printed.
    pub visibility: Visibility,
}

impl Field for Texts {
    type Value = BTreeMap<String, String>;

    fn read(&self, field: &'static str, section: &mut Section<'_>) -> Self::Value {
        section.texts(field)
    }

    fn describe(
        &self,
        key: &'static str,
        doc: &'static [&'static str],
        value: Option<&Self::Value>,
        items: &mut Vec<Item>,
    ) {
        let (example, example_value) = self.example;
        let line = |key: &str, value: Option<&str>| {
            Item::Line(Line {
                key: key.to_owned(),
                doc: &[],
                kind: None,
                reference: Reference::Example(example_value.into()),
                value: value.map(toml::Value::from),
                visibility: self.visibility.clone(),
            })
        };
        let lines = match value {
            None => vec![line(example, None)],
            Some(texts) => texts
                .iter()
                .map(|(key, text)| line(key, Some(text)))
                .collect(),
        };
        items.push(Item::Section(SectionItem {
            key,
            doc,
            reloadable: false,
            items: lines,
        }));
    }
}
