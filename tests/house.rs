//! The floors of the house (see `host/lib.rs`) and its style, read from the sources: who imports
//! whom, who may name which crate, how long a file may be.

use libtest_mimic::Trial;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Modules by floor; each may use its own folder and the floors below. The ground floor's settings
/// are typed with task's names, so it counts as two; plugins are lent the key-value store, and
/// two engines share a Redis, so the one above it does too.
const FLOORS: [&[&str]; 8] = [
    &[
        "task",
        "backoff",
        "lifecycle",
        "budget",
        "health",
        "log_limit",
        "untrusted",
        "parent",
    ],
    &["config", "sqlite", "pem"],
    &["keyvalue", "redis"],
    &["queue", "discovery", "broker", "plugin"],
    &["scheduler", "component"],
    &["api", "worker", "client"],
    &["node"],
    &["cli"],
];

/// Crates, and modules, that only some folders may name.
const OWNERS: [(&str, &[&str]); 8] = [
    ("wasmtime", &["plugin"]),
    ("wasmtime_wasi", &["plugin"]),
    ("etcd_client", &["discovery/etcd"]),
    ("redis", &["broker/redis", "queue/redis", "redis"]),
    ("rusqlite", &["queue", "keyvalue", "sqlite"]),
    ("tokio_rustls", &["api", "client", "pem"]),
    ("tonic", &["api", "client", "cli", "proto"]),
    ("proto", &["api", "client", "cli"]),
];

/// Files that spawn tasks besides `health/background.rs`, which owns those that outlive a call. Whoever
/// spawns these waits for them: for an answer at once, or for all of a set at the end.
const SPAWN_AND_WAIT: &[&str] = &[
    "api/serve",
    "broker/redis/mod",
    "cli/demo/process",
    "component/reception",
    "plugin/compile/process",
    "plugin/compile/spawner",
    "plugin/compiler",
    "plugin/generation",
    "plugin/loader",
    "plugin/workshop",
    "queue/redis/lease_guard",
    "queue/redis/queue",
    "worker/dispatch",
];

const MAX_LINES: usize = 450;

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("house::no_module_reaches_upward", || {
            none(sources().iter().flat_map(upward))
        }),
        Trial::test("house::each_crate_is_named_by_its_owners_alone", || {
            none(sources().iter().flat_map(trespasses))
        }),
        Trial::test(
            "house::only_the_output_module_writes_to_the_terminal",
            || none(sources().iter().filter_map(writes_to_the_terminal)),
        ),
        Trial::test("house::each_background_task_is_supervised", || {
            none(sources().iter().flat_map(unsupervised))
        }),
        Trial::test("house::each_file_says_what_it_is_and_stays_short", || {
            none(sources().iter().flat_map(unstylish))
        }),
        Trial::test("house::each_queue_has_a_bound_that_is_written_down", || {
            none(unbounded(&sources()).into_iter())
        }),
    ]
}

struct Source {
    path: PathBuf,
    /// The first folder or file below `host/`.
    module: String,
    /// Below `host/`, without `.rs`.
    below: PathBuf,
    text: String,
}

fn none(faults: impl Iterator<Item = String>) -> Result<(), libtest_mimic::Failed> {
    let faults: Vec<_> = faults.collect();
    match faults.is_empty() {
        true => Ok(()),
        false => Err(faults.join("\n").into()),
    }
}

fn sources() -> Vec<Source> {
    let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("host");
    let mut sources = Vec::new();
    let mut folders = vec![host.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path.strip_prefix(&host).expect("below host");
                let first = below.iter().next().expect("a name").to_string_lossy();
                sources.push(Source {
                    module: first.trim_end_matches(".rs").to_owned(),
                    below: below.with_extension(""),
                    text: fs::read_to_string(&path).expect("a source"),
                    path,
                });
            }
        }
    }
    assert!(sources.len() > 30, "the house has more files than this");
    sources
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

fn upward(source: &Source) -> Vec<String> {
    let Some(own) = floor(&source.module) else {
        return Vec::new();
    };
    let forbidden =
        |used: &&String| **used != source.module && floor(used).is_some_and(|other| other >= own);
    let used = used_modules(&source.text);
    let faults = used.iter().filter(forbidden);
    faults
        .map(|used| format!("{} uses crate::{used}", source.path.display()))
        .collect()
}

/// The names right behind `crate::`, those in braces included.
fn used_modules(text: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            used.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut expects_name = true;
        for (index, character) in list.char_indices() {
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => expects_name = true,
                _ if expects_name && !character.is_whitespace() => {
                    used.insert(word(&list[index..]));
                    expects_name = false;
                }
                _ => {}
            }
        }
    }
    used
}

fn word(text: &str) -> String {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
    text[..end.unwrap_or(text.len())].to_owned()
}

fn trespasses(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, owners) in OWNERS {
        let prefix = if name == "proto" { "crate::" } else { "" };
        let named = mentions(&source.text, &format!("{prefix}{name}::"))
            || (!prefix.is_empty() && used_modules(&source.text).contains(name));
        let owned = owners.iter().any(|owner| source.below.starts_with(owner));
        if named && !owned {
            let path = source.path.display();
            faults.push(format!("{path} names {name}, which is for {owners:?}"));
        }
    }
    faults
}

/// Whether `path` stands there as a whole word, outside comments.
fn mentions(text: &str, path: &str) -> bool {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .any(|line| {
            line.match_indices(path).any(|(at, _)| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            })
        })
}

/// Text that others wrote must not reach a terminal as it is: of the commands, `cli/output.rs` makes it
/// printable, and `cli/log.rs` does for the log.
fn writes_to_the_terminal(source: &Source) -> Option<String> {
    let sinks = ["cli/output", "cli/log"];
    if source.module != "cli" || sinks.iter().any(|sink| source.below == Path::new(sink)) {
        return None;
    }
    let ways = ["println!(", "print!(", "stdout()", "stderr()"];
    let way = ways.into_iter().find(|way| source.text.contains(way))?;
    Some(format!(
        "{} writes by {way}, past cli/output.rs",
        source.path.display()
    ))
}

fn unsupervised(source: &Source) -> Vec<String> {
    let below = source.below.to_string_lossy();
    let is_test = source.below.iter().any(|part| part == "tests");
    if below == "health/background" || is_test {
        return Vec::new();
    }
    let code = source.text.split("#[cfg(test)]").next().unwrap_or_default();
    let never = [
        "tokio::spawn(",
        "task::spawn(",
        "thread::spawn(",
        "thread::Builder",
    ];
    let waited_for = [".spawn(", ".spawn_on("];
    let may_wait = SPAWN_AND_WAIT.contains(&&*below);
    let lines = code.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim_start().starts_with("//"));
    let lines = lines.filter(|(_, line)| {
        never.iter().any(|it| line.contains(it))
            || (!may_wait && waited_for.iter().any(|it| line.contains(it)))
    });
    let path = source.path.display();
    lines
        .map(|(number, _)| {
            let line = number + 1;
            format!(
                "{path}:{line} spawns what nobody supervises: use Health (health/background.rs)"
            )
        })
        .collect()
}

fn unstylish(source: &Source) -> Vec<String> {
    let path = source.path.display();
    let lines = source.text.lines().count();
    let mut faults = Vec::new();
    if !source.text.starts_with("//!") {
        faults.push(format!("{path} does not say what lives in it"));
    }
    if lines > MAX_LINES {
        faults.push(format!("{path} has {lines} lines"));
    }
    faults
}

/// What makes something that may grow.
const GROWING: [&str; 6] = [
    "mpsc::channel(",
    "mpsc::unbounded_channel(",
    "mpsc::sync_channel(",
    "broadcast::channel(",
    "VecDeque<",
    "JoinSet::new(",
];

/// Each file that makes a queue has a row in the table of bounds, and each row's file is there.
fn unbounded(sources: &[Source]) -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    let page = fs::read_to_string(page).expect("ARCHITECTURE.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let named: BTreeSet<&str> = rows
        .filter_map(|row| row.split(" | ").next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    let mut faults = Vec::new();
    for source in sources {
        let file = source.below.with_extension("rs");
        let is_test = source.below.ends_with("tests");
        // Tests at the end of a file make what they need.
        let code = source.text.split("#[cfg(test)]\nmod tests {").next();
        let grows = GROWING
            .iter()
            .find(|made| code.is_some_and(|code| code.contains(**made)));
        if let Some(made) = grows
            && !is_test
            && !named.contains(&*file.to_string_lossy())
        {
            faults.push(format!(
                "host/{} has {made}) and no row in ARCHITECTURE.md that says what bounds it",
                file.display()
            ));
        }
    }
    let gone = named.iter().filter(|file| {
        !sources
            .iter()
            .any(|source| source.below.with_extension("rs") == Path::new(file))
    });
    faults
        .extend(gone.map(|file| format!("ARCHITECTURE.md names host/{file}, which is not there")));
    faults
}
