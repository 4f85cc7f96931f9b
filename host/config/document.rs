//! Prints a configuration as commented TOML: the reference, `default.toml`, with the defaults, and what
//! `hostel config show` prints with the values in force.

use super::{
    group::{Group, Item, Line, Reference, SectionItem, TablesItem, Visibility},
    schema::Config,
};
use toml::{Table, Value};

const HEADER: &str = "\
# Every setting of a Hostel node. The reference, host/config/default.toml, has the defaults and is
# generated from host/config/schema; `hostel config show` prints the values in force. A line that begins
# with `#key =` is a setting that is absent unless given.
#
# A file needs only the settings that differ from the defaults. The node reads the file that
# --config names, else ./hostel.toml, else hostel/hostel.toml in $XDG_CONFIG_HOME (~/.config). An
# environment variable HOSTEL__SECTION__KEY overrides the file: HOSTEL__NODE__LISTEN=127.0.0.1:0. In
# a variable, `_` in the name of a plugin, task type or token stands for `-`, unless the file has the
# name with `_`.
#
# Times are whole numbers of milliseconds (_ms), sizes are whole numbers of bytes (_bytes). Relative
# paths start at the directory of the file that gives them; those of variables and defaults start at
# the current directory.
";

/// Stands in the place of a secret.
const MASK: &str = "***";

/// Whether values that may be secret are printed: all under `[plugin.NAME.config]`, since the names of
/// these settings do not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// Values are printed.
    Shown,
    /// `***` is printed in their place.
    Masked,
}

/// What is printed of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    Defaults,
    InForce(Secrets),
}

/// Returns `config` as a file with every setting, which loads to the same configuration except for
/// passwords: they are left out, and masked in URLs.
pub fn show(config: &Config, secrets: Secrets) -> String {
    print(&Config::describe(Some(config)), Values::InForce(secrets))
}

/// Returns the reference of all settings.
pub fn reference() -> String {
    print(&Config::describe(None), Values::Defaults)
}

fn print(items: &[Item], values: Values) -> String {
    let mut printer = Printer {
        out: HEADER.to_owned(),
        values,
        path: Vec::new(),
        commented: false,
        section_doc: &[],
    };
    printer.items(items);
    printer.out
}

struct Printer {
    out: String,
    values: Values,
    /// The names of the current section, quoted where necessary.
    path: Vec<String>,
    /// In an example, where every line is a comment.
    commented: bool,
    /// The documentation of the current section, which is not repeated.
    section_doc: &'static [&'static str],
}

impl Printer {
    fn items(&mut self, items: &[Item]) {
        let lines: Vec<&Line> = lines(items).collect();
        let default = default_kind(&lines);
        // Settings of all kinds first.
        for line in lines.iter().filter(|line| line.kind.is_none()) {
            self.line(line, default);
        }
        let mut kind = None;
        for line in lines.iter().filter(|line| line.kind.is_some()) {
            if line.kind != kind {
                kind = line.kind;
                let heading = format!("--- For kind = {:?} ---", kind.unwrap_or_default());
                self.gap();
                self.comment(&heading);
            }
            self.line(line, default);
        }
        for item in items {
            match item {
                Item::Line(_) => {}
                Item::Section(section) => self.section(section),
                Item::Tables(tables) => self.tables(tables),
            }
        }
    }

    fn line(&mut self, line: &Line, default_kind: Option<&str>) {
        let is_secret = matches!(line.visibility, Visibility::Secret(_));
        if !line.doc.is_empty() && line.doc != self.section_doc {
            self.gap();
            line.doc
                .iter()
                .for_each(|doc| self.comment(doc.trim_start()));
        }
        if is_secret && !self.commented {
            self.comment(&format!(
                "`hostel config show` does not print the password. As a variable: {}.",
                variable(&self.path, &line.key)
            ));
        }
        let reference = line.reference.value();
        let value = match self.values {
            Values::Defaults => {
                let is_default = matches!(line.reference, Reference::Default(_));
                let in_force = line.kind.is_none() || line.kind == default_kind;
                (is_default && in_force && !is_secret).then(|| reference.clone())
            }
            Values::InForce(secrets) => printable(line, secrets),
        };
        match value {
            Some(value) if !self.commented => self.push(&format!("{} = {value}", line.key)),
            _ => self.push(&format!("#{} = {reference}", line.key)),
        }
    }

    fn section(&mut self, section: &SectionItem) {
        self.gap();
        section
            .doc
            .iter()
            .for_each(|doc| self.comment(doc.trim_start()));
        if section.reloadable {
            self.comment("SIGHUP makes a running node read this section again.");
        }
        self.section_doc = section.doc;
        self.path.push(section.key.to_owned());
        let mark = if self.commented { "#" } else { "" };
        // A section that only holds others needs no header.
        if lines(&section.items).next().is_some() {
            self.push(&format!("{mark}[{}]", self.path.join(".")));
        }
        self.items(&section.items);
        self.path.pop();
    }

    fn tables(&mut self, tables: &TablesItem) {
        self.gap();
        tables
            .doc
            .iter()
            .for_each(|doc| self.comment(doc.trim_start()));
        if tables.reloadable {
            self.comment("SIGHUP makes a running node read these sections again.");
        }
        let (name, items) = &tables.example;
        self.path
            .extend([tables.key.to_owned(), (*name).to_owned()]);
        self.commented = true;
        if lines(items).next().is_some() {
            self.push(&format!("#[{}]", self.path.join(".")));
        }
        self.items(items);
        self.commented = false;
        self.path.truncate(self.path.len() - 2);
        let Values::InForce(secrets) = self.values else {
            return;
        };
        for (name, items) in &tables.tables {
            let names = self.path.iter().map(String::as_str);
            let names: Vec<&str> = names.chain([tables.key, name]).collect();
            let table = names.into_iter().rev().fold(table(items, secrets), within);
            self.out.push_str(&format!("\n{table}"));
        }
    }

    fn comment(&mut self, text: &str) {
        self.push(format!("# {text}").trim_end());
    }

    /// Separates a setting from the one before it, except below a header.
    fn gap(&mut self) {
        if self.out.ends_with("]\n") && self.out.lines().next_back().is_some_and(is_header) {
            return;
        }
        self.out.push('\n');
    }

    fn push(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push('\n');
    }
}

fn is_header(line: &str) -> bool {
    line.trim_start_matches('#').starts_with('[')
}

fn lines(items: &[Item]) -> impl Iterator<Item = &Line> {
    items.iter().filter_map(|item| match item {
        Item::Line(line) => Some(line),
        _ => None,
    })
}

fn default_kind<'l>(lines: &[&'l Line]) -> Option<&'l str> {
    let kind = lines.iter().find(|line| line.key == "kind")?;
    match &kind.reference {
        Reference::Default(value) => value.as_str(),
        Reference::Example(_) => None,
    }
}

/// The environment variable that gives a setting.
fn variable(path: &[String], key: &str) -> String {
    let names = path.iter().map(String::as_str).chain([key]);
    let names: Vec<String> = names.map(str::to_uppercase).collect();
    format!("HOSTEL__{}", names.join("__"))
}

/// The value in force, or what stands for it.
fn printable(line: &Line, secrets: Secrets) -> Option<Value> {
    let value = line.value.clone()?;
    match &line.visibility {
        Visibility::Public => Some(value),
        Visibility::Secret(masked) => masked.clone(),
        Visibility::OnRequest if secrets == Secrets::Shown => Some(value),
        Visibility::OnRequest => Some(MASK.into()),
    }
}

/// The values in force of `items`.
fn table(items: &[Item], secrets: Secrets) -> Table {
    let value = |item: &Item| match item {
        Item::Line(line) => Some((line.key.clone(), printable(line, secrets)?)),
        Item::Section(section) => {
            let table = table(&section.items, secrets);
            Some((section.key.to_owned(), Value::Table(table)))
        }
        Item::Tables(tables) => {
            let tables_in_force = tables.tables.iter();
            let values = tables_in_force
                .map(|(name, items)| (name.clone(), Value::Table(table(items, secrets))));
            Some((tables.key.to_owned(), Value::Table(values.collect())))
        }
    };
    items.iter().filter_map(value).collect()
}

fn within(table: Table, name: &str) -> Table {
    Table::from_iter([(name.to_owned(), Value::Table(table))])
}

#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod tests;
