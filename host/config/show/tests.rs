//! What is shown loads to the same, hides secrets, and the reference is complete.

use super::*;
use hostel_fuzz as fuzz;
use toml::de::DeTable;

fn parse(text: &str) -> Config {
    match Config::parse(text, std::iter::empty()) {
        Ok(config) => config,
        Err(faults) => panic!("{faults}\n{text}"),
    }
}

/// The reference with everything given that it mentions, but for the password, which is not
/// shown.
fn complete(queue: &str) -> String {
    let cluster = REFERENCE.replace("kind = \"local\"", "kind = \"?\"");
    let cluster = cluster.replacen("\"?\"", "\"etcd\"", 1);
    let cluster = cluster.replacen("\"?\"", "\"redis\"", 1);
    let cluster = cluster.replacen("\"sqlite\"\n", &format!("\"{queue}\"\n"), 1);
    let (mut comment, mut given) = ("", Vec::new());
    for line in cluster.lines() {
        let bare = line.strip_prefix('#').unwrap_or(line);
        let key = bare.split_once(" = ").map_or("", |(key, _)| key);
        let example = is_key(key) || bare.starts_with("[plugin.") || bare.starts_with("[auth.");
        let of_another_kind = ["redis", "sqlite"]
            .iter()
            .any(|kind| *kind != queue && comment.starts_with(&format!("# For \"{kind}\"")));
        match line.is_empty() {
            true => comment = "",
            false if comment.is_empty() => comment = line,
            false => {}
        }
        match example {
            true if of_another_kind => {}
            true => given.push(bare),
            false => given.push(line),
        }
    }
    given.join("\n")
}

/// `complete`, with no value left at its default.
fn changed(queue: &str) -> String {
    let change = |line: &str| {
        let (key, value) = line.split_once(" = ")?;
        let changed = match value.parse::<u64>() {
            // Components may not have all of it.
            Ok(0) if key == "max_total_memory_bytes" => (1_u64 << 30).to_string(),
            Ok(number) => (number + 1).to_string(),
            Err(_) if value == "false" => "true".to_owned(),
            Err(_) if key == "listen" => "\"[::1]:7\"".to_owned(),
            Err(_) if key == "kind" => value.to_owned(),
            Err(_) if key == "sha256" => value.replace('5', "6"),
            Err(_) if value.contains("://") => value.replacen("127.0.0.1", "10.0.0.1", 1),
            Err(_) => value.replacen('"', "\"other-", 1),
        };
        (!line.starts_with('#')).then(|| format!("{key} = {changed}"))
    };
    let complete = complete(queue);
    let lines = complete.lines();
    let lines: Vec<String> = lines.map(|x| change(x).unwrap_or(x.to_owned())).collect();
    lines.join("\n")
}

#[test]
fn what_is_shown_loads_to_the_same() {
    let odd = "[plugin.\"a.b:c\".config]\nkey = \"quo\\\"te\\n\"\n\"k k\" = \"\"\n[plugin.z]";
    let [one, many] = ["sqlite", "redis"].map(complete);
    for text in ["", &one, &many, &changed("sqlite"), &changed("redis"), odd] {
        let mut config = parse(text);
        if let Discovery::Etcd(etcd) = &mut config.discovery {
            (etcd.user, etcd.password) = (None, None);
        }
        let shown = show(&config, Secrets::Shown);
        assert_eq!(parse(&shown), config, "{shown}");
        assert_eq!(show(&parse(&shown), Secrets::Shown), shown);
    }
    assert_ne!(parse(&changed("redis")).limits, Config::default().limits);
}

#[test]
fn the_examples_of_other_kinds_are_their_defaults() {
    let optional = [
        "user",
        "password",
        "ca_file",
        "cert_file",
        "key_file",
        "client_ca_file",
    ];
    let complete = complete("redis");
    let lines = complete.lines().filter(|line| {
        !optional
            .iter()
            .any(|key| line.starts_with(&format!("{key} = ")))
    });
    let given = parse(&lines.collect::<Vec<_>>().join("\n"));
    let least = parse(
        "[queue]\nkind = \"redis\"\n[discovery]\nkind = \"etcd\"\n[broker]\nkind = \"redis\"",
    );
    assert_eq!(given.queue, least.queue);
    assert_eq!(given.discovery, least.discovery);
    assert_eq!(given.broker, least.broker);
}

#[test]
fn passwords_are_not_shown() {
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
}

#[test]
fn what_a_plugin_is_configured_with_is_masked_unless_asked_for() {
    let text = "[plugin.rates.config]\napi_key = \"hush\"\nbase = \"EUR\"\n";
    let shown = show(&parse(text), Secrets::Masked);
    assert!(!shown.contains("hush") && !shown.contains("EUR"), "{shown}");
    assert!(shown.contains("api_key = \"***\""), "{shown}");
    let shown = show(&parse(text), Secrets::Shown);
    assert!(shown.contains("api_key = \"hush\""), "{shown}");
}

#[test]
fn comments_are_kept_and_absent_settings_stay_absent() {
    let shown = show(&parse("[node]\nlisten = \"127.0.0.1:9\""), Secrets::Masked);
    let comments = |text: &str| text.matches("\n# ").count();
    assert_eq!(comments(&shown), comments(REFERENCE));
    assert!(shown.contains("listen = \"127.0.0.1:9\""));
    assert!(shown.contains("\n#id = "), "{shown}");
    assert!(shown.contains("\ndata_dir = \"/"), "{shown}");
}

#[test]
fn the_reference_mentions_every_setting() {
    let shared = complete("redis");
    let reference: toml::Table = shared.parse().unwrap();
    for section in [
        "node",
        "limits",
        "plugins",
        "plugins.sandbox",
        "plugins.component",
        "queue",
        "keyvalue",
        "discovery",
        "broker",
        "tls",
        "auth",
        "auth.token.ci",
        "plugin.thumbnail.limits",
        "plugin.thumbnail.component",
        "plugin.thumbnail.task.thumbnail",
    ] {
        let kind = match section {
            "queue" => "kind = \"redis\"\n",
            "discovery" => "kind = \"etcd\"\n",
            "broker" => "kind = \"redis\"\n",
            _ => "",
        };
        let stranger = format!("[{section}]\n{kind}stranger_than_all = 1");
        let faults = Config::parse(&stranger, std::iter::empty()).unwrap_err();
        let mut problems = faults.list.iter().map(|fault| &fault.problem);
        let known = problems.find_map(|problem| problem.split_once("known here: "));
        let (_, known) = known.unwrap();
        let table = section
            .split('.')
            .fold(&reference, |table, key| table[key].as_table().unwrap());
        for key in known.split(", ") {
            assert!(
                table.contains_key(key),
                "{section}.{key} is not in default.toml"
            );
        }
    }
    assert!(DeTable::parse(REFERENCE).is_ok());
}

#[test]
fn every_setting_of_the_reference_is_explained() {
    let (settings, _) = REFERENCE.split_once("# What one plugin is given").unwrap();
    let lines: Vec<&str> = settings.lines().collect();
    for pair in lines.windows(2) {
        let bare = pair[1].strip_prefix('#').unwrap_or(pair[1]);
        if bare.split_once(" = ").is_some_and(|(key, _)| is_key(key)) {
            assert!(pair[0].starts_with("# "), "{} has no comment", pair[1]);
        }
    }
}

#[test]
fn fuzz_configurations() {
    let complete = [complete("sqlite"), complete("redis")];
    let samples = [&*complete[0], &*complete[1], "[node]\nid = \"a\"\n", ""];
    fuzz::each(|near| {
        let given = near.text(&samples);
        match Config::parse(&given, std::iter::empty()) {
            // What is shown loads to the same.
            Ok(config) => {
                let shown = show(&config, Secrets::Shown);
                if let Ok(again) = Config::parse(&shown, std::iter::empty()) {
                    assert_eq!(show(&again, Secrets::Shown), shown);
                }
            }
            Err(faults) => assert!(!faults.to_string().is_empty()),
        }
    });
}
