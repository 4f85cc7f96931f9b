//! Import cycles between the files below `host/`: which file uses which, read from the paths in the
//! sources, and the groups of files that use each other.

use super::Source;
use std::collections::{BTreeMap, BTreeSet};

/// Folders in which a cycle is known. An entry without a cycle is an error, so the list only shrinks.
const KNOWN: &[&str] = &[];

/// The path of a module below `host/`, without the file that holds it.
type Module = Vec<String>;

/// Reports each cycle outside the known folders, and each known folder without a cycle.
pub fn cycles(sources: &[Source]) -> Vec<String> {
    let tree = Tree::new(sources);
    let mut known: BTreeSet<&str> = KNOWN.iter().copied().collect();
    let mut faults = Vec::new();
    for group in groups(&tree.uses()) {
        let folder = common_folder(&group);
        if !known.remove(&*folder) && !KNOWN.contains(&&*folder) {
            let files: Vec<String> = group.iter().map(|module| module.join("/")).collect();
            faults.push(format!(
                "host/{folder}: these files import each other; move what they share into a file of \
                 its own: {}",
                files.join(", ")
            ));
        }
    }
    let stale = known
        .iter()
        .map(|folder| format!("host/{folder} has no import cycle; remove it from the known ones"));
    faults.extend(stale);
    faults
}

/// The longest path that all modules of a group start with.
fn common_folder(group: &[Module]) -> String {
    let mut common = group[0].clone();
    for module in group {
        let shared = common.iter().zip(module).take_while(|(a, b)| a == b);
        common.truncate(shared.count());
    }
    common.join("/")
}

/// One path of a `use` declaration, with the name that it binds.
struct Import {
    path: Vec<String>,
    name: String,
    is_public: bool,
}

/// A file as a module: what it imports, and the paths in the rest of its code.
struct File {
    imports: Vec<Import>,
    children: BTreeSet<String>,
    code: String,
}

struct Tree {
    files: BTreeMap<Module, File>,
    /// The modules that are the roots of crates.
    roots: BTreeSet<Module>,
}

impl Tree {
    fn new(sources: &[Source]) -> Self {
        let mut files = BTreeMap::new();
        let mut roots = BTreeSet::from([Vec::new()]);
        for source in sources {
            let mut module: Module = source
                .below
                .iter()
                .map(|part| part.to_string_lossy().into_owned())
                .collect();
            if source.is_test() {
                continue;
            }
            let stem = module.last().cloned().unwrap_or_default();
            if stem == "mod" || stem == "lib" {
                module.pop();
            }
            if stem == "lib" {
                roots.insert(module.clone());
            }
            files.insert(module, File::new(&source.text));
        }
        Self { files, roots }
    }

    /// For each module, the modules that it uses.
    fn uses(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let mut uses = BTreeMap::new();
        for (module, file) in &self.files {
            let mut used = BTreeSet::new();
            for import in &file.imports {
                // A name that is only passed on is no use of it.
                if !import.is_public || has_word(&file.code, &import.name) {
                    used.extend(self.resolve(module, &import.path, 0));
                }
            }
            for path in file.paths() {
                used.extend(self.resolve(module, &path, 0));
            }
            // A module may use the modules below it, which in turn may use what it defines: it is where
            // parts are put together.
            used.retain(|other| !other.starts_with(module));
            uses.insert(module.clone(), used);
        }
        uses
    }

    /// The module that defines what `path` names in `module`; `None` if it is outside `host/`.
    fn resolve(&self, module: &Module, path: &[String], depth: usize) -> Option<Module> {
        let mut rest = path.iter().map(String::as_str).peekable();
        let mut at = module.clone();
        match *rest.peek()? {
            "crate" => {
                rest.next();
                at = self.root_of(module, rest.peek()?);
            }
            "self" => {
                rest.next();
            }
            "super" => {
                while rest.next_if_eq(&"super").is_some() {
                    at.pop()?;
                }
            }
            first if self.files.get(module)?.children.contains(first) => {}
            first => {
                // Another crate of this workspace, by its package name.
                at = vec![first.strip_prefix("hostel_")?.to_owned()];
                rest.next();
                self.files.get(&at)?;
            }
        }
        while let Some(name) = rest.next() {
            let mut child = at.clone();
            child.push(name.to_owned());
            if self.files.contains_key(&child) {
                at = child;
                continue;
            }
            // A name that `at` imports is defined elsewhere.
            let imports = &self.files.get(&at)?.imports;
            let import = imports.iter().find(|import| import.name == name);
            if let Some(import) = import.filter(|_| depth < 8) {
                let mut path = import.path.clone();
                path.extend(rest.map(str::to_owned));
                return self.resolve(&at, &path, depth + 1).or(Some(at));
            }
            break;
        }
        Some(at)
    }

    /// The module that `crate::first` starts from in `module`: the root of its crate, or, for a
    /// module that is a crate of its own, `host/`.
    fn root_of(&self, module: &Module, first: &str) -> Module {
        let roots = (0..=module.len()).rev().map(|length| &module[..length]);
        let root = roots.into_iter().find(|root| self.roots.contains(*root));
        let root = root.unwrap_or_default();
        let mut child = root.to_vec();
        child.push(first.to_owned());
        if self.files.contains_key(&child) || root.is_empty() {
            root.to_vec()
        } else if self.files.contains_key(&vec![first.to_owned()]) {
            Vec::new()
        } else {
            root.to_vec()
        }
    }
}

impl File {
    fn new(text: &str) -> Self {
        let text = without_comments(text.split("#[cfg(test)]").next().unwrap_or_default());
        let (mut imports, mut children) = (Vec::new(), BTreeSet::new());
        let mut code = String::new();
        let mut statement = String::new();
        for line in text.lines() {
            let trimmed = line.trim();
            let (is_public, declaration) = visibility(trimmed);
            if !statement.is_empty() || declaration.starts_with("use ") {
                if statement.is_empty() {
                    statement = format!("{} {declaration}", u8::from(is_public));
                } else {
                    statement.push_str(trimmed);
                }
                if statement.ends_with(';') {
                    let is_public = statement.starts_with('1');
                    let tree = statement[2..].trim_start_matches("use ");
                    expand(tree.trim_end_matches(';'), &[], is_public, &mut imports);
                    statement.clear();
                }
            } else if let Some(name) = declaration.strip_prefix("mod ") {
                children.insert(name.trim_end_matches([';', '{', ' ']).to_owned());
            } else {
                code.push_str(line);
                code.push('\n');
            }
        }
        Self {
            imports,
            children,
            code,
        }
    }

    /// The paths in the code that start with `crate`, `self`, `super` or a module of this file.
    fn paths(&self) -> Vec<Vec<String>> {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let starts = ["crate", "self", "super"].into_iter();
        let starts = starts.chain(self.children.iter().map(String::as_str));
        let mut paths = Vec::new();
        for start in starts {
            for (at, _) in self.code.match_indices(&format!("{start}::")) {
                let before = self.code[..at].chars().next_back();
                if before.is_some_and(|c| is_part(c) || c == ':' || c == '$') {
                    continue;
                }
                let rest = &self.code[at..];
                let end = rest.find(|c: char| !is_part(c) && c != ':');
                let path = &rest[..end.unwrap_or(rest.len())];
                let parts = path.split("::").filter(|part| !part.is_empty());
                paths.push(parts.map(str::to_owned).collect());
            }
        }
        paths
    }
}

fn without_comments(text: &str) -> String {
    let code = text.lines().filter(|line| !line.trim().starts_with("//"));
    code.collect::<Vec<_>>().join("\n")
}

/// Splits the visibility off a declaration.
fn visibility(declaration: &str) -> (bool, &str) {
    let Some(rest) = declaration.strip_prefix("pub") else {
        return (false, declaration);
    };
    let rest = match rest.strip_prefix('(') {
        Some(scope) => scope.split_once(')').map_or(rest, |(_, rest)| rest),
        None => rest,
    };
    (true, rest.trim_start())
}

/// Adds the paths of a tree such as `a::{b, c::{self, d as e}}`.
fn expand(tree: &str, prefix: &[String], is_public: bool, imports: &mut Vec<Import>) {
    let tree = tree.trim();
    if let Some((start, list)) = tree.split_once('{') {
        let mut prefix = prefix.to_vec();
        let parts = start.split("::").map(str::trim);
        prefix.extend(parts.filter(|part| !part.is_empty()).map(str::to_owned));
        let list = list.trim_end().strip_suffix('}').unwrap_or(list);
        for part in split_list(list) {
            expand(part, &prefix, is_public, imports);
        }
        return;
    }
    if tree.is_empty() {
        return;
    }
    let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
    let mut full = prefix.to_vec();
    full.extend(path.split("::").map(|part| part.trim().to_owned()));
    full.retain(|part| part != "*" && !part.is_empty());
    if full.len() > 1 && full.last().is_some_and(|part| part == "self") {
        full.pop();
    }
    let last = full.last().cloned().unwrap_or_default();
    imports.push(Import {
        name: if alias.is_empty() {
            last
        } else {
            alias.trim().to_owned()
        },
        path: full,
        is_public,
    });
}

/// Splits at the commas that are not within braces.
fn split_list(list: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    parts
}

fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// The groups of modules that can all reach each other; a module alone is no group.
fn groups(uses: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<Vec<Module>> {
    let reach: BTreeMap<&Module, BTreeSet<&Module>> = uses
        .keys()
        .map(|module| (module, reachable(uses, module)))
        .collect();
    let mut grouped = BTreeSet::new();
    let mut groups = Vec::new();
    for (module, reached) in &reach {
        if !grouped.contains(module) && reached.contains(module) {
            let group = reached
                .iter()
                .filter(|other| reach[**other].contains(module));
            let group: Vec<&Module> = group.copied().collect();
            grouped.extend(group.clone());
            groups.push(group.into_iter().cloned().collect());
        }
    }
    groups
}

fn reachable<'a>(
    uses: &'a BTreeMap<Module, BTreeSet<Module>>,
    from: &Module,
) -> BTreeSet<&'a Module> {
    let mut reached = BTreeSet::new();
    let mut pending: Vec<&Module> = uses[from].iter().collect();
    while let Some(module) = pending.pop() {
        if let Some((module, next)) = uses.get_key_value(module)
            && reached.insert(module)
        {
            pending.extend(next);
        }
    }
    reached
}
