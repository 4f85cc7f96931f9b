//! The kinds of settings that a schema is declared with: how each is parsed, which default it has,
//! and how it is printed. Knows no setting by name.

use super::{
    advertise::Advertise,
    group::{Field, Item, Line, Reference, Section, Visibility},
    parse::{self, BaseDirs, Number, Parse},
    secret::{Secret, SecretUrl},
    token_hash::TokenHash,
    tree::{Entry, Value},
};
use hostel_schedule::{Missed, Overlap};
use hostel_task::{Name, Priority, Rate};
use std::{
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

pub(super) const KIB: usize = 1 << 10;
pub(super) const MIB: usize = 1 << 20;
pub(super) const GIB: usize = 1 << 30;
pub(super) const TIB: usize = 1 << 40;

/// In milliseconds.
pub(super) const SECOND: u64 = 1000;
pub(super) const HOUR: u64 = 3600 * SECOND;
pub(super) const DAY: u64 = 24 * HOUR;

/// A setting that is absent unless given. The functions below make one for each kind of value.
pub(super) struct Setting<T> {
    parse: Parse<T>,
    /// Follows the field's name in the key: the unit of a time.
    suffix: &'static str,
    example: Option<toml::Value>,
}

/// A setting with a default.
pub(super) struct Defaulted<T> {
    setting: Setting<T>,
    default: Box<dyn Fn(&BaseDirs) -> T>,
}

/// A setting that has to be given.
pub(super) struct Required<T> {
    setting: Setting<T>,
    /// Returned after an error; a configuration with errors is never used.
    placeholder: T,
}

impl<T> Setting<T> {
    fn new(parse: impl Fn(&Entry, &BaseDirs) -> Result<T, String> + 'static) -> Self {
        Self {
            parse: Box::new(parse),
            suffix: "",
            example: None,
        }
    }

    /// Gives a value for the reference, which shows the setting commented out.
    pub fn example(mut self, example: impl Into<toml::Value>) -> Self {
        self.example = Some(example.into());
        self
    }

    /// Changes each value that was parsed.
    pub fn map(self, change: impl Fn(T) -> T + 'static) -> Self
    where
        T: 'static,
    {
        let parse = self.parse;
        Self {
            parse: Box::new(move |entry, dirs| parse(entry, dirs).map(&change)),
            ..self
        }
    }

    pub fn default(self, default: T) -> Defaulted<T>
    where
        T: Clone + 'static,
    {
        self.default_with(move |_| default.clone())
    }

    pub fn default_with(self, default: impl Fn(&BaseDirs) -> T + 'static) -> Defaulted<T> {
        Defaulted {
            setting: self,
            default: Box::new(default),
        }
    }

    pub fn required(self, placeholder: T) -> Required<T> {
        Required {
            setting: self,
            placeholder,
        }
    }

    fn key(&self, field: &str) -> String {
        format!("{field}{}", self.suffix)
    }
}

impl<T: Printed> Setting<T> {
    fn line(
        &self,
        field: &str,
        doc: &'static [&'static str],
        reference: Reference,
        value: Option<&T>,
    ) -> Item {
        Item::Line(Line {
            key: self.key(field),
            doc,
            kind: None,
            reference,
            value: value.map(T::to_toml).filter(|value| !is_empty(value)),
            visibility: value.map_or(T::HIDDEN, T::visibility),
        })
    }

    fn example_line(&self) -> Reference {
        Reference::Example(self.example.clone().unwrap_or_else(|| "".into()))
    }
}

impl<T> Defaulted<T> {
    /// Gives a value for the reference in place of a default that depends on the machine.
    pub fn example(mut self, example: impl Into<toml::Value>) -> Self {
        self.setting.example = Some(example.into());
        self
    }
}

impl<T: Printed> Defaulted<T> {
    /// The same setting where it overrides another one, and is absent unless given.
    pub fn overriding(self) -> Setting<T> {
        let default = (self.default)(&BaseDirs::default()).to_toml();
        self.setting.example(default)
    }
}

impl<T: Printed> Field for Setting<T> {
    type Value = Option<T>;

    fn read(&self, field: &'static str, section: &mut Section<'_>) -> Option<T> {
        section.value(&self.key(field), &self.parse)
    }

    fn describe(
        &self,
        field: &'static str,
        doc: &'static [&'static str],
        value: Option<&Option<T>>,
        items: &mut Vec<Item>,
    ) {
        let value = value.and_then(Option::as_ref);
        items.push(self.line(field, doc, self.example_line(), value));
    }
}

impl<T: Printed> Field for Defaulted<T> {
    type Value = T;

    fn read(&self, field: &'static str, section: &mut Section<'_>) -> T {
        section
            .defaulted(&self.setting.key(field), &self.setting.parse)
            .unwrap_or_else(|| (self.default)(section.base_dirs()))
    }

    fn describe(
        &self,
        field: &'static str,
        doc: &'static [&'static str],
        value: Option<&T>,
        items: &mut Vec<Item>,
    ) {
        let reference = match &self.setting.example {
            Some(example) => Reference::Example(example.clone()),
            None => Reference::Default((self.default)(&BaseDirs::default()).to_toml()),
        };
        items.push(self.setting.line(field, doc, reference, value));
    }
}

impl<T: Printed + Clone> Field for Required<T> {
    type Value = T;

    fn read(&self, field: &'static str, section: &mut Section<'_>) -> T {
        section
            .required(&self.setting.key(field), &self.setting.parse)
            .unwrap_or_else(|| self.placeholder.clone())
    }

    fn describe(
        &self,
        field: &'static str,
        doc: &'static [&'static str],
        value: Option<&T>,
        items: &mut Vec<Item>,
    ) {
        let reference = self.setting.example_line();
        items.push(self.setting.line(field, doc, reference, value));
    }
}

/// A whole number within `range`.
pub(super) fn number<T: Number>(range: RangeInclusive<T>) -> Setting<T> {
    Setting::new(move |entry, _| parse::number(entry, &range, ""))
}

/// A size within `range`.
pub(super) fn bytes<T: Number>(range: RangeInclusive<T>) -> Setting<T> {
    Setting::new(move |entry, _| parse::number(entry, &range, " of bytes"))
}

/// A time; `range` in milliseconds. The key ends in `_ms`.
pub(super) fn millis(range: RangeInclusive<u64>) -> Setting<Duration> {
    let parse = move |entry: &Entry, _: &BaseDirs| {
        parse::number(entry, &range, " of milliseconds").map(Duration::from_millis)
    };
    Setting {
        suffix: "_ms",
        ..Setting::new(parse)
    }
}

pub(super) fn flag() -> Setting<bool> {
    Setting::new(|entry, _| match entry.value {
        Value::Boolean(value) => Ok(value),
        _ => Err(format!(
            "expected true or false, found {}",
            entry.describe()
        )),
    })
}

/// A text that `parse` accepts; it returns `Err` with what was expected.
pub(super) fn text<T>(parse: impl Fn(&str) -> Result<T, String> + 'static) -> Setting<T> {
    Setting::new(move |entry, _| parse(&parse::text(entry)?))
}

/// A name by the rule of all names; `what` is the kind of name in errors.
pub(super) fn name(what: &'static str) -> Setting<Name> {
    text(move |given| Name::parse(what, given).map_err(|error| error.to_string()))
}

/// A list of texts that `parse` accepts one by one. A single text is a list of one.
pub(super) fn texts<T>(parse: impl Fn(&str) -> Result<T, String> + 'static) -> Setting<Vec<T>> {
    Setting::new(move |entry, _| {
        let Value::List(items) = &entry.value else {
            return Ok(vec![parse(&parse::text(entry)?)?]);
        };
        if items.is_empty() {
            return Err("expected at least one item, found an empty list".into());
        }
        let item = |item: &Value| match item {
            Value::Text(text) => parse(text),
            other => Err(format!(
                "expected a list of texts, found {} in it",
                other.describe()
            )),
        };
        items.iter().map(item).collect()
    })
}

/// A path, made absolute.
pub(super) fn path() -> Setting<PathBuf> {
    Setting::new(|entry, dirs| {
        let given = parse::text(entry)?;
        if given.is_empty() || given.contains('\0') {
            return Err(format!("expected a path, found {given:?}"));
        }
        if given == "~" || given.starts_with("~/") {
            return Err(format!(
                "{given:?}: `~` is not expanded; write the whole path"
            ));
        }
        let base = if entry.origin.is_file() {
            &dirs.file
        } else {
            &dirs.current
        };
        // Collecting the components removes `./` and doubled slashes.
        Ok(base.join(Path::new(&given)).components().collect())
    })
}

/// An empty list is an absent setting.
fn is_empty(value: &toml::Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}

/// A type of value that is printed as TOML.
pub(super) trait Printed {
    /// The visibility of an absent value.
    const HIDDEN: Visibility = Visibility::Public;

    fn to_toml(&self) -> toml::Value;

    fn visibility(&self) -> Visibility {
        Self::HIDDEN
    }
}

impl Printed for Secret {
    const HIDDEN: Visibility = Visibility::Secret(None);

    fn to_toml(&self) -> toml::Value {
        self.reveal().into()
    }
}

impl Printed for SecretUrl {
    const HIDDEN: Visibility = Visibility::Secret(None);

    fn to_toml(&self) -> toml::Value {
        self.reveal().into()
    }

    fn visibility(&self) -> Visibility {
        Visibility::Secret(Some(self.to_string().into()))
    }
}

impl Printed for bool {
    fn to_toml(&self) -> toml::Value {
        (*self).into()
    }
}

impl Printed for String {
    fn to_toml(&self) -> toml::Value {
        self.as_str().into()
    }
}

impl Printed for PathBuf {
    fn to_toml(&self) -> toml::Value {
        self.to_string_lossy().as_ref().into()
    }
}

impl Printed for Duration {
    fn to_toml(&self) -> toml::Value {
        integer(self.as_millis())
    }
}

impl<T: Printed> Printed for Vec<T> {
    fn to_toml(&self) -> toml::Value {
        self.iter().map(T::to_toml).collect::<Vec<_>>().into()
    }
}

macro_rules! printed {
    ($($type:ty),* => $to_toml:expr) => {
        $(impl Printed for $type {
            fn to_toml(&self) -> toml::Value {
                $to_toml(self)
            }
        })*
    };
}

printed!(u32, u64, usize => |number: &_| integer(*number));
printed!(Advertise, Missed, Name, Overlap, Priority, Rate, SocketAddr, TokenHash => |text: &dyn ToString| text.to_string().into());

fn integer(number: impl TryInto<i64>) -> toml::Value {
    toml::Value::Integer(number.try_into().unwrap_or(i64::MAX))
}
