//! A printed configuration loads to the same one, hides secrets, and documents every setting.

use super::{
    super::schema::{Discovery, Etcd},
    *,
};
use std::{fs, path::Path};

fn parse(text: &str) -> Config {
    match Config::parse(text, std::iter::empty()) {
        Ok(config) => config,
        Err(errors) => panic!("{errors}\n{text}"),
    }
}

/// The kinds of a section's backend, the default first. Empty for a section without kinds.
fn kinds(items: &[Item]) -> Vec<&str> {
    let kind = lines(items).find(|line| line.key == "kind");
    let mut kinds: Vec<&str> = kind
        .and_then(|line| line.reference.value().as_str())
        .into_iter()
        .collect();
    for kind in lines(items).filter_map(|line| line.kind) {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

/// The most kinds that a section has.
fn most_kinds(items: &[Item]) -> usize {
    let within = items.iter().map(|item| match item {
        Item::Section(section) => most_kinds(&section.items),
        Item::Line(_) | Item::Tables(_) => 0,
    });
    within.max().unwrap_or(0).max(kinds(items).len())
}

/// The first kind of each section that is not the default: the shared backends.
const SHARED: usize = 1;

/// Settings of a schedule that exclude each other: those that the first configuration lacks, and the others.
const SCHEDULE_WITHOUT: [&[&str]; 2] = [&["every_ms", "label"], &["cron", "time_zone", "node"]];

/// Returns a configuration with the `nth` kind of each section, or its last one, that gives every setting
/// except for those of other kinds, as changed by `change`.
fn complete(nth: usize, change: fn(&str, &Value) -> Value) -> String {
    let mut table = Table::new();
    give(&mut table, &Config::describe(None), nth, change);
    table.to_string()
}

fn give(table: &mut Table, items: &[Item], nth: usize, change: fn(&str, &Value) -> Value) {
    let kinds = kinds(items);
    let kind = kinds.get(nth).or(kinds.last()).copied();
    for item in items {
        match item {
            Item::Line(line) if line.kind.is_some() && line.kind != kind => {}
            Item::Line(line) => {
                let value = match kind {
                    Some(kind) if line.key == "kind" => kind.into(),
                    _ => change(&line.key, line.reference.value()),
                };
                table.insert(line.key.clone(), value);
            }
            Item::Section(section) => {
                let mut inner = Table::new();
                give(&mut inner, &section.items, nth, change);
                table.insert(section.key.into(), Value::Table(inner));
            }
            Item::Tables(tables) => {
                let (name, items) = &tables.example;
                let mut inner = Table::new();
                give(&mut inner, items, nth, change);
                if tables.key == "schedule" {
                    for key in SCHEDULE_WITHOUT[nth.min(1)] {
                        inner.remove(*key);
                    }
                }
                let inner = within(inner, name);
                table.insert(tables.key.into(), Value::Table(inner));
            }
        }
    }
}

fn unchanged(_: &str, value: &Value) -> Value {
    value.clone()
}

/// A value that differs from the default.
fn changed(key: &str, value: &Value) -> Value {
    match value {
        // Components may not have all of the memory.
        Value::Integer(0) if key == "max_total_memory_bytes" => (1_i64 << 30).into(),
        Value::Integer(number) => (number + 1).into(),
        Value::Boolean(flag) => (!flag).into(),
        Value::String(_) if key == "listen" => "[::1]:7".into(),
        Value::String(_) if key == "cron" => "@daily".into(),
        Value::String(_) if key == "time_zone" => "Asia/Tokyo".into(),
        Value::String(_) if key == "priority" => "high".into(),
        Value::String(_) if key == "overlap" => "queue".into(),
        Value::String(_) if key == "missed" => "all".into(),
        Value::String(_) if key == "max_rate" => "7/m burst 3".into(),
        Value::String(text) if key == "sha256" => text.replace('5', "6").into(),
        Value::String(text) if text.contains("://") => text.replace("127.0.0.1", "10.0.0.1").into(),
        Value::String(text) => format!("other-{text}").into(),
        Value::Array(items) => Value::Array(items.iter().map(|item| changed(key, item)).collect()),
        other => other.clone(),
    }
}

fn all_configurations() -> Vec<String> {
    let all = 0..most_kinds(&Config::describe(None));
    all.flat_map(|nth| [complete(nth, unchanged), complete(nth, changed)])
        .collect()
}

#[test]
fn the_reference_is_generated_from_the_declarations() {
    let dirs = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut files = dirs.map(|dir| dir.join("host/config/default.toml"));
    let file = files.find(|file| file.exists()).unwrap();
    if std::env::var_os("HOSTEL_UPDATE").is_some() {
        fs::write(&file, reference()).unwrap();
    }
    let written = fs::read_to_string(file).unwrap();
    assert!(
        written == reference(),
        "default.toml differs from the declarations in host/config/schema; write it again with \
         HOSTEL_UPDATE=1 cargo test --release -p hostel-config the_reference_is_generated"
    );
    // The file gives the defaults.
    assert_eq!(parse(&written), Config::default());
}

#[test]
fn every_setting_is_documented() {
    fn check(path: &str, items: &[Item]) {
        for item in items {
            match item {
                Item::Line(line) => assert!(!line.doc.is_empty(), "{path}.{}", line.key),
                Item::Section(section) => {
                    let path = format!("{path}.{}", section.key);
                    assert!(!section.doc.is_empty(), "{path}");
                    check(&path, &section.items);
                }
                Item::Tables(tables) => assert!(!tables.doc.is_empty(), "{path}.{}", tables.key),
            }
        }
    }
    check("", &Config::describe(None));
}

#[test]
fn every_kind_is_in_a_configuration() {
    let texts = all_configurations().join("\n");
    for item in Config::describe(None) {
        let Item::Section(section) = item else {
            continue;
        };
        for kind in kinds(&section.items) {
            assert!(texts.contains(&format!("kind = \"{kind}\"")), "{kind}");
        }
    }
}

#[test]
fn a_printed_configuration_loads_to_the_same() {
    let odd = "[plugin.\"a.b:c\".config]\nkey = \"quo\\\"te\\n\"\n\"k k\" = \"\"\n[plugin.z]";
    let texts = all_configurations();
    for text in texts.iter().map(String::as_str).chain(["", odd]) {
        let mut config = parse(text);
        // A password is not printed, and a user without a password is an error.
        if let Discovery::Etcd(etcd) = &mut config.discovery {
            (etcd.user, etcd.password) = (None, None);
        }
        let shown = show(&config, Secrets::Shown);
        assert_eq!(parse(&shown), config, "{shown}");
        assert_eq!(show(&parse(&shown), Secrets::Shown), shown);
    }
}

#[test]
fn examples_and_defaults_of_other_kinds_are_valid() {
    let given = parse(&complete(SHARED, unchanged));
    let least = parse(
        "[queue]\nkind = \"redis\"\n[discovery]\nkind = \"etcd\"\n[broker]\nkind = \"redis\"",
    );
    assert_eq!(given.limits, least.limits);
    let (Discovery::Etcd(given), Discovery::Etcd(least)) = (given.discovery, least.discovery)
    else {
        panic!("another kind");
    };
    assert_eq!(least, Etcd::at(&[Etcd::ENDPOINT], Etcd::PREFIX));
    assert_eq!(given.ttl, least.ttl);
    let changed = parse(&complete(SHARED, changed));
    assert_ne!(changed.limits, Config::default().limits);
    assert_ne!(changed.plugins.sandbox, Config::default().plugins.sandbox);
}

#[test]
fn passwords_are_not_printed() {
    let config = parse(
        "[discovery]\nkind = \"etcd\"\nuser = \"me\"\npassword = \"hush\"\n\
         [broker]\nkind = \"redis\"\nurl = \"rediss://me:hush@host/1\"",
    );
    let shown = show(&config, Secrets::Shown);
    assert!(!shown.contains("hush") && !format!("{config:?}").contains("hush"));
    assert!(
        shown.contains("\nurl = \"rediss://me:***@host/1\""),
        "{shown}"
    );
    assert!(shown.contains("\nuser = \"me\"\n"), "{shown}");
    let variable = "As a variable: HOSTEL__DISCOVERY__PASSWORD.";
    assert!(shown.contains(variable), "{shown}");
}

#[test]
fn values_for_a_plugin_are_masked_unless_requested() {
    let text = "[plugin.rates.config]\napi_key = \"hush\"\nbase = \"EUR\"\n";
    let shown = show(&parse(text), Secrets::Masked);
    assert!(!shown.contains("hush") && !shown.contains("EUR"), "{shown}");
    assert!(shown.contains("api_key = \"***\""), "{shown}");
    let shown = show(&parse(text), Secrets::Shown);
    assert!(shown.contains("api_key = \"hush\""), "{shown}");
}

#[test]
fn comments_are_printed_and_absent_settings_stay_absent() {
    let shown = show(&parse("[node]\nlisten = \"127.0.0.1:9\""), Secrets::Masked);
    let comments = |text: &str| text.matches("\n# ").count();
    assert_eq!(comments(&shown), comments(&reference()));
    assert!(shown.contains("listen = \"127.0.0.1:9\""));
    assert!(shown.contains("\n#id = "), "{shown}");
    assert!(shown.contains("\ndata_dir = \"/"), "{shown}");
}
