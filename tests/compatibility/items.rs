//! The public items of a Rust source that rustfmt has formatted, as text: signatures without bodies,
//! fields and variants with what contains them. No compiler takes part, so it runs in no time and with
//! any toolchain; what a macro makes is not seen.

/// A public item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    /// What a changelog calls it: `Type::name` or `name`.
    pub name: String,
    /// On one line, with the module and whatever contains it.
    pub signature: String,
}

/// Something that contains items: a module's file, an `impl`, a `trait`, a type.
struct Scope {
    header: String,
    /// Everything in it is as public as itself: a trait or an enum.
    open: bool,
    /// Nothing in it is an item: a function's body, a test, something private.
    closed: bool,
}

/// The public items of the file of that name.
pub fn public(file: &str, text: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let mut scopes = vec![Scope {
        header: String::new(),
        open: false,
        closed: false,
    }];
    let mut pending = String::new();
    let mut depth = 0_u32;
    for character in bare(text).chars() {
        match character {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        let enclosing = scopes.last().expect("the file's own scope");
        // Braces of types and patterns within parentheses do not occur in signatures.
        match character {
            '{' if depth == 0 && !pending.trim_start().starts_with("pub use") => {
                let header = line(&pending);
                items.extend(item(file, enclosing, &header));
                scopes.push(scope(enclosing, header));
                pending.clear();
            }
            '}' if depth == 0 && !pending.trim_start().starts_with("pub use") => {
                items.extend(item(file, enclosing, &line(&pending)));
                scopes.pop();
                pending.clear();
                if scopes.is_empty() {
                    break;
                }
            }
            ';' if depth == 0 => {
                items.extend(item(file, enclosing, &line(&pending)));
                pending.clear();
            }
            ',' if depth == 0 && enclosing.header.contains_type() && !is_generic(&pending) => {
                items.extend(item(file, enclosing, &line(&pending)));
                pending.clear();
            }
            _ => pending.push(character),
        }
    }
    items
}

trait Header {
    fn contains_type(&self) -> bool;
}

impl Header for String {
    /// Whether its parts end with commas: fields and variants.
    fn contains_type(&self) -> bool {
        self.starts_with("pub struct ") || self.starts_with("pub enum ")
    }
}

/// Whether a comma here stands between the parameters of a type.
fn is_generic(pending: &str) -> bool {
    let count = |character| pending.matches(character).count();
    count('<') > count('>')
}

fn scope(enclosing: &Scope, header: String) -> Scope {
    let open = header.starts_with("pub trait ") || header.starts_with("pub enum ");
    let holds = open
        || header.starts_with("pub struct ")
        || header.starts_with("pub mod ")
        || header.starts_with("impl");
    Scope {
        open,
        closed: enclosing.closed || !holds,
        header,
    }
}

fn item(file: &str, enclosing: &Scope, header: &str) -> Option<Item> {
    let is_public = header.starts_with("pub ") || header.starts_with("macro_rules!");
    if enclosing.closed || header.is_empty() || !(is_public || enclosing.open) {
        return None;
    }
    let within = name_of(&enclosing.header);
    let own = name_of(header);
    let name = if within.is_empty() {
        own
    } else {
        format!("{within}::{own}")
    };
    // A file may move within its crate as long as the crate re-exports the item.
    let krate = file.split('/').take(2).collect::<Vec<_>>().join("/");
    Some(Item {
        signature: format!("{krate}: {} {header}", enclosing.header).replace("  ", " "),
        name,
    })
}

/// The identifier that a header declares.
fn name_of(header: &str) -> String {
    let header = match header.strip_prefix("impl") {
        // `impl<T> Trait for Type` and `impl<T> Type`.
        Some(rest) => rest
            .rsplit(" for ")
            .next()
            .unwrap_or(rest)
            .trim_start_matches(generics(rest)),
        None => header,
    };
    const WORDS: [&str; 13] = [
        "pub",
        "async",
        "const",
        "unsafe",
        "fn",
        "struct",
        "enum",
        "trait",
        "mod",
        "type",
        "use",
        "static",
        "macro_rules!",
    ];
    let word = header.split_whitespace().find(|word| !WORDS.contains(word));
    let word = word.unwrap_or_default();
    let end = word.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
    word[..end.unwrap_or(word.len())]
        .trim_end_matches(':')
        .to_owned()
}

/// The parameters that an `impl` declares.
fn generics(rest: &str) -> &str {
    if !rest.starts_with('<') {
        return "";
    }
    let mut depth = 0;
    for (at, character) in rest.char_indices() {
        match character {
            '<' => depth += 1,
            '>' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &rest[..=at];
        }
    }
    ""
}

/// On one line, without attributes.
fn line(text: &str) -> String {
    let mut text = text.trim();
    while text.starts_with("#[") || text.starts_with("#![") {
        let Some(end) = attribute_end(text) else {
            break;
        };
        text = text[end..].trim_start();
    }
    let words: Vec<_> = text.split_whitespace().collect();
    words
        .join(" ")
        .replace("( ", "(")
        .replace(", )", ")")
        .replace(",)", ")")
}

fn attribute_end(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, character) in text.char_indices() {
        match character {
            '[' => depth += 1,
            ']' if depth == 1 => return Some(at + 1),
            ']' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Without comments, and with literals emptied, so that every brace is one.
fn bare(text: &str) -> String {
    let mut bare = String::new();
    for line in text.lines() {
        let line = line.trim_start();
        if line.starts_with("//") {
            continue;
        }
        let mut characters = line.chars().peekable();
        let mut quoted = false;
        while let Some(character) = characters.next() {
            match character {
                '\\' if quoted => {
                    characters.next();
                }
                '"' => {
                    quoted = !quoted;
                    bare.push('"');
                }
                _ if quoted => {}
                '/' if characters.peek() == Some(&'/') => break,
                // A character, not a lifetime.
                '\'' if characters.clone().nth(1) == Some('\'') => {
                    characters.next();
                    characters.next();
                }
                _ => bare.push(character),
            }
        }
        bare.push('\n');
    }
    bare
}
