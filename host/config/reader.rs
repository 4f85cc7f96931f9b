//! Takes settings out of a tree one by one, and records every error instead of stopping at the first.
//! Knows no setting by name.

use super::{
    diagnostic::{Diagnostic, Origin, suggest},
    parse::{self, BaseDirs, Parse},
    tree::{Entry, Table, Value},
};
use hostel_task::Name;
use std::collections::BTreeMap;

/// The state that all sections share while a tree is read.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub diagnostics: Vec<Diagnostic>,
    pub base_dirs: BaseDirs,
    /// The settings that were read, by path, for rules between them.
    seen: BTreeMap<String, Seen>,
}

#[derive(Debug)]
struct Seen {
    origin: Origin,
    /// Whether it was read without an error.
    valid: bool,
}

impl Reader {
    pub fn new(base_dirs: BaseDirs) -> Self {
        Self {
            base_dirs,
            ..Self::default()
        }
    }

    /// Reads the whole tree through `read`; keys that `read` does not take are unknown.
    pub fn root<T>(&mut self, tree: Table, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let content = Content {
            table: tree,
            origin: Origin::File,
            muted: false,
        };
        Section::new(self, String::new(), content).finish(read)
    }

    /// Reports `problem` unless the rule across the settings `paths` holds. The first setting that
    /// was given is blamed. Does nothing if one of them has an error of its own or is absent.
    pub fn rule(&mut self, paths: &[&str], holds: bool, problem: impl FnOnce() -> String) {
        let seen: Option<Vec<&Seen>> = paths.iter().map(|path| self.seen.get(*path)).collect();
        let seen = seen.filter(|seen| !holds && seen.iter().all(|one| one.valid));
        let Some(seen) = seen else {
            return;
        };
        let given = seen.iter().position(|one| one.origin != Origin::Default);
        let blamed = given.unwrap_or(0);
        self.diagnostics.push(Diagnostic {
            origin: seen[blamed].origin.clone(),
            setting: paths[blamed].to_owned(),
            problem: problem(),
        });
    }

    /// Reports `problem` of the first of the settings `paths` that was given or has a default. Does
    /// nothing if that has an error of its own.
    pub fn fault(&mut self, paths: &[&str], problem: impl FnOnce() -> String) {
        let found = paths.iter().find(|path| self.seen.contains_key(**path));
        if let Some(path) = found {
            self.rule(&[path], false, problem);
        }
    }

    /// Reports `key` of `section` if it was given without any of `others`, which it needs.
    pub fn needs(&mut self, section: &str, key: &str, others: &[&str]) {
        let path = |key: &str| format!("{section}.{key}");
        let Some(seen) = self.seen.get(&path(key)) else {
            return;
        };
        if others.iter().all(|key| !self.seen.contains_key(&path(key))) {
            self.diagnostics.push(Diagnostic {
                origin: seen.origin.clone(),
                setting: path(key),
                problem: format!("needs {} as well", others.join(" and ")),
            });
        }
    }
}

/// One table of the tree.
pub(super) struct Section<'r> {
    reader: &'r mut Reader,
    path: String,
    content: Content,
    known: Vec<String>,
}

struct Content {
    table: Table,
    /// The place of the section's header.
    origin: Origin,
    /// Absent and unknown settings are no errors: the section's kind is unknown or it is no table.
    muted: bool,
}

/// The name of a kind of section, and what reads the settings of that kind.
pub type Kind<T> = (&'static str, fn(&mut Section<'_>) -> T);

impl<'r> Section<'r> {
    fn new(reader: &'r mut Reader, path: String, content: Content) -> Self {
        Self {
            reader,
            path,
            content,
            known: Vec::new(),
        }
    }

    fn finish<T>(mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let value = read(&mut self);
        if self.content.muted {
            return value;
        }
        for (key, entry) in std::mem::take(&mut self.content.table) {
            let noun = match entry.value {
                Value::Table(_) => "section",
                _ => "setting",
            };
            let hint = match suggest(&key, &self.known) {
                Some(known) => format!("did you mean {known}?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            self.report(&key, entry.key_origin, format!("no such {noun}; {hint}"));
        }
        value
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    pub fn base_dirs(&mut self) -> &mut BaseDirs {
        &mut self.reader.base_dirs
    }

    fn report(&mut self, key: &str, origin: Origin, problem: String) {
        let setting = self.path_of(key);
        self.reader.diagnostics.push(Diagnostic {
            origin,
            setting,
            problem,
        });
    }

    fn take(&mut self, key: &str) -> Option<Entry> {
        self.known.push(key.to_owned());
        self.content.table.remove(key)
    }

    fn mark_seen(&mut self, key: &str, origin: Origin, valid: bool) {
        let seen = Seen { origin, valid };
        self.reader.seen.insert(self.path_of(key), seen);
    }

    /// Takes the value of `key` if there is one without an error.
    pub fn value<T>(&mut self, key: &str, parse: &Parse<T>) -> Option<T> {
        let entry = self.take(key)?;
        let parsed = parse(&entry, &self.reader.base_dirs);
        self.mark_seen(key, entry.origin.clone(), parsed.is_ok());
        parsed
            .map_err(|problem| self.report(key, entry.origin, problem))
            .ok()
    }

    /// Like `value`, for a setting that has a default in any case.
    pub fn defaulted<T>(&mut self, key: &str, parse: &Parse<T>) -> Option<T> {
        if !self.content.table.contains_key(key) {
            self.mark_seen(key, Origin::Default, true);
        }
        self.value(key, parse)
    }

    /// Like `value`, for a setting whose absence is an error.
    pub fn required<T>(&mut self, key: &str, parse: &Parse<T>) -> Option<T> {
        if !self.content.muted && !self.content.table.contains_key(key) {
            self.report(key, self.content.origin.clone(), "is missing".into());
        }
        self.value(key, parse)
    }

    /// Reads the settings of the kind that the section's setting `kind` names, the first without one.
    /// Of an unknown kind, all other settings are ignored.
    pub fn kind<T>(&mut self, kinds: &[Kind<T>]) -> T {
        let names: Vec<&'static str> = kinds.iter().map(|(name, _)| *name).collect();
        let parse: Parse<usize> = Box::new(move |entry, _| {
            let given = parse::text(entry)?;
            let known = names.iter().position(|name| **name == given);
            known.ok_or_else(|| {
                let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
                format!(
                    "{given:?} is no known kind; expected {}",
                    quoted.join(" or ")
                )
            })
        });
        let absent = !self.content.table.contains_key("kind");
        let kind = self.value("kind", &parse);
        self.content.muted |= kind.is_none() && !absent;
        let (_, read) = kinds[kind.unwrap_or(0)];
        read(self)
    }

    /// Reads the section `key` within this one; an absent one is empty.
    pub fn section<T>(&mut self, key: &str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let content = self.content(key);
        Section::new(self.reader, self.path_of(key), content).finish(read)
    }

    /// Reads the sections within the section `key`, each under a name that the user chose. `what` is
    /// the kind of name.
    pub fn tables<T>(
        &mut self,
        key: &str,
        what: &'static str,
        mut read: impl FnMut(&mut Section<'_>) -> T,
    ) -> BTreeMap<Name, T> {
        let path = self.path_of(key);
        let mut tables = BTreeMap::new();
        for (given, entry) in self.content(key).table {
            let path = format!("{path}.{given}");
            let name = Name::parse(what, &given).map_err(|error| {
                self.reader.diagnostics.push(Diagnostic {
                    origin: entry.key_origin.clone(),
                    setting: path.clone(),
                    problem: error.to_string(),
                });
            });
            let content = self.as_content(&path, entry);
            let table = Section::new(self.reader, path, content).finish(&mut read);
            tables.extend(name.map(|name| (name, table)));
        }
        tables
    }

    /// Reads the section `key` as texts, each under a key that the user chose. Numbers and booleans
    /// become text.
    pub fn texts(&mut self, key: &str) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        for (given, entry) in self.content(key).table {
            let text = match (entry.raw, entry.value) {
                (_, Value::Text(text)) | (Some(text), _) | (_, Value::Float(text)) => text,
                (_, Value::Integer(number)) => number.to_string(),
                (_, Value::Boolean(value)) => value.to_string(),
                (_, other @ (Value::Table(_) | Value::List(_) | Value::Date)) => {
                    let problem = format!(
                        "expected text, a number, true or false, found {}; quote it to pass it on \
                         as text",
                        other.describe()
                    );
                    self.report(&format!("{key}.{given}"), entry.origin, problem);
                    continue;
                }
            };
            texts.insert(given, text);
        }
        texts
    }

    fn content(&mut self, key: &str) -> Content {
        match self.take(key) {
            Some(entry) => self.as_content(&self.path_of(key), entry),
            None => Content {
                table: Table::new(),
                origin: self.content.origin.clone(),
                muted: self.content.muted,
            },
        }
    }

    fn as_content(&mut self, path: &str, entry: Entry) -> Content {
        let problem = format!("expected a section, found {}", entry.describe());
        let (table, muted) = match entry.value {
            Value::Table(table) => (table, false),
            _ => (Table::new(), true),
        };
        if muted {
            self.reader.diagnostics.push(Diagnostic {
                origin: entry.origin,
                setting: path.to_owned(),
                problem,
            });
        }
        Content {
            table,
            origin: entry.key_origin,
            muted,
        }
    }
}
