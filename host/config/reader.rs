//! Takes settings out of a tree one by one: converts, checks the range, notes what is wrong and
//! goes on. Knows no setting by name; `section.rs` does.

use super::{
    fault::{Fault, Origin, suggest},
    tree::{Entry, Table, Value},
};
use hostel_task::Name;
use std::{
    collections::BTreeMap,
    fmt::Display,
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

/// What all sections share while a tree is read.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub faults: Vec<Fault>,
    /// Where relative paths of the file start.
    file_dir: PathBuf,
    /// Where other relative paths start.
    current_dir: PathBuf,
    /// What was read without a fault, by path: checks across settings look at nothing else.
    sound: BTreeMap<String, Origin>,
}

impl Reader {
    pub fn new(file_dir: PathBuf, current_dir: PathBuf) -> Self {
        Self {
            file_dir,
            current_dir,
            ..Self::default()
        }
    }

    /// Reads the whole tree through `read`; what that does not ask for is unknown.
    pub fn root<T>(&mut self, tree: Table, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        Section::new(self, String::new(), tree, false).finish(read)
    }

    /// A rule across the settings `paths`, blamed on the first that was not left at its default.
    /// Silent when one of them is already at fault.
    pub fn rule(&mut self, paths: &[&str], holds: bool, problem: impl FnOnce() -> String) {
        let origins: Option<Vec<&Origin>> =
            paths.iter().map(|path| self.sound.get(*path)).collect();
        let Some(origins) = origins.filter(|_| !holds) else {
            return;
        };
        let blamed = origins
            .iter()
            .position(|origin| **origin != Origin::Default)
            .unwrap_or(0);
        self.faults.push(Fault {
            origin: origins[blamed].clone(),
            setting: paths[blamed].to_owned(),
            problem: problem(),
        });
    }
}

/// One table of the tree. After a fault the value returned is a stand-in; nobody uses a
/// configuration with faults.
pub(super) struct Section<'r> {
    reader: &'r mut Reader,
    path: String,
    table: Table,
    known: Vec<&'static str>,
    /// Nothing can be said about the rest: its kind is unknown or it is no table.
    muted: bool,
}

impl<'r> Section<'r> {
    fn new(reader: &'r mut Reader, path: String, table: Table, muted: bool) -> Self {
        Self {
            reader,
            path,
            table,
            known: Vec::new(),
            muted,
        }
    }

    fn finish<T>(mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let value = read(&mut self);
        if self.muted {
            return value;
        }
        for (key, entry) in std::mem::take(&mut self.table) {
            // The defaults are complete for their own kind only.
            if entry.key_origin == Origin::Default {
                continue;
            }
            let hint = match suggest(&key, &self.known) {
                Some(meant) => format!("; did you mean {meant}?"),
                None => format!("; known here: {}", self.known.join(", ")),
            };
            self.fault(&key, entry.key_origin, format!("no such setting{hint}"));
        }
        value
    }

    pub fn path_of(&self, key: &str) -> String {
        match self.path.is_empty() {
            true => key.to_owned(),
            false => format!("{}.{key}", self.path),
        }
    }

    /// Whether something is said, right or wrong.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    pub fn reader(&mut self) -> &mut Reader {
        self.reader
    }

    fn fault(&mut self, key: &str, origin: Origin, problem: String) {
        let setting = self.path_of(key);
        self.reader.faults.push(Fault {
            origin,
            setting,
            problem,
        });
    }

    fn take(&mut self, key: &'static str) -> Option<Entry> {
        self.known.push(key);
        self.table.remove(key)
    }

    /// Takes a value through `convert`, which returns `Err` with what was expected.
    fn value<T>(
        &mut self,
        key: &'static str,
        convert: impl FnOnce(&Self, &Entry) -> Result<T, String>,
    ) -> Option<T> {
        let entry = self.take(key)?;
        match convert(self, &entry) {
            Ok(value) => {
                self.reader.sound.insert(self.path_of(key), entry.origin);
                Some(value)
            }
            Err(problem) => {
                self.fault(key, entry.origin, problem);
                None
            }
        }
    }

    /// Turns an absent value into a fault.
    fn required<T>(
        &mut self,
        key: &'static str,
        stand_in: T,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> T {
        if !self.muted && !self.table.contains_key(key) {
            self.fault(key, Origin::File, "has to be given".into());
        }
        read(self).unwrap_or(stand_in)
    }

    pub fn maybe_number<T>(&mut self, key: &'static str, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i128> + PartialOrd + Display + Copy,
    {
        self.value(key, |_, entry| number(entry, range, ""))
    }

    pub fn number<T>(&mut self, key: &'static str, range: RangeInclusive<T>) -> T
    where
        T: TryFrom<i128> + PartialOrd + Display + Copy,
    {
        self.required(key, *range.start(), |s| s.maybe_number(key, range))
    }

    /// A time; `range` in milliseconds.
    pub fn maybe_ms(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<Duration> {
        self.value(key, |_, entry| number(entry, range, " of milliseconds"))
            .map(Duration::from_millis)
    }

    pub fn ms(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Duration {
        self.required(key, Duration::ZERO, |s| s.maybe_ms(key, range))
    }

    pub fn maybe_boolean(&mut self, key: &'static str) -> Option<bool> {
        self.value(key, |_, entry| match entry.value {
            Value::Boolean(value) => Ok(value),
            _ => Err(format!("true or false expected, {} found", found(entry))),
        })
    }

    pub fn boolean(&mut self, key: &'static str) -> bool {
        self.required(key, false, |s| s.maybe_boolean(key))
    }

    pub fn address(&mut self, key: &'static str, stand_in: SocketAddr) -> SocketAddr {
        self.required(key, stand_in, |s| {
            s.value(key, |_, entry| {
                let given = text(entry)?;
                given.parse().map_err(|_| {
                    format!("{given:?} is no IP address with a port, such as 127.0.0.1:50051")
                })
            })
        })
    }

    pub fn maybe_name(&mut self, key: &'static str, what: &'static str) -> Option<Name> {
        self.value(key, |_, entry| {
            Name::parse(what, &text(entry)?).map_err(|error| error.to_string())
        })
    }

    /// A text that `check` accepts; it returns `Err` with what was expected.
    pub fn maybe_text<T>(
        &mut self,
        key: &'static str,
        check: impl FnOnce(String) -> Result<T, String>,
    ) -> Option<T> {
        self.value(key, |_, entry| check(text(entry)?))
    }

    pub fn text<T>(
        &mut self,
        key: &'static str,
        stand_in: T,
        check: impl FnOnce(String) -> Result<T, String>,
    ) -> T {
        self.required(key, stand_in, |s| s.maybe_text(key, check))
    }

    /// A list of texts that `check` accepts one by one; a single text is a list too.
    pub fn maybe_list<T>(
        &mut self,
        key: &'static str,
        check: impl Fn(String) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        self.value(key, |_, entry| {
            let Value::List(items) = &entry.value else {
                return Ok(vec![check(text(entry)?)?]);
            };
            if items.is_empty() {
                return Err("at least one is needed".into());
            }
            let item = |item: &Value| match item {
                Value::Text(text) => check(text.clone()),
                other => Err(format!(
                    "a list of texts expected, {} found in it",
                    other.describe()
                )),
            };
            items.iter().map(item).collect()
        })
    }

    /// An absolute path.
    pub fn maybe_path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.value(key, |s, entry| {
            let given = text(entry)?;
            if given.is_empty() || given.contains('\0') {
                return Err("a path expected".into());
            }
            if given == "~" || given.starts_with("~/") {
                return Err(format!(
                    "{given:?}: `~` is not expanded; write the whole path"
                ));
            }
            let base = match entry.origin {
                Origin::File | Origin::Line { .. } => &s.reader.file_dir,
                Origin::Variable(_) | Origin::Default => &s.reader.current_dir,
            };
            // Taken apart and put together again to lose `./` and doubled slashes.
            Ok(base.join(Path::new(&given)).components().collect())
        })
    }

    pub fn path(&mut self, key: &'static str) -> PathBuf {
        self.required(key, PathBuf::new(), |s| s.maybe_path(key))
    }

    /// Which of `kinds` a section is of. Of an unknown kind nothing else is looked at.
    pub fn kind(&mut self, kinds: &[&'static str]) -> &'static str {
        let read = self.value("kind", |_, entry| {
            let given = text(entry)?;
            let known = kinds.iter().find(|kind| **kind == given);
            known.copied().ok_or_else(|| {
                let known: Vec<String> = kinds.iter().map(|kind| format!("{kind:?}")).collect();
                format!(
                    "{given:?} is no kind known here; allowed: {}",
                    known.join(", ")
                )
            })
        });
        self.muted |= read.is_none();
        read.unwrap_or(kinds[0])
    }

    /// A table within this one; an absent one is empty.
    pub fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Section<'_>) -> T) -> T {
        let (table, muted) = self.table(key);
        Section::new(self.reader, self.path_of(key), table, muted).finish(read)
    }

    /// A table of tables, each under a name that the user chose.
    pub fn each<T>(
        &mut self,
        key: &'static str,
        what: &'static str,
        mut read: impl FnMut(&mut Section<'_>) -> T,
    ) -> BTreeMap<Name, T> {
        let path = self.path_of(key);
        let (table, _) = self.table(key);
        let mut all = BTreeMap::new();
        for (given, entry) in table {
            let path = format!("{path}.{given}");
            let name = Name::parse(what, &given);
            if let Err(error) = &name {
                self.reader.faults.push(Fault {
                    origin: entry.key_origin.clone(),
                    setting: path.clone(),
                    problem: error.to_string(),
                });
            }
            let (table, muted) = self.as_table(path.clone(), entry);
            let value = Section::new(self.reader, path, table, muted).finish(&mut read);
            all.extend(name.map(|name| (name, value)));
        }
        all
    }

    /// A table of texts, each under a key that the user chose. Numbers and booleans become text.
    pub fn texts(&mut self, key: &'static str) -> BTreeMap<String, String> {
        let (table, _) = self.table(key);
        let mut all = BTreeMap::new();
        for (given, entry) in table {
            let value = match (entry.raw, entry.value) {
                (_, Value::Text(text)) | (Some(text), _) | (_, Value::Float(text)) => text,
                (_, Value::Integer(number)) => number.to_string(),
                (_, Value::Boolean(value)) => value.to_string(),
                (_, other @ (Value::Table(_) | Value::List(_) | Value::Date)) => {
                    let problem = format!(
                        "text, a number, true or false expected, {} found; quote it to pass it on",
                        other.describe()
                    );
                    self.fault(&format!("{key}.{given}"), entry.origin, problem);
                    continue;
                }
            };
            all.insert(given, value);
        }
        all
    }

    fn table(&mut self, key: &'static str) -> (Table, bool) {
        let path = self.path_of(key);
        match self.take(key) {
            Some(entry) => self.as_table(path, entry),
            None => (Table::new(), self.muted),
        }
    }

    fn as_table(&mut self, path: String, entry: Entry) -> (Table, bool) {
        if let Value::Table(table) = entry.value {
            return (table, false);
        }
        let problem = format!("a section expected, {} found", found(&entry));
        self.reader.faults.push(Fault {
            origin: entry.origin,
            setting: path,
            problem,
        });
        (Table::new(), true)
    }
}

fn found(entry: &Entry) -> String {
    match &entry.raw {
        Some(raw) => format!("{raw:?}"),
        None => entry.value.describe(),
    }
}

fn text(entry: &Entry) -> Result<String, String> {
    match (&entry.value, &entry.raw) {
        (Value::Text(text), _) | (_, Some(text)) => Ok(text.clone()),
        _ => Err(format!("text expected, {} found", found(entry))),
    }
}

fn number<T>(entry: &Entry, range: RangeInclusive<T>, unit: &str) -> Result<T, String>
where
    T: TryFrom<i128> + PartialOrd + Display + Copy,
{
    let (least, most) = (range.start(), range.end());
    let Value::Integer(given) = entry.value else {
        return Err(format!(
            "a whole number{unit} from {least} to {most} expected, {} found",
            found(entry)
        ));
    };
    let value = T::try_from(given).ok();
    value.filter(|value| range.contains(value)).ok_or_else(|| {
        format!("{given} is out of range; a whole number{unit} from {least} to {most} is allowed")
    })
}
