//! Declarations of settings: `settings!` declares a section and `kinds!` the variants that a `kind`
//! selects. Each setting is declared once, with its name, type, documentation, default and range; from
//! that follow the struct, how it is read, and the description that is printed and compared.

pub(super) use super::reader::Section;
use hostel_task::Name;
use std::{collections::BTreeMap, marker::PhantomData};

/// Declares a section as a struct that implements [`Group`].
///
/// A setting is `name: Type = setting;` with the documentation that is printed in `default.toml` too. The
/// settings in an `overridable as Overrides` block can be given for a single plugin as well: the struct
/// `Overrides` has each of them as an option, and `with` applies it.
macro_rules! settings {
    (
        $(#[doc = $doc:literal])*
        struct $name:ident $(: $derive:ident)? {
            $($(#[doc = $field_doc:literal])* $field:ident: $type:ty = $setting:expr;)*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq $(, $derive)?)]
        pub struct $name {
            $($(#[doc = $field_doc])* pub $field: $type,)*
        }

        settings!(@group $name [$($doc)*] $($field [$($field_doc)*] $setting;)*);
    };
    (
        $(#[doc = $doc:literal])*
        struct $name:ident {
            $($(#[doc = $field_doc:literal])* $field:ident: $type:ty = $setting:expr;)*
        }
        $(#[doc = $overrides_doc:literal])*
        overridable as $overrides:ident {
            $($(#[doc = $own_doc:literal])* $own:ident: $own_type:ty = $own_setting:expr;)*
        }
    ) => {
        settings! {
            $(#[doc = $doc])*
            struct $name {
                $($(#[doc = $own_doc])* $own: $own_type = $own_setting;)*
                $($(#[doc = $field_doc])* $field: $type = $setting;)*
            }
        }

        $(#[doc = $overrides_doc])*
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct $overrides {
            $(#[doc = concat!("Overrides [`", stringify!($name), "::", stringify!($own), "`].")]
            pub $own: Option<$own_type>,)*
        }

        // The documentation is that of the settings that are overridden.
        settings!(@group $overrides [$($overrides_doc)*] $($own [] $own_setting.overriding();)*);

        impl $name {
            /// Returns these settings with those that `overrides` gives in their place.
            pub fn with(&self, overrides: &$overrides) -> Self {
                Self {
                    $($own: overrides.$own.unwrap_or(self.$own),)*
                    $($field: self.$field,)*
                }
            }
        }
    };
    (@group $name:ident [$($doc:literal)*] $($field:ident [$($field_doc:literal)*] $setting:expr;)*) => {
        impl group::Group for $name {
            const DOC: &'static [&'static str] = &[$($doc),*];

            fn read(section: &mut group::Section<'_>) -> Self {
                Self {
                    $($field: group::Field::read(
                        &$setting,
                        stringify!($field),
                        section,
                    ),)*
                }
            }

            fn describe(values: Option<&Self>) -> Vec<group::Item> {
                let mut items = Vec::new();
                $(group::Field::describe(
                    &$setting,
                    stringify!($field),
                    &[$($field_doc),*],
                    values.map(|values| &values.$field),
                    &mut items,
                );)*
                items
            }
        }
    };
}

/// Declares the variants of a section that its setting `kind` selects, as an enum that implements
/// [`Group`]. The first is the default. A variant may have further settings of its own.
macro_rules! kinds {
    (
        $(#[doc = $doc:literal])*
        enum $name:ident {
            $($(#[doc = $variant_doc:literal])* $variant:ident $(($group:ty))? = $kind:literal;)*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub enum $name {
            $($(#[doc = $variant_doc])* $variant $(($group))?,)*
        }

        impl group::Group for $name {
            const DOC: &'static [&'static str] = &[$($doc),*];

            fn read(section: &mut group::Section<'_>) -> Self {
                section.kind(&[$((
                    $kind,
                    |_section| {
                        Self::$variant $((
                            <$group as group::Group>::read(_section)
                        ))?
                    },
                )),*])
            }

            fn describe(values: Option<&Self>) -> Vec<group::Item> {
                let kind = values.map(|values| match values {
                    $(Self::$variant { .. } => $kind,)*
                });
                let mut items = vec![group::kind_line(
                    Self::DOC,
                    &[$($kind),*],
                    kind,
                )];
                $($(
                    let own = match values {
                        Some(Self::$variant(own)) => Some(own),
                        _ => None,
                    };
                    let own = <$group as group::Group>::describe(own);
                    items.extend(group::of_kind($kind, own));
                )?)*
                items
            }
        }
    };
}

pub(super) use {kinds, settings};

/// The settings of a section.
pub(super) trait Group: Sized {
    /// The documentation of the section.
    const DOC: &'static [&'static str];

    fn read(section: &mut Section<'_>) -> Self;

    /// Describes each setting, with its value if there are `values`.
    fn describe(values: Option<&Self>) -> Vec<Item>;
}

/// A setting or a part of a section, under the name of a struct's field.
pub(super) trait Field {
    type Value;

    fn read(&self, field: &'static str, section: &mut Section<'_>) -> Self::Value;

    fn describe(
        &self,
        field: &'static str,
        doc: &'static [&'static str],
        value: Option<&Self::Value>,
        items: &mut Vec<Item>,
    );
}

/// A described part of the configuration.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Line(Line),
    Section(SectionItem),
    Tables(TablesItem),
}

/// A described setting.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub key: String,
    pub doc: &'static [&'static str],
    /// The kind of the section that the setting belongs to; all kinds if `None`.
    pub kind: Option<&'static str>,
    pub reference: Reference,
    /// The value in force; `None` if the setting is absent or belongs to another kind.
    pub value: Option<toml::Value>,
    pub visibility: Visibility,
}

/// What the reference shows of a setting.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reference {
    Default(toml::Value),
    /// For a setting without a fixed default; it is commented out.
    Example(toml::Value),
}

impl Reference {
    pub fn value(&self) -> &toml::Value {
        match self {
            Self::Default(value) | Self::Example(value) => value,
        }
    }
}

/// Whether a value may be printed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Visibility {
    Public,
    /// Never; the value within is printed in its place.
    Secret(Option<toml::Value>),
    /// Only if secrets are asked for.
    OnRequest,
}

/// A described section.
#[derive(Debug, Clone)]
pub(super) struct SectionItem {
    pub key: &'static str,
    pub doc: &'static [&'static str],
    /// SIGHUP makes a running node read it again.
    pub reloadable: bool,
    pub items: Vec<Item>,
}

/// A described section for each name that a user chose.
#[derive(Debug, Clone)]
pub(super) struct TablesItem {
    pub key: &'static str,
    pub doc: &'static [&'static str],
    /// SIGHUP makes a running node read them again.
    pub reloadable: bool,
    /// For the reference.
    pub example: (&'static str, Vec<Item>),
    pub tables: BTreeMap<String, Vec<Item>>,
}

/// Describes the setting `kind`, whose documentation is that of its section's kinds.
pub(super) fn kind_line(
    doc: &'static [&'static str],
    kinds: &[&'static str],
    kind: Option<&'static str>,
) -> Item {
    Item::Line(Line {
        key: "kind".into(),
        doc,
        kind: None,
        reference: Reference::Default(kinds.first().copied().unwrap_or_default().into()),
        value: kind.map(toml::Value::from),
        visibility: Visibility::Public,
    })
}

/// Marks `items` as settings of one kind.
pub(super) fn of_kind(kind: &'static str, items: Vec<Item>) -> impl Iterator<Item = Item> {
    items.into_iter().map(move |item| match item {
        Item::Line(line) => Item::Line(Line {
            kind: Some(kind),
            ..line
        }),
        other => other,
    })
}

/// A section of its own below this one.
pub(super) struct SubSection<T> {
    reloadable: bool,
    group: PhantomData<T>,
}

/// Settings of `T` in the section `[.field]`.
pub(super) fn section<T: Group>() -> SubSection<T> {
    SubSection {
        reloadable: false,
        group: PhantomData,
    }
}

impl<T> SubSection<T> {
    /// SIGHUP makes a running node read the section again.
    pub fn reloadable(self) -> Self {
        Self {
            reloadable: true,
            ..self
        }
    }
}

impl<T: Group> Field for SubSection<T> {
    type Value = T;

    fn read(&self, field: &'static str, section: &mut Section<'_>) -> T {
        section.section(field, T::read)
    }

    fn describe(
        &self,
        key: &'static str,
        _: &'static [&'static str],
        value: Option<&T>,
        items: &mut Vec<Item>,
    ) {
        items.push(Item::Section(SectionItem {
            key,
            doc: T::DOC,
            reloadable: self.reloadable,
            items: T::describe(value),
        }));
    }
}

/// Settings of `T` in the same section.
pub(super) struct Inline<T>(PhantomData<T>);

pub(super) fn inline<T: Group>() -> Inline<T> {
    Inline(PhantomData)
}

impl<T: Group> Field for Inline<T> {
    type Value = T;

    fn read(&self, _: &'static str, section: &mut Section<'_>) -> T {
        T::read(section)
    }

    fn describe(
        &self,
        _: &'static str,
        _: &'static [&'static str],
        value: Option<&T>,
        items: &mut Vec<Item>,
    ) {
        items.extend(T::describe(value));
    }
}

/// Sections of `T` in `[.field.NAME]`.
pub(super) struct Tables<T> {
    what: &'static str,
    example: &'static str,
    reloadable: bool,
    group: PhantomData<T>,
}

impl<T> Tables<T> {
    /// SIGHUP makes a running node read the sections again.
    pub fn reloadable(self) -> Self {
        Self {
            reloadable: true,
            ..self
        }
    }
}

/// `what` is the kind of name in errors, `example` a name for the reference.
pub(super) fn tables<T: Group>(what: &'static str, example: &'static str) -> Tables<T> {
    Tables {
        what,
        example,
        reloadable: false,
        group: PhantomData,
    }
}

impl<T: Group> Field for Tables<T> {
    type Value = BTreeMap<Name, T>;

    fn read(&self, field: &'static str, section: &mut Section<'_>) -> Self::Value {
        section.tables(field, self.what, T::read)
    }

    fn describe(
        &self,
        key: &'static str,
        _: &'static [&'static str],
        value: Option<&Self::Value>,
        items: &mut Vec<Item>,
    ) {
        let tables = value.into_iter().flatten();
        let tables = tables.map(|(name, table)| (name.to_string(), T::describe(Some(table))));
        items.push(Item::Tables(TablesItem {
            key,
            doc: T::DOC,
            reloadable: self.reloadable,
            example: (self.example, T::describe(None)),
            tables: tables.collect(),
        }));
    }
}
