//! What users can write, and what they are told when it is wrong.

use super::*;
use std::{path::Path, time::Duration};

fn parse(text: &str) -> Result<Config, Faults> {
    Config::parse(text, std::iter::empty())
}

fn parse_with(text: &str, variables: &[(&str, &str)]) -> Result<Config, Faults> {
    let variables = variables.iter().map(|&(k, v)| (k.into(), v.into()));
    Config::parse(text, variables)
}

/// The only fault of `text`, as the user reads it.
fn fault(text: &str) -> String {
    only(parse(text).unwrap_err())
}

fn only(faults: Faults) -> String {
    assert_eq!(faults.list.len(), 1, "{faults}");
    let fault = &faults.list[0];
    format!("{}: {}", fault.setting, fault.problem)
}

#[test]
fn defaults_are_what_the_design_says() {
    let config = Config::default();
    assert_eq!(config, parse("").unwrap());
    assert_eq!(config.node.listen.to_string(), "127.0.0.1:50051");
    assert_eq!(
        config.limits.submission.payload_bytes,
        (4 << 20) - (64 << 10)
    );
    assert_eq!(config.limits.max_message_bytes, 4 << 20);
    assert_eq!(config.plugins.sandbox.max_memory_bytes, 64 << 20);
    assert_eq!(config.keep_ended, Duration::from_secs(24 * 3600));
    let Queue::Sqlite(sqlite) = &config.queue else {
        panic!("another kind");
    };
    assert_eq!(sqlite.path, config.node.data_dir.join("queue.db"));
    assert!(config.node.data_dir.is_absolute());
    assert_eq!(
        config.plugins.dir,
        std::env::current_dir().unwrap().join("plugins")
    );
}

#[test]
fn five_faults_are_reported_at_once_with_their_lines() {
    let text = r#"[node]
lsiten = "127.0.0.1:0"
drain_ms = "30s"

[limits]
max_wait_ms = 99999999

[queue]
kind = "sqlight"

[plugin."a b".limits]
max_cpu_ms = 10
"#;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hostel.toml");
    std::fs::write(&file, text).unwrap();
    let faults = Config::load(Some(&file), std::iter::empty()).unwrap_err();
    let shown = faults
        .to_string()
        .replace(&file.display().to_string(), "hostel.toml");
    assert_eq!(
        shown,
        r#"5 faults in hostel.toml:
  hostel.toml:2:1: node.lsiten: no such setting; did you mean listen?
  hostel.toml:3:12: node.drain_ms: a whole number of milliseconds from 0 to 86400000 expected, the text "30s" found
  hostel.toml:6:15: limits.max_wait_ms: 99999999 is out of range; a whole number of milliseconds from 0 to 3600000 is allowed
  hostel.toml:9:8: queue.kind: "sqlight" is no kind known here; allowed: "sqlite", "redis"
  hostel.toml:11:9: plugin.a b: plugin name "a b" has ' '; only letters, digits and . _ : - are allowed"#
    );
}

#[test]
fn a_bad_name_does_not_hide_what_is_under_it() {
    let text = "[plugin.\"a b\".limits]\nmax_cpu_ms = 1\n[plugin.\"a b\".task.\"\"]\nx = 1";
    assert_eq!(parse(text).unwrap_err().list.len(), 4);
}

#[test]
fn unknown_names_are_refused_with_a_hint() {
    for (text, expected) in [
        ("[nodes]", "nodes: no such setting; did you mean node?"),
        ("[limits]\nmax_wait = 1", "did you mean max_wait_ms?"),
        (
            "[queue]\nkind = \"sqlite\"\nurl = \"x\"",
            "known here: kind, keep_ended_ms, lease_ttl_ms, max_unwritten_bytes, path, max_open_tasks",
        ),
        (
            "[discovery]\npath = \"x\"",
            "discovery.path: no such setting",
        ),
        ("[plugin.a]\nconfg = 1", "did you mean config?"),
        (
            "[plugin.a.limits]\nmemory_bytes = 1",
            "did you mean max_memory_bytes?",
        ),
        (
            "[plugin.a.task.t]\nattempts = 1",
            "did you mean max_attempts?",
        ),
        (
            "[plugins.sandbox]\nmax_mem = 1",
            "plugins.sandbox.max_mem: no such setting",
        ),
    ] {
        let fault = fault(text);
        assert!(fault.contains(expected), "{text}: {fault}");
    }
}

#[test]
fn wrong_values_are_refused_with_what_is_allowed() {
    for (text, expected) in [
        ("node = 5", "node: a section expected, the number 5 found"),
        ("[node]\nlisten = 5", "text expected, the number 5 found"),
        (
            "[node]\nlisten = \"localhost:1\"",
            "such as 127.0.0.1:50051",
        ),
        (
            "[node]\ninsecure = \"yes\"",
            "true or false expected, the text \"yes\" found",
        ),
        (
            "[node]\nadvertise = \"0.0.0.0:1\"",
            "node.advertise: \"0.0.0.0:1\" leads nobody anywhere",
        ),
        ("[node]\nid = \"a/b\"", "only letters, digits"),
        ("[node]\nlabels = [\"a/b\"]", "label \"a/b\" has '/'"),
        ("[node]\ndata_dir = \"\"", "a path expected"),
        ("[node]\ndata_dir = \"~/x\"", "`~` is not expanded"),
        ("[node]\ndrain_ms = -1", "-1 is out of range"),
        ("[node]\ndrain_ms = 1.5", "found the number 1.5"),
        ("[node]\ndrain_ms = [1]", "a list found"),
        (
            "[limits]\nmax_connections = 0",
            "from 1 to 1000000 is allowed",
        ),
        (
            "[limits]\nmax_connections = 99999999999999999999",
            "is out of range",
        ),
        ("[queue]\nkind = 1", "queue.kind: text expected"),
        ("[plugin]\na = 1", "plugin.a: a section expected"),
        (
            "[plugin.a.config]\nk = { x = 1 }",
            "plugin.a.config.k: text, a number",
        ),
        ("[plugin.a.task.\"t t\"]", "task type \"t t\" has ' '"),
    ] {
        let fault = fault(text).replace("expected, the number 1.5 found", "found the number 1.5");
        assert!(fault.contains(expected), "{text}: {fault}");
    }
}

#[test]
fn rules_between_settings_hold() {
    for (text, expected) in [
        (
            "[node]\nlisten = \"0.0.0.0:1\"",
            "node.listen: 0.0.0.0:1 is open to other machines",
        ),
        (
            "[limits]\nmax_payload_bytes = 4194304",
            "limits.max_payload_bytes: limits.max_payload",
        ),
        (
            "[plugins.sandbox]\nmax_result_bytes = 4194304",
            "which is 4128768, is allowed",
        ),
        (
            "[plugin.a.limits]\nmax_result_bytes = 4194304",
            "plugin.a.limits.max_result_bytes: ",
        ),
        (
            "[plugin.a.task.t]\nbackoff_initial_ms = 2\nbackoff_max_ms = 1",
            "plugin.a.task.t.backoff_initial_ms: 2 is more than backoff_max_ms, which is 1",
        ),
        (
            "[keyvalue]\nmax_value_bytes = 4194305",
            "keyvalue.max_value_bytes: a value of 4194305 bytes could never be read",
        ),
        (
            "[queue]\npath = \"/x/a.db\"\n[keyvalue]\npath = \"/x/a.db\"",
            "keyvalue.path: is the queue's file",
        ),
    ] {
        let fault = fault(text);
        assert!(fault.contains(expected), "{text}: {fault}");
    }
    for sound in [
        "[node]\nlisten = \"0.0.0.0:1\"\ninsecure = true",
        "[node]\nlisten = \"[::1]:1\"",
        "[limits]\nmax_payload_bytes = 8323072\nmax_message_bytes = 8388608",
    ] {
        parse(sound).unwrap();
    }
    // A lowered cap is blamed where it stands, once for each that no longer fits.
    let faults = parse("[limits]\nmax_message_bytes = 1048576").unwrap_err();
    assert_eq!(faults.list.len(), 2);
    assert!(faults.list.iter().all(|f| f.origin
        == Origin::Line {
            line: 2,
            column: 21
        }));
    // A value that is at fault by itself is not measured against others as well.
    assert!(fault("[limits]\nmax_message_bytes = 1").contains("is out of range"));
}

#[test]
fn what_is_no_toml_is_placed() {
    let faults = parse("[node]\nlisten = \n\n[limits\n").unwrap_err();
    let lines: Vec<_> = faults.list.iter().map(|fault| &fault.origin).collect();
    assert!(matches!(lines[0], Origin::Line { line: 2, .. }), "{faults}");
    assert!(faults.to_string().contains("not TOML"), "{faults}");
    let twice = fault("[node]\ndrain_ms = 1\ndrain_ms = 2");
    assert!(twice.contains("duplicate key"), "{twice}");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gone.toml");
    let missing = Config::load(Some(&file), std::iter::empty()).unwrap_err();
    assert!(
        missing.to_string().contains("gone.toml: cannot be read"),
        "{missing}"
    );
    std::fs::write(&file, b"[node]\nid = \"\xff\"").unwrap();
    let binary = Config::load(Some(&file), std::iter::empty()).unwrap_err();
    assert!(only(binary).contains("line 2 is not UTF-8"));
}

#[test]
fn variables_win_over_the_file() {
    let text = "[node]\nlisten = \"127.0.0.1:1\"\n[plugin.word-count.config]\nTop = 3";
    let config = parse_with(
        text,
        &[
            ("HOSTEL__NODE__LISTEN", "127.0.0.1:2"),
            ("HOSTEL__NODE__ID", "007"),
            ("HOSTEL__node__Drain_Ms", " 5 "),
            ("HOSTEL__PLUGINS__SANDBOX__MAX_CPU_MS", "20"),
            ("HOSTEL__PLUGIN__WORD_COUNT__CONFIG__TOP", "1.50"),
            ("HOSTEL__PLUGIN__TEXT__CONFIG__KEY", "{ not = 'toml' }"),
            ("HOSTEL__PLUGIN__TEXT__TASK__COUNT_ALL__MAX_ATTEMPTS", "2"),
            ("HOSTEL_SERVER", "http://localhost:1"),
            ("HOSTEL_NODE__LISTEN", "not a setting"),
        ],
    )
    .unwrap();
    assert_eq!(config.node.listen.port(), 2);
    assert_eq!(config.node.id.unwrap().as_str(), "007");
    assert_eq!(config.node.drain, Duration::from_millis(5));
    assert_eq!(config.plugins.sandbox.max_cpu, Duration::from_millis(20));
    assert_eq!(config.plugin["word-count"].config["Top"], "1.50");
    assert_eq!(config.plugin["text"].config["key"], "{ not = 'toml' }");
    assert_eq!(
        config.plugin["text"].task["count-all"].max_attempts,
        Some(2)
    );
}

#[test]
fn a_kind_and_its_settings_come_from_variables() {
    let variables = [
        ("HOSTEL__DISCOVERY__ENDPOINTS", "[\"http://etcd:2379\"]"),
        ("HOSTEL__DISCOVERY__KIND", "etcd"),
        ("HOSTEL__DISCOVERY__PREFIX", "/mine"),
        ("HOSTEL__QUEUE__CLUSTER", "true"),
        ("HOSTEL__QUEUE__KIND", "redis"),
        ("HOSTEL__QUEUE__URL", "redis://redis:6379"),
    ];
    let config = parse_with("[queue]\npath = \"x.db\"", &variables).unwrap();
    let Discovery::Etcd(etcd) = config.discovery else {
        panic!("another kind");
    };
    assert_eq!(etcd.endpoints, ["http://etcd:2379"]);
    assert_eq!(etcd.prefix, "/mine");
    let Queue::Redis(queue) = config.queue else {
        panic!("another kind");
    };
    assert!(queue.server.cluster);
    assert_eq!(queue.server.url.reveal(), "redis://redis:6379");
}

#[test]
fn faults_of_variables_name_them() {
    let variables = [
        ("HOSTEL__NODE__LISTEN", "nowhere"),
        ("HOSTEL__NODE__LISTEN__PORT", "1"),
        ("HOSTEL__NODE", "5"),
        ("HOSTEL__LIMITS__MAX_WAIT", "5"),
        ("HOSTEL__LIMITS__MAX_WAIT_MS", "soon"),
        ("HOSTEL__PLUGIN__A__LIMITS__MAX_CPU_MS", "1"),
        ("HOSTEL__BROKER____KIND", "local"),
    ];
    for (name, value) in variables {
        let faults = parse_with("", &[(name, value)]).unwrap_err();
        assert_eq!(faults.list.len(), 1, "{faults}");
        let shown = faults.to_string();
        assert!(
            shown.starts_with(&format!("1 fault in the environment:\n  {name}: ")),
            "{shown}"
        );
    }
    let twice = [("HOSTEL__NODE__ID", "a"), ("HOSTEL__node__id", "b")];
    let twice = only(parse_with("", &twice).unwrap_err());
    assert_eq!(twice, "node.id: HOSTEL__NODE__ID gives the same setting");
    let section = [("HOSTEL__NODE", "3"), ("HOSTEL__NODE__ID", "a")];
    let section = only(parse_with("", &section).unwrap_err());
    assert_eq!(
        section,
        "node: is a section, of which HOSTEL__NODE__ID gives a setting"
    );
    let both = parse_with("x = 1", &[("HOSTEL__NODE__ID", "")]).unwrap_err();
    assert!(
        both.to_string()
            .starts_with("2 faults in the configuration and the environment:")
    );
}

#[test]
fn paths_start_where_they_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hostel.toml");
    std::fs::write(
        &file,
        "[node]\ndata_dir = \"./data\"\n[queue]\npath = \"/q/x.db\"",
    )
    .unwrap();
    let variables = [("HOSTEL__PLUGINS__DIR".to_owned(), "guests".to_owned())];
    let config = Config::load(Some(&file), variables.into_iter()).unwrap();
    assert_eq!(config.node.data_dir, dir.path().join("data"));
    assert_eq!(
        config.plugins.dir,
        std::env::current_dir().unwrap().join("guests")
    );
    let Queue::Sqlite(sqlite) = config.queue else {
        panic!("another kind");
    };
    assert_eq!(sqlite.path, Path::new("/q/x.db"));
}

#[test]
fn what_a_plugin_is_given() {
    let config = parse(
        "[plugin.a.config]\nn = 1_000\nhex = 0x10\nf = 1.50\nb = true\nt = \"x\"\n\
         [plugin.\"a.b\".limits]\nmax_log_bytes = 7\n[plugin.c]",
    )
    .unwrap();
    let given: Vec<_> = config.plugin["a"]
        .config
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(given, ["b=true", "f=1.50", "hex=16", "n=1000", "t=x"]);
    assert_eq!(config.plugin["a.b"].limits.max_log_bytes, Some(7));
    assert_eq!(config.plugin["c"], Plugin::default());
}
