//! What a file and variables may contain, and the errors for what they may not.

use super::*;
use std::{path::Path, time::Duration};

mod limits;
mod values;

fn parse(text: &str) -> Result<Config, Diagnostics> {
    Config::parse(text, std::iter::empty())
}

fn parse_with(text: &str, variables: &[(&str, &str)]) -> Result<Config, Diagnostics> {
    let variables = variables.iter().map(|&(k, v)| (k.into(), v.into()));
    Config::parse(text, variables)
}

/// Returns the only error of `text`.
fn error(text: &str) -> String {
    only(parse(text).unwrap_err())
}

fn only(errors: Diagnostics) -> String {
    assert_eq!(errors.list.len(), 1, "{errors}");
    let error = &errors.list[0];
    format!("{}: {}", error.setting, error.problem)
}

#[test]
fn defaults_are_what_the_design_says() {
    let config = Config::default();
    assert_eq!(config, parse("").unwrap());
    assert_eq!(config.node.listen.to_string(), "127.0.0.1:50051");
    assert_eq!(
        config.limits.submission().payload_bytes,
        (4 << 20) - (64 << 10)
    );
    assert_eq!(config.limits.max_message_bytes, 4 << 20);
    assert_eq!(config.plugins.sandbox.max_memory_bytes, 64 << 20);
    assert_eq!(config.queue.keep_completed, Duration::from_secs(24 * 3600));
    let QueueBackend::Sqlite(sqlite) = &config.queue.backend else {
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
fn all_errors_are_reported_at_once_with_their_lines() {
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
    let errors = Config::load(Some(&file), std::iter::empty()).unwrap_err();
    let shown = errors
        .to_string()
        .replace(&file.display().to_string(), "hostel.toml");
    assert_eq!(
        shown,
        r#"5 errors in hostel.toml:
  hostel.toml:2:1: node.lsiten: no such setting; did you mean listen?
  hostel.toml:3:12: node.drain_ms: expected a whole number of milliseconds from 0 to 86400000, found the text "30s"
  hostel.toml:6:15: limits.max_wait_ms: 99999999 is out of range; expected a whole number of milliseconds from 0 to 3600000
  hostel.toml:9:8: queue.kind: "sqlight" is no known kind; expected "sqlite" or "redis"
  hostel.toml:11:9: plugin.a b: plugin name "a b" has ' '; only letters, digits and . _ : - are allowed"#
    );
}

#[test]
fn an_invalid_name_does_not_hide_errors_below_it() {
    let text = "[plugin.\"a b\".limits]\nmax_cpu_ms = 1\n[plugin.\"a b\".task.\"\"]\nx = 1";
    assert_eq!(parse(text).unwrap_err().list.len(), 4);
}

#[test]
fn unknown_names_are_refused_with_a_hint() {
    for (text, expected) in [
        ("[nodes]", "nodes: no such section; did you mean node?"),
        ("[limits]\nmax_wait = 1", "did you mean max_wait_ms?"),
        (
            "[queue]\nkind = \"sqlite\"\nurl = \"x\"",
            "known here: kind, path, max_open_tasks, max_batch, reserve_bytes, keep_completed_ms",
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
        let error = error(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn wrong_values_are_refused_with_what_is_allowed() {
    for (text, expected) in [
        ("node = 5", "node: expected a section, found the number 5"),
        (
            "[node]\nlisten = 5",
            "expected text, found a number; text needs quotes",
        ),
        (
            "[node]\nlisten = \"localhost:1\"",
            "such as 127.0.0.1:50051",
        ),
        (
            "[node]\ninsecure = \"yes\"",
            "expected true or false, found the text \"yes\"",
        ),
        (
            "[node]\nadvertise = \"0.0.0.0:1\"",
            "node.advertise: \"0.0.0.0:1\" is no address that others can connect to",
        ),
        ("[node]\nid = \"a/b\"", "only letters, digits"),
        ("[node]\nlabels = [\"a/b\"]", "label \"a/b\" has '/'"),
        ("[node]\ndata_dir = \"\"", "expected a path"),
        ("[node]\ndata_dir = \"~/x\"", "`~` is not expanded"),
        ("[node]\ndrain_ms = -1", "-1 is out of range"),
        ("[node]\ndrain_ms = 1.5", "found the number 1.5"),
        ("[node]\ndrain_ms = [1]", "found a list"),
        (
            "[limits]\nmax_connections = 0",
            "expected a whole number from 1 to 1000000",
        ),
        (
            "[limits]\nmax_connections = 99999999999999999999",
            "is out of range",
        ),
        ("[queue]\nkind = 1", "queue.kind: expected text"),
        ("[plugin]\na = 1", "plugin.a: expected a section"),
        (
            "[plugin.a.config]\nk = { x = 1 }",
            "plugin.a.config.k: expected text, a number",
        ),
        ("[plugin.a.task.\"t t\"]", "task type \"t t\" has ' '"),
    ] {
        let error = error(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn rules_between_settings_are_checked() {
    for (text, expected) in [
        (
            "[node]\nlisten = \"0.0.0.0:1\"",
            "node.listen: 0.0.0.0:1 can be reached from other machines",
        ),
        (
            "[limits]\nmax_payload_bytes = 4194304",
            "limits.max_payload_bytes: limits.max_payload",
        ),
        (
            "[plugins.sandbox]\nmax_result_bytes = 4194304",
            "at most 4128768 is allowed",
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
            "[broker]\nkind = \"redis\"\nurl = \"redis://a,redis://b\"",
            "broker.url: several addresses need cluster = true",
        ),
        (
            "[discovery]\nkind = \"etcd\"\nuser = \"a\"",
            "discovery.user: needs password as well",
        ),
        (
            "[queue]\nkind = \"redis\"\nkey_file = \"a\"",
            "queue.key_file: needs cert_file as well",
        ),
        (
            "[queue]\npath = \"/x/a.db\"\n[keyvalue]\npath = \"/x/a.db\"",
            "keyvalue.path: is the queue's file",
        ),
    ] {
        let error = error(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
    for sound in [
        "[node]\nlisten = \"0.0.0.0:1\"\ninsecure = true",
        "[node]\nlisten = \"[::1]:1\"",
        "[limits]\nmax_payload_bytes = 8323072\nmax_message_bytes = 8388608",
    ] {
        parse(sound).unwrap();
    }
    // A lowered limit is reported where it stands, once for each setting that no longer fits.
    let errors = parse("[limits]\nmax_message_bytes = 1048576").unwrap_err();
    assert_eq!(errors.list.len(), 2);
    assert!(errors.list.iter().all(|f| f.origin
        == Origin::Line {
            line: 2,
            column: 21
        }));
    // A setting with an error of its own is not checked against others.
    assert!(error("[limits]\nmax_message_bytes = 1").contains("is out of range"));
}

#[test]
fn syntax_errors_are_located() {
    let errors = parse("[node]\nlisten = \n\n[limits\n").unwrap_err();
    let lines: Vec<_> = errors.list.iter().map(|error| &error.origin).collect();
    assert!(matches!(lines[0], Origin::Line { line: 2, .. }), "{errors}");
    assert!(errors.to_string().contains("invalid TOML"), "{errors}");
    let twice = error("[node]\ndrain_ms = 1\ndrain_ms = 2");
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
    let QueueBackend::Redis(queue) = config.queue.backend else {
        panic!("another kind");
    };
    assert!(queue.server.cluster);
    assert_eq!(queue.server.url.reveal(), "redis://redis:6379");
}

#[test]
fn errors_of_variables_name_them() {
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
        let errors = parse_with("", &[(name, value)]).unwrap_err();
        assert_eq!(errors.list.len(), 1, "{errors}");
        let shown = errors.to_string();
        assert!(
            shown.starts_with(&format!("1 error in the environment:\n  {name}: ")),
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
            .starts_with("2 errors in the configuration and the environment:")
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
    let QueueBackend::Sqlite(sqlite) = config.queue.backend else {
        panic!("another kind");
    };
    assert_eq!(sqlite.path, Path::new("/q/x.db"));
}

#[test]
fn values_for_a_plugin_become_text() {
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

#[test]
fn certificate_and_key_are_given_together() {
    assert_eq!(
        error("[tls]\ncert_file = \"a\""),
        "tls.cert_file: needs key_file as well"
    );
    let key = "[tls]\nkey_file = \"a\"\nclient_ca_file = \"b\"";
    assert_eq!(error(key), "tls.key_file: needs cert_file as well");
    assert_eq!(
        error("[tls]\nclient_ca_file = \"b\""),
        "tls.client_ca_file: needs cert_file and key_file as well"
    );
    // A file whose setting has an error is given all the same.
    let broken = error("[tls]\ncert_file = 1\nkey_file = \"a\"");
    assert!(broken.contains("expected text"), "{broken}");
}

#[test]
fn a_token_in_place_of_its_hash_is_not_repeated() {
    let error = error("[auth.token.ci]\nsha256 = \"hostel_secret\"");
    let expected = "auth.token.ci.sha256: expected the SHA-256";
    assert!(error.starts_with(expected), "{error}");
    assert!(!error.contains("secret"), "{error}");
    let missing = parse("[node]\n[auth.token.ci]").unwrap_err();
    let Origin::Line { line, .. } = missing.list[0].origin else {
        panic!("{missing}");
    };
    assert_eq!(line, 2);
    assert_eq!(only(missing), "auth.token.ci.sha256: is missing");
}

#[test]
fn a_public_address_needs_tls_and_tokens() {
    let hash = TokenHash::of(b"x");
    let text = format!(
        "[node]\nlisten = \"0.0.0.0:1\"\n[tls]\ncert_file = \"/c\"\nkey_file = \"/k\"\n\
         [auth.token.ci]\nsha256 = \"{hash}\""
    );
    assert_eq!(parse(&text).unwrap().auth.unwrap().tokens["ci"], hash);
    let (without_token, _) = text.split_once("[auth").unwrap();
    let error = error(without_token);
    assert!(error.contains("needs [auth]"), "{error}");
}

#[test]
fn a_plugin_overrides_the_general_limits() {
    let config = parse(
        "[plugins.sandbox]\nmax_log_bytes = 7\nmax_cpu_ms = 50\n[plugins.component]\nmailbox = 2\n\
         [plugin.a.limits]\nmax_cpu_ms = 90\n[plugin.a.component]\nmailbox = 3",
    )
    .unwrap();
    let name = |text| hostel_task::Name::parse("plugin", text).unwrap();
    let own = config.sandbox("a");
    assert_eq!((own.max_log_bytes, own.max_cpu.as_millis()), (7, 90));
    assert_eq!(config.sandbox("b"), config.plugins.sandbox);
    assert_eq!(config.component(&name("a")).mailbox, 3);
    assert_eq!(config.component(&name("b")), config.plugins.component);
    // The override is checked as the general limit is.
    let low = error("[plugin.a.limits]\nmax_cpu_ms = 1");
    assert!(low.contains("from 10 to 86400000"), "{low}");
}
