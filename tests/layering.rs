//! The layers of the architecture (see `host/lib.rs`) and the style of the sources: imports between
//! modules, crates that only some folders may use, supervised background tasks, documented bounds, and
//! the length of files.

mod cycles;

use crate::support::plugins::source;
use libtest_mimic::Trial;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The modules and crates of each layer, from the lowest. A module may use its own folder and lower
/// layers. `budget` to `untrusted` are modules of the crate `runtime`.
const LAYERS: [&[&str]; 10] = [
    &["backoff", "fuzz"],
    &[
        "task",
        "runtime",
        "budget",
        "file_fingerprint",
        "health",
        "lifecycle",
        "log_limit",
        "parent",
        "pem",
        "untrusted",
    ],
    &["schedule", "sqlite"],
    &["config"],
    &["keyvalue", "redis"],
    &["queue", "discovery", "broker", "plugin"],
    &["scheduler", "component"],
    &["api", "worker", "client"],
    &["node"],
    &["cli"],
];

/// Crates and modules, each with the folders that may use it.
const OWNERS: [(&str, &[&str]); 8] = [
    ("wasmtime", &["plugin"]),
    ("wasmtime_wasi", &["plugin"]),
    ("etcd_client", &["discovery/etcd"]),
    ("redis", &["broker", "queue", "redis"]),
    ("rusqlite", &["queue", "keyvalue", "sqlite"]),
    ("tokio_rustls", &["api", "client", "runtime/pem"]),
    ("tonic", &["api", "client", "cli", "proto"]),
    ("proto", &["api", "client", "cli"]),
];

/// Files besides `health/background.rs` that spawn tasks. They wait for each task or for all of a set;
/// `health/background.rs` supervises the tasks that outlive a call.
const SPAWN_AND_WAIT: &[&str] = &[
    "api/transport/serve",
    "broker/redis/mod",
    "cli/demo/process",
    "component/node_inbox",
    "discovery/etcd/service_writer",
    "plugin/compile/process",
    "plugin/compile/spawner",
    "plugin/compile/compiler",
    "plugin/generation",
    "plugin/load/loader",
    "plugin/load/describe",
    "queue/redis/lease_guard",
    "queue/redis/queue",
    "worker/dispatcher",
];

const MAX_LINES: usize = 450;

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("layering::no_module_imports_from_a_higher_layer", || {
            none(sources().iter().flat_map(imports_of_higher_layers))
        }),
        Trial::test("layering::no_files_import_each_other", || {
            none(cycles::cycles(&sources()).into_iter())
        }),
        Trial::test("layering::only_owning_folders_use_a_crate", || {
            none(sources().iter().flat_map(foreign_crates))
        }),
        Trial::test(
            "layering::only_the_output_module_writes_to_the_terminal",
            || none(sources().iter().filter_map(writes_to_the_terminal)),
        ),
        Trial::test("layering::every_background_task_is_supervised", || {
            none(sources().iter().flat_map(unsupervised))
        }),
        Trial::test("layering::every_file_has_a_header_and_stays_short", || {
            none(sources().iter().flat_map(style_faults))
        }),
        Trial::test("layering::every_queue_has_a_documented_bound", || {
            none(undocumented_queues(&sources()).into_iter())
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

impl Source {
    /// Returns `true` if the file belongs to a crate of its own and not to the root package.
    fn is_in_engine(&self) -> bool {
        let manifest = Path::new("host").join(&self.module).join("Cargo.toml");
        source().join(manifest).exists()
    }

    /// Returns `true` if the file only has tests or a conformance suite.
    fn is_test(&self) -> bool {
        let tests = ["tests", "conformance"];
        self.below
            .iter()
            .any(|part| tests.iter().any(|test| part == *test))
    }
}

fn none(faults: impl Iterator<Item = String>) -> Result<(), libtest_mimic::Failed> {
    let faults: Vec<_> = faults.collect();
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults.join("\n").into())
    }
}

fn sources() -> Vec<Source> {
    let host = source().join("host");
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
    assert!(sources.len() > 30, "there are more sources than this");
    sources
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn imports_of_higher_layers(source: &Source) -> Vec<String> {
    let Some(own) = layer(&source.module) else {
        return Vec::new();
    };
    let forbidden =
        |used: &&String| **used != source.module && layer(used).is_some_and(|other| other >= own);
    let used = if source.is_in_engine() {
        used_crates(&source.text)
    } else {
        used_modules(&source.text)
    };
    let faults = used.iter().filter(forbidden);
    faults
        .map(|used| {
            let path = source.path.display();
            format!("{path} uses {used}, which is not in a lower layer")
        })
        .collect()
}

/// Returns the crates of this workspace that `text` names, without their common prefix.
fn used_crates(text: &str) -> BTreeSet<String> {
    let crates = text.match_indices("hostel_");
    crates
        .map(|(at, prefix)| word(&text[at + prefix.len()..]))
        .collect()
}

/// Returns the names after `crate::`, including those in braces.
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

fn foreign_crates(source: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, owners) in OWNERS {
        let prefix = if name == "proto" { "crate::" } else { "" };
        let named = mentions(&source.text, &format!("{prefix}{name}::"))
            || (!prefix.is_empty() && used_modules(&source.text).contains(name));
        let owned = owners.iter().any(|owner| source.below.starts_with(owner));
        if named && !owned {
            let path = source.path.display();
            faults.push(format!("{path} uses {name}, which only {owners:?} may use"));
        }
    }
    faults
}

/// Returns `true` if `path` occurs as a whole word outside comments.
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

/// Untrusted text must be escaped before it reaches a terminal: by `cli/output.rs` for the commands, and
/// by `cli/log.rs` for the log.
fn writes_to_the_terminal(source: &Source) -> Option<String> {
    let sinks = ["cli/output", "cli/log"];
    if source.module != "cli" || sinks.iter().any(|sink| source.below == Path::new(sink)) {
        return None;
    }
    let calls = ["println!(", "print!(", "stdout()", "stderr()"];
    let call = calls.into_iter().find(|call| source.text.contains(call))?;
    Some(format!(
        "{} writes with {call}; use cli/output.rs",
        source.path.display()
    ))
}

fn unsupervised(source: &Source) -> Vec<String> {
    let below = source.below.to_string_lossy();
    if below == "runtime/health/background" || source.is_test() {
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
            format!("{path}:{line} spawns an unsupervised task; use Health (health/background.rs)")
        })
        .collect()
}

fn style_faults(source: &Source) -> Vec<String> {
    let path = source.path.display();
    let lines = source.text.lines().count();
    let mut faults = Vec::new();
    if !source.text.starts_with("//!") {
        faults.push(format!("{path} has no header that describes its content"));
    }
    if lines > MAX_LINES {
        faults.push(format!(
            "{path} has {lines} lines; at most {MAX_LINES} are allowed"
        ));
    }
    faults
}

/// Expressions that create a collection that may grow.
const GROWING: [&str; 6] = [
    "mpsc::channel(",
    "mpsc::unbounded_channel(",
    "mpsc::sync_channel(",
    "broadcast::channel(",
    "VecDeque<",
    "JoinSet::new(",
];

/// Reports files with a queue that have no row in the table of bounds, and rows without a file.
fn undocumented_queues(sources: &[Source]) -> Vec<String> {
    let page = source().join("ARCHITECTURE.md");
    let page = fs::read_to_string(page).expect("ARCHITECTURE.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let named: BTreeSet<&str> = rows
        .filter_map(|row| row.split(" | ").next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .filter(|name| name.ends_with(".rs"))
        .collect();
    let mut faults = Vec::new();
    for source in sources {
        let file = source.below.with_extension("rs");
        // Tests at the end of a file need no row.
        let code = source.text.split("#[cfg(test)]\nmod tests {").next();
        let grows = GROWING
            .iter()
            .find(|made| code.is_some_and(|code| code.contains(**made)));
        if let Some(made) = grows
            && !source.is_test()
            && !named.contains(&*file.to_string_lossy())
        {
            faults.push(format!(
                "host/{} has {made}) and no row with its bound in ARCHITECTURE.md",
                file.display()
            ));
        }
    }
    let gone = named.iter().filter(|file| {
        !sources
            .iter()
            .any(|source| source.below.with_extension("rs") == Path::new(file))
    });
    faults.extend(
        gone.map(|file| format!("ARCHITECTURE.md names host/{file}, which does not exist")),
    );
    faults
}
