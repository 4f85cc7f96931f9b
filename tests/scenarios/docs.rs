//! The documentation at work: a trial for each page runs the page's commands, in order, against a node
//! of its own, and compares its Rust with the file that it is taken from.
//!
//! What happens to a fenced block is said by the words behind its fence:
//!
//! | words | what happens |
//! |---|---|
//! | `sh` | runs with `sh -eu` in the page's directory, where `hostel` finds the page's node; has to end with 0 |
//! | `sh no-run (REASON)` | nothing |
//! | `rust FILE` | has to be an excerpt of that file of the repository |
//! | a language and `FILE` | is written to FILE in the page's directory, for the commands that follow |
//! | a language alone | nothing |

use crate::support::{
    DEADLINE,
    backend::Shared,
    node::{Node, hostel},
    plugins::{can_build, showcase, source},
    trial_needing,
};
use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    time::Instant,
};

/// Pages whose commands need two nodes that share a Redis and an etcd.
const CLUSTER: &[&str] = &["docs/cluster.md"];

/// Programs that are not on every machine; a page that runs one is ignored without it.
const PROGRAMS: &[&str] = &["openssl", "rustup", "sqlite3"];

/// Languages that a block may be in.
const LANGUAGES: &[&str] = &[
    "console", "ini", "json", "lua", "mermaid", "proto", "python", "rust", "sh", "text", "toml",
    "wit", "yaml",
];

/// Folders whose files are named in the pages by their path.
const FOLDERS: &[&str] = &[
    "benches/",
    "docs/",
    "examples/",
    "host/",
    "plugin-sdk/",
    "plugins/",
    "proto/",
    "tests/",
    "wit/",
];

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![Trial::test(
        "docs::each_path_and_link_leads_somewhere",
        || {
            let faults: Vec<_> = pages().iter().flat_map(dead_ends).collect();
            if faults.is_empty() {
                return Ok(());
            }
            Err(faults.join("\n").into())
        },
    )];
    trials.extend(pages().into_iter().map(|page| {
        let name = page.name.trim_end_matches(".md").replace('/', "::");
        let name = format!("docs::page::{}", name.trim_start_matches("docs::"));
        let possible = page.can_run();
        trial_needing(&name, possible, move || async move { page.hold().await })
    }));
    trials
}

/// A Markdown file of the repository.
struct Page {
    /// Its path in the repository.
    name: String,
    text: String,
    blocks: Vec<Block>,
}

/// A fenced block.
struct Block {
    /// The line of its fence, from 1.
    line: usize,
    language: String,
    use_: Use,
    text: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Use {
    Run,
    File(String),
    Nothing,
    /// What is wrong with the words behind the fence.
    Wrong(&'static str),
}

/// The pages at the root and in `docs/`, in the order of their names.
fn pages() -> Vec<Page> {
    let folders = [source().to_owned(), source().join("docs")];
    let entries = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).expect("a folder"));
    let files: BTreeSet<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    files.iter().map(|file| Page::read(file)).collect()
}

impl Page {
    fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).expect("a page");
        let name = file.strip_prefix(source()).expect("a file of ours");
        Self {
            name: name.to_string_lossy().into_owned(),
            blocks: blocks(&text),
            text,
        }
    }

    fn runs(&self) -> impl Iterator<Item = &Block> {
        self.blocks.iter().filter(|block| block.use_ == Use::Run)
    }

    fn can_run(&self) -> bool {
        let mut programs = PROGRAMS.iter().filter(|program| {
            let mut lines = self.runs().flat_map(|block| block.text.lines());
            lines.any(|line| line.starts_with(**program))
        });
        self.runs().next().is_none()
            || can_build()
                && (!self.needs_cluster() || Shared::is_installed())
                && programs.all(|program| is_on_path(program))
    }

    fn needs_cluster(&self) -> bool {
        CLUSTER.contains(&&*self.name)
    }

    /// Checks every block and, if the page has commands, runs them.
    async fn hold(&self) {
        let place = |block: &Block| format!("{}:{}", self.name, block.line);
        for block in &self.blocks {
            match &block.use_ {
                Use::Wrong(why) => panic!("{}: {why}", place(block)),
                Use::File(file) if block.is_excerpt() => {
                    let whole = fs::read_to_string(source().join(file));
                    let whole = whole.unwrap_or_else(|error| panic!("{}: {error}", place(block)));
                    let found = is_excerpt(&block.text, &whole);
                    assert!(found, "{} is not an excerpt of {file}", place(block));
                }
                _ => {}
            }
        }
        if self.runs().next().is_none() {
            return;
        }
        let nodes = self.nodes().await;
        let dir = nodes[0].path("");
        fs::write(
            dir.join(Path::new(&self.name).file_name().expect("a name")),
            &self.text,
        )
        .expect("the page");
        for block in &self.blocks {
            match &block.use_ {
                Use::Run => {
                    Shell::start(&nodes[0], &dir, block)
                        .ends_well(&place(block))
                        .await
                }
                Use::File(file) if !block.is_excerpt() => {
                    let file = dir.join(file);
                    fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
                    fs::write(file, &block.text).expect("a file of the page");
                }
                _ => {}
            }
        }
    }

    /// The node that the page's commands talk to, and those beside it.
    async fn nodes(&self) -> Vec<Node> {
        let plugins = ["echo", "rates", "text", "thumbnail"].map(showcase);
        let plugins = plugins.each_ref().map(PathBuf::as_path);
        if !self.needs_cluster() {
            let node = Node::prepare(&plugins, "").named("node-1");
            return vec![node.started().await];
        }
        let shared = Shared::start().await;
        let settings = shared.settings();
        let mut first = Node::prepare(&plugins, &settings)
            .named("node-1")
            .with_servers(shared);
        first.set("labels = [\"eu\", \"gpu\"]");
        let second = Node::prepare(&plugins, &settings).named("node-2");
        // The second goes first at the end, since the servers are the first's.
        vec![first.started().await, second.started().await]
    }
}

impl Block {
    /// Whether it shows a part of a file of the repository, rather than making a file.
    fn is_excerpt(&self) -> bool {
        let Use::File(file) = &self.use_ else {
            return false;
        };
        self.language == "rust" && FOLDERS.iter().any(|folder| file.starts_with(folder))
    }
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some(words) = line.strip_prefix("```") else {
            continue;
        };
        let inside = lines.by_ref().map(|(_, line)| line);
        let inside: Vec<_> = inside.take_while(|line| *line != "```").collect();
        let (language, rest) = words.split_once(' ').unwrap_or((words, ""));
        blocks.push(Block {
            line: at + 1,
            language: language.to_owned(),
            use_: use_of(language, rest),
            text: inside.join("\n") + "\n",
        });
    }
    blocks
}

fn use_of(language: &str, rest: &str) -> Use {
    let reason = rest
        .strip_prefix("no-run (")
        .and_then(|rest| rest.strip_suffix(')'));
    match (language, rest) {
        (language, _) if !LANGUAGES.contains(&language) => Use::Wrong("no language that is known"),
        ("sh", "") => Use::Run,
        ("sh", _) if reason.is_some_and(|reason| !reason.is_empty()) => Use::Nothing,
        ("sh", _) => Use::Wrong("either `sh`, or `sh no-run (REASON)`"),
        ("rust", "") => Use::Wrong("`rust FILE`, where FILE is compiled somewhere"),
        (_, "") => Use::Nothing,
        (_, file) => Use::File(file.to_owned()),
    }
}

/// Whether `part` stands in `whole`, line by line, indented as it may be and in a comment or not.
fn is_excerpt(part: &str, whole: &str) -> bool {
    let bare = |line: &str| {
        let line = line.trim();
        let comment = ["//! ", "/// ", "//!", "///"]
            .iter()
            .find_map(|it| line.strip_prefix(it));
        comment.unwrap_or(line).trim().to_owned()
    };
    let part: Vec<_> = part.trim_end().lines().map(bare).collect();
    let whole: Vec<_> = whole.lines().map(bare).collect();
    whole.windows(part.len()).any(|window| window == part)
}

/// A block's commands as a process group of their own, which ends with this value.
struct Shell {
    process: Child,
    output: PathBuf,
    commands: String,
}

impl Shell {
    fn start(node: &Node, dir: &Path, block: &Block) -> Self {
        let output = dir.join(format!("output-{}", block.line));
        let file = File::create(&output).expect("a file");
        let program = hostel();
        let binaries = Path::new(program.get_program())
            .parent()
            .expect("a folder")
            .to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = [binaries].into_iter().chain(std::env::split_paths(&path));
        let mut shell = Command::new("sh");
        // What the machine's user has set for nodes of their own is removed for `hostel` too.
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell
            .args(["-eu", "-c", &block.text])
            .current_dir(dir)
            .env("PATH", std::env::join_paths(path).expect("folders"))
            .env("HOSTEL_SERVER", node.address())
            .env("HOSTEL_CLONE", source())
            .env("CARGO_TARGET_DIR", source().join("target"))
            .stdin(std::process::Stdio::null())
            .stdout(file.try_clone().expect("a file"))
            .stderr(file)
            .process_group(0);
        Self {
            process: shell.spawn().expect("sh"),
            output,
            commands: block.text.clone(),
        }
    }

    /// Waits for its end. What it left in the background ends then.
    async fn ends_well(mut self, place: &str) {
        let since = Instant::now();
        let status: ExitStatus = loop {
            if let Some(status) = self.process.try_wait().expect("a status") {
                break status;
            }
            // A plugin may have to be compiled.
            assert!(
                since.elapsed() < DEADLINE * 5,
                "{place} does not end: {}",
                self.said()
            );
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        };
        assert!(
            status.success(),
            "{place} ends with {status}: {}",
            self.said()
        );
    }

    fn said(&self) -> String {
        let output = fs::read_to_string(&self.output).unwrap_or_default();
        format!("\n{}\nsays:\n{output}", self.commands)
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.process), Signal::KILL);
        let _ = self.process.wait();
    }
}

/// Links and paths of a page that lead to nothing in the repository.
fn dead_ends(page: &Page) -> Vec<String> {
    let beside = source().join(&page.name);
    let beside = beside.parent().expect("a folder");
    let links = page
        .text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let links = links
        .filter(|link| !link.contains("://") && !link.starts_with('#'))
        .map(|link| {
            (
                link,
                beside.join(link.split('#').next().unwrap_or_default()),
            )
        });
    let paths = prose(&page.text);
    let paths = paths
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|path| FOLDERS.iter().any(|folder| path.starts_with(folder)))
        .filter(|path| !path.contains([' ', '*', '{', '\n']) && !path.contains("NAME"))
        .map(|path| (path, source().join(path)));
    links
        .chain(paths)
        .filter(|(_, file)| !file.exists())
        .map(|(path, _)| format!("{} names {path}, which is not there", page.name))
        .collect()
}

/// The page without its fenced blocks.
fn prose(page: &str) -> String {
    let mut fenced = false;
    let mut prose = String::new();
    for line in page.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose
}
