//! Loads a `Config` from a file and environment variables. The only file here that accesses the disk.

use super::{
    diagnostic::{Diagnostic, Diagnostics, Origin},
    env,
    group::Group,
    parse::BaseDirs,
    reader::Reader,
    rules,
    schema::{self, Config},
    tree,
};
use etcetera::BaseStrategy;
use std::path::{Path, PathBuf};

impl Config {
    /// Reads `file`, or the file that [`find_file`] returns, and applies `variables` over it.
    pub fn load(
        file: Option<&Path>,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Diagnostics> {
        let Some(path) = file.map(Path::to_owned).or_else(find_file) else {
            return read(Source::default(), base_dirs(), variables);
        };
        let unreadable = |problem: String| {
            let diagnostic = Diagnostic {
                origin: Origin::File,
                setting: String::new(),
                problem,
            };
            Diagnostics::new(Some(&path), vec![diagnostic])
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
        read(source, base_dirs(), variables)
    }

    /// Reads `text` as if it were a file in the current directory; for tests and for embedding.
    pub fn parse(
        text: &str,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Diagnostics> {
        let file = None;
        read(Source { text, file }, base_dirs(), variables)
    }
}

/// The configuration without a file and variables.
impl Default for Config {
    fn default() -> Self {
        match read(Source::default(), base_dirs(), std::iter::empty()) {
            Ok(config) => config,
            Err(errors) => unreachable!("the defaults are valid: {errors}"),
        }
    }
}

/// Returns the file that is read if none is named: `hostel.toml` in the current directory, else in the
/// user's configuration directory.
pub fn find_file() -> Option<PathBuf> {
    let user = etcetera::choose_base_strategy().ok();
    let user = user.map(|user| user.config_dir().join("hostel/hostel.toml"));
    let current = PathBuf::from("hostel.toml");
    [Some(current), user]
        .into_iter()
        .flatten()
        .find(|path| exists(path))
}

/// Whether a file is at `path`. A link whose file is missing counts: to read it gives the reason, where the
/// defaults would give a node other data.
pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Returns the environment variables of the process. Characters that are not Unicode are replaced.
pub fn env_vars() -> impl Iterator<Item = (String, String)> {
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (lossy(name), lossy(value)))
}

/// The text of a configuration file.
#[derive(Default)]
struct Source<'a> {
    text: &'a str,
    /// For errors, and as the start of relative paths.
    file: Option<&'a Path>,
}

/// Returns the directories of the process; `read` adds that of the file.
fn base_dirs() -> BaseDirs {
    let current = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
    let data = match etcetera::choose_base_strategy() {
        Ok(user) => user.data_dir().join("hostel"),
        // A user without a home, as services have.
        Err(_) => current.join("hostel-data"),
    };
    BaseDirs {
        file: PathBuf::new(),
        current,
        data,
    }
}

fn read(
    source: Source<'_>,
    mut base_dirs: BaseDirs,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Config, Diagnostics> {
    let fail = |diagnostics| Diagnostics::new(source.file, diagnostics);
    // Known before the file is merged, which drops the settings of a kind that it changes.
    let mut tree = schema::default_kinds();
    tree::merge(&mut tree, tree::parse(source.text).map_err(fail)?);

    let file_dir = source.file.and_then(Path::parent).unwrap_or(Path::new(""));
    base_dirs.file = base_dirs.current.join(file_dir);
    let mut reader = Reader::new(base_dirs);
    env::apply(&mut tree, variables, &mut reader.diagnostics);
    let config = reader.root(tree, Config::read);
    rules::check(&config, &mut reader);
    if reader.diagnostics.is_empty() {
        Ok(config)
    } else {
        Err(fail(reader.diagnostics))
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::QueueBackend;
    use super::*;

    #[test]
    fn relative_paths_start_at_the_file_or_the_current_directory() {
        let base_dirs = BaseDirs {
            file: PathBuf::new(),
            current: "/work".into(),
            data: "/home/u/.local/share/hostel".into(),
        };
        let read = |text: &str, file: Option<&str>| {
            let file = file.map(Path::new);
            read(Source { text, file }, base_dirs.clone(), std::iter::empty()).unwrap()
        };
        let text = "[plugins]\ndir = \"guests\"";
        for (text, file, dir) in [
            (text, Some("/etc/h.toml"), "/etc/guests"),
            (text, Some("conf/h.toml"), "/work/conf/guests"),
            (text, Some("h.toml"), "/work/guests"),
            (text, None, "/work/guests"),
            // A default is not given in the file.
            ("", Some("/etc/h.toml"), "/work/plugins"),
        ] {
            assert_eq!(read(text, file).plugins.dir, Path::new(dir), "{file:?}");
        }
        let defaults = read("", Some("/etc/h.toml"));
        assert_eq!(defaults.node.data_dir, base_dirs.data);
        let moved = read("[node]\ndata_dir = \"d\"", Some("/etc/h.toml"));
        let QueueBackend::Sqlite(sqlite) = moved.queue.backend else {
            panic!("another kind");
        };
        assert_eq!(sqlite.path, Path::new("/etc/d/queue.db"));
    }
}
