//! From files and variables to a `Config`. The only place here that looks at the disk.

use super::{
    Config,
    fault::{Fault, Faults, Origin},
    reader::Reader,
    section, tree, variable,
};
use etcetera::BaseStrategy;
use std::path::{Path, PathBuf};

/// The commented reference, and the source of every default.
pub const REFERENCE: &str = include_str!("default.toml");

impl Config {
    /// Reads `file`, or the file that `locate` finds, and lays `variables` over it.
    pub fn load(
        file: Option<&Path>,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Faults> {
        let Some(path) = file.map(Path::to_owned).or_else(locate) else {
            return read(Source::default(), &Places::here(), variables);
        };
        let unreadable = |problem: String| {
            let origin = Origin::File;
            let setting = String::new();
            let fault = Fault {
                origin,
                setting,
                problem,
            };
            Faults::new(Some(&path), vec![fault])
        };
        let bytes =
            std::fs::read(&path).map_err(|error| unreadable(format!("cannot be read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            unreadable(format!("line {line} is not UTF-8"))
        })?;
        let source = Source {
            text: &text,
            file: Some(&path),
        };
        read(source, &Places::here(), variables)
    }

    /// Reads `text` as if it were a file in the current directory; for tests and for embedding.
    pub fn parse(
        text: &str,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Faults> {
        let file = None;
        read(Source { text, file }, &Places::here(), variables)
    }
}

/// What a node does without any file or variable.
impl Default for Config {
    fn default() -> Self {
        match read(Source::default(), &Places::here(), std::iter::empty()) {
            Ok(config) => config,
            Err(faults) => unreachable!("a test holds default.toml to be sound: {faults}"),
        }
    }
}

/// The file that is read when none is named: `hostel.toml` here, else in the user's configuration
/// directory, else none.
pub fn locate() -> Option<PathBuf> {
    let user = etcetera::choose_base_strategy().ok();
    let user = user.map(|user| user.config_dir().join("hostel/hostel.toml"));
    let here = PathBuf::from("hostel.toml");
    [Some(here), user]
        .into_iter()
        .flatten()
        .find(|path| path.exists())
}

/// The process's variables, those that are not Unicode with their strange parts replaced.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (lossy(name), lossy(value)))
}

/// What is read over the defaults.
#[derive(Default)]
struct Source<'a> {
    text: &'a str,
    /// For messages, and for the directory where relative paths start.
    file: Option<&'a Path>,
}

/// Directories that the process was started with.
struct Places {
    current: PathBuf,
    data: PathBuf,
}

impl Places {
    fn here() -> Self {
        let current = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        let data = match etcetera::choose_base_strategy() {
            Ok(user) => user.data_dir().join("hostel"),
            // A user without a home, as services have: the working directory is what they are given.
            Err(_) => current.join("hostel-data"),
        };
        Self { current, data }
    }
}

fn read(
    source: Source<'_>,
    places: &Places,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Config, Faults> {
    let fail = |faults| Faults::new(source.file, faults);
    let mut tree = tree::parse(REFERENCE).map_err(fail)?;
    tree::mark_default(&mut tree);
    tree::merge(&mut tree, tree::parse(source.text).map_err(fail)?);

    let file_dir = source.file.and_then(Path::parent).unwrap_or(Path::new(""));
    let mut reader = Reader::new(places.current.join(file_dir), places.current.clone());
    variable::apply(&mut tree, variables, &mut reader.faults);
    let config = reader.root(tree, |root| section::config(root, &places.data));
    match reader.faults.is_empty() {
        true => Ok(config),
        false => Err(fail(reader.faults)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_start_at_the_file_or_where_the_process_does() {
        let places = Places {
            current: "/work".into(),
            data: "/home/u/.local/share/hostel".into(),
        };
        let read = |text: &str, file: Option<&str>| {
            let file = file.map(Path::new);
            read(Source { text, file }, &places, std::iter::empty()).unwrap()
        };
        let dir = |config: Config| config.plugins.dir;
        let text = "[plugins]\ndir = \"guests\"";
        assert_eq!(
            dir(read(text, Some("/etc/h.toml"))),
            Path::new("/etc/guests")
        );
        assert_eq!(
            dir(read(text, Some("conf/h.toml"))),
            Path::new("/work/conf/guests")
        );
        assert_eq!(dir(read(text, Some("h.toml"))), Path::new("/work/guests"));
        assert_eq!(dir(read(text, None)), Path::new("/work/guests"));
        // A default is not written in the file.
        assert_eq!(
            dir(read("", Some("/etc/h.toml"))),
            Path::new("/work/plugins")
        );
        let defaults = read("", Some("/etc/h.toml"));
        assert_eq!(defaults.node.data_dir, places.data);
        let moved = read("[node]\ndata_dir = \"d\"", Some("/etc/h.toml"));
        let super::super::Queue::Sqlite(sqlite) = moved.queue else {
            panic!("another kind");
        };
        assert_eq!(sqlite.path, Path::new("/etc/d/queue.db"));
    }
}
