//! `hostel plugins` and `hostel config`.

use super::*;

pub async fn plugins_of_a_node() {
    let node = Node::prepare(&[&showcase("echo"), &showcase("text")], "");
    node.add_wasm("rubbish.wasm", b"rubbish");
    let node = node.started().await;
    let listed = node.hostel(&["plugins", "list"]).text();
    assert!(listed.starts_with("PLUGIN  VERSION  TASK TYPE"), "{listed}");
    for row in ["echo    0.1.0    echo", "text    0.1.0    word-count  5"] {
        assert!(listed.contains(row), "{row}: {listed}");
    }
    assert!(
        listed.contains("refused: rubbish.wasm: is not WebAssembly"),
        "{listed}"
    );
    let listed = node.hostel(&["plugins", "list", "--json"]).json();
    assert_eq!(listed["plugins"][1]["task_types"][0]["name"], "word-count");
    assert_eq!(listed["plugins"][1]["task_types"][0]["timeout_ms"], 30_000);
    assert_eq!(listed["plugins"][0]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(listed["rejected"][0]["file"], "rubbish.wasm");
    node.hostel(&["plugins", "list", "--server", "127.0.0.1:1"])
        .fails(3, "no node answers");
}

pub async fn plugin_files() {
    let dir = tempfile::tempdir().unwrap();
    let hostel = |arguments: &[&str]| run(hostel().current_dir(dir.path()).args(arguments));
    let bad = TestGuest {
        interface: "0.2.0",
        ..TestGuest::default()
    };
    fs::write(dir.path().join("bad.wasm"), bad.wasm().unwrap()).unwrap();
    let echo = showcase("echo");
    let echo = echo.to_str().unwrap();

    let output = hostel(&["plugins", "inspect", echo]).text();
    assert!(output.starts_with("echo 0.1.0: "), "{output}");
    assert!(output.contains("handles echo: 5 attempts"), "{output}");
    assert!(
        output.contains("exports hostel:plugin/task-handler@0.1.0\n"),
        "{output}"
    );
    let output = hostel(&["plugins", "inspect", echo, "--json"]).json();
    assert_eq!(output["plugin"]["task_types"][0]["name"], "echo");
    assert_eq!(output["errors"], Value::Array(Vec::new()));
    let words = "exports hostel:plugin/manifest@0.2.0, which this node does not know";
    for arguments in [
        &["inspect", "bad.wasm"][..],
        &["verify", "bad.wasm"],
        &["inspect", "bad.wasm", "--json"],
    ] {
        let output = hostel(&[&["plugins"], arguments].concat());
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(
            String::from_utf8_lossy(&output.out).contains(words),
            "{output:?}"
        );
        assert!(output.err.contains("a node would refuse"), "{output:?}");
    }
    let output = hostel(&["plugins", "verify", echo]).text();
    assert_eq!(output, format!("{echo}: no errors\n"));
    // With a configuration file.
    fs::write(
        dir.path().join("other.toml"),
        "[plugins.sandbox]\nmax_cpu_ms = 999\n",
    )
    .unwrap();
    let with = ["--config", "other.toml", echo];
    let output = hostel(&[&["plugins", "verify"], &with[..]].concat()).text();
    assert_eq!(output, format!("{echo}: no errors\n"));
    hostel(&[&["plugins", "inspect"], &with[..]].concat()).text();
    hostel(&["plugins", "verify", echo, "--config", "none.toml"]).fails(2, "none.toml");
    fs::remove_file(dir.path().join("other.toml")).unwrap();
    hostel(&["plugins", "inspect", "none.wasm"]).fails(1, "none.wasm cannot be read");
    hostel(&["plugins", "verify"]).fails(2, "<FILE>");
    hostel(&["plugins", "verify", echo, "--self"]).fails(2, "cannot be used with");

    let out = dir.path().join("out");
    let mut build = self::hostel();
    build
        .args(["plugins", "build"])
        .arg(source().join("plugins/echo"));
    build
        .arg("--out")
        .arg(&out)
        .env("CARGO_TARGET_DIR", source().join("target"));
    let output = run(&mut build);
    assert_eq!(output.code, Some(0), "{}", output.err);
    let file = out.join("echo.wasm");
    assert_eq!(
        String::from_utf8(output.out).unwrap(),
        format!("{}\n", file.display())
    );
    assert!(fs::read(file).unwrap() == fs::read(built().join("echo.wasm")).unwrap());
    hostel(&["plugins", "build", "nowhere"]).fails(1, "nowhere");
    // No command leaves a file behind.
    let left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|x| x.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

pub async fn verify_self() {
    let dir = tempfile::tempdir().unwrap();
    let hostel = |key: &str, value: &str| {
        let mut command = hostel();
        command.current_dir(dir.path()).env(key, value);
        run(command.args(["plugins", "verify", "--self"]))
    };
    let output = hostel("HOSTEL__PLUGINS__SANDBOX__MAX_MEMORY_BYTES", "16777216").text();
    assert!(output.lines().count() > 9, "{output}");
    assert!(!output.contains("FAILS"), "{output}");
    for setting in [
        "timeout_ms",
        "max_cpu_ms",
        "max_memory_bytes",
        "max_table_elements",
        "max_result_bytes",
        "max_log_bytes",
    ] {
        assert!(
            output.contains(&format!("plugins.sandbox.{setting}")),
            "{setting}: {output}"
        );
    }
    // The limits are those of the configuration.
    assert!(
        output.contains("more than 16777216 bytes of memory"),
        "{output}"
    );
    hostel("HOSTEL__PLUGINS__SANDBOX__MAX_MEMORY_BYTES", "much").fails(2, "MAX_MEMORY_BYTES");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

pub async fn config() {
    let dir = tempfile::tempdir().unwrap();
    let hostel = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = hostel();
        command
            .current_dir(dir.path())
            .env("XDG_CONFIG_HOME", dir.path());
        run(command.args(arguments).envs(variables.iter().copied()))
    };
    let write = |text: &str| fs::write(dir.path().join("hostel.toml"), text).unwrap();
    let listen = [("HOSTEL__NODE__LISTEN", "127.0.0.1:7")];
    assert_eq!(hostel(&["config", "check"], &[]).text(), "no errors\n");
    let shown = hostel(&["config", "show"], &listen).text();
    assert!(shown.contains("listen = \"127.0.0.1:7\"\n"), "{shown}");
    assert!(
        shown.contains("# Size of the payload of a task or a message."),
        "{shown}"
    );
    // Values for a plugin may be secret.
    let secret = [("HOSTEL__PLUGIN__RATES__CONFIG__API_KEY", "hush")];
    let masked = hostel(&["config", "show"], &secret).text();
    assert!(
        masked.contains("api_key = \"***\"") && !masked.contains("hush"),
        "{masked}"
    );
    let asked = hostel(&["config", "show", "--show-secrets"], &secret).text();
    assert!(asked.contains("api_key = \"hush\""), "{asked}");
    // The output loads to the same configuration, which now includes the variable.
    write(&shown);
    assert_eq!(hostel(&["config", "check"], &[]).text(), "no errors\n");
    assert_eq!(hostel(&["config", "show"], &[]).text(), shown);
    assert_eq!(
        hostel(&["config", "show", "--config", "hostel.toml"], &[]).text(),
        shown
    );

    write(
        "[node]\nlsiten = \"x\"\ndrain_ms = \"30s\"\n[limits]\nmax_wait_ms = 99999999\n\
        [queue]\nkind = \"sqlight\"\n[plugin.\"a b\".limits]\nmax_cpu_ms = 10\n",
    );
    let variable = [("HOSTEL__LIMITS__MAX_SERVICES", "many")];
    for arguments in [&["config", "check"][..], &["config", "show"], &["serve"]] {
        let output = hostel(arguments, &variable);
        for words in [
            "6 errors in hostel.toml and the environment:",
            "hostel.toml:2:1: node.lsiten: no such setting; did you mean listen?",
            "hostel.toml:3:12: node.drain_ms:",
            "hostel.toml:5:15: limits.max_wait_ms:",
            "hostel.toml:7:8: queue.kind:",
            "hostel.toml:8:9: plugin.a b:",
            "HOSTEL__LIMITS__MAX_SERVICES: limits.max_services:",
        ] {
            assert!(output.err.contains(words), "{words}: {}", output.err);
        }
        output.fails(2, "6 errors");
    }
    write("[node\n");
    hostel(&["config", "check"], &[]).fails(2, "hostel.toml:1:");
    fs::write(dir.path().join("hostel.toml"), b"[node]\nid = \"\xff\"").unwrap();
    hostel(&["config", "check"], &[]).fails(2, "line 2 is not UTF-8");
    hostel(&["config", "check", "--config", "none.toml"], &[]).fails(2, "none.toml");
}

pub async fn verify_reports_all_errors() {
    let dir = tempfile::tempdir().unwrap();
    let verify = |file: &str| {
        run(hostel()
            .current_dir(dir.path())
            .args(["plugins", "verify", file]))
    };
    let write = |file: &str, bytes: &[u8]| fs::write(dir.path().join(file), bytes).unwrap();
    // An import that the node does not provide, and three errors in the manifest.
    let many = TestGuest {
        name: "bad name",
        version: "",
        task_types: &["bad type"],
        ..TestGuest::default()
    };
    let import = "(component (import \"wasi:nn/tensor@0.2.0\" (instance))";
    let many = many.text().replacen("(component", import, 1);
    write("many.wasm", &wat::parse_str(many).unwrap());
    let output = verify("many.wasm");
    let out = String::from_utf8(output.out).unwrap();
    for words in [
        "imports wasi:nn/tensor@0.2.0",
        "the plugin's name \"bad name\"",
        "the version is empty",
        "task type \"bad type\"",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
    assert_eq!((out.lines().count(), output.code), (4, Some(1)), "{out}");

    // Two interfaces with other functions than expected.
    let shapes = TestGuest::default().text();
    let shapes = shapes.replace(
        "(export \"handle\" (func $handle))",
        "(export \"hand\" (func $handle))",
    );
    let shapes = shapes.replace(
        "(export \"describe\" (func $describe)))",
        "(export \"describ\" (func $describe)))",
    );
    write("shapes.wasm", &wat::parse_str(shapes).unwrap());
    let out = String::from_utf8(verify("shapes.wasm").out).unwrap();
    for words in [
        "its hostel:plugin/manifest",
        "its hostel:plugin/task-handler",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }

    let patch = TestGuest {
        interface: "0.1.1",
        ..TestGuest::default()
    };
    write("patch.wasm", &patch.wasm().unwrap());
    assert_eq!(verify("patch.wasm").text(), "patch.wasm: no errors\n");
    // An interface that the node does not know is refused only in its own package.
    let also = |export: &str| {
        let more = format!("(component (instance $none) (export {export:?} (instance $none))");
        let text = TestGuest::default().text();
        wat::parse_str(text.replacen("(component", &more, 1)).unwrap()
    };
    write("other.wasm", &also("acme:other/thing@0.1.0"));
    assert_eq!(verify("other.wasm").text(), "other.wasm: no errors\n");
    write("unknown.wasm", &also("hostel:plugin/thing@0.1.0"));
    let out = String::from_utf8(verify("unknown.wasm").out).unwrap();
    let words = "exports hostel:plugin/thing@0.1.0, which this node does not know";
    assert!(out.contains(words), "{out}");
    let memory = "(component (core module (memory 65535))";
    let large = TestGuest::default()
        .text()
        .replacen("(component", memory, 1);
    write("large.wasm", &wat::parse_str(large).unwrap());
    let out = String::from_utf8(verify("large.wasm").out).unwrap();
    assert!(
        out.contains("has a memory of at least 4294901760 bytes"),
        "{out}"
    );
    assert!(out.contains("plugins.sandbox.max_memory_bytes"), "{out}");

    write(
        "core.wasm",
        &wat::parse_str("(module (import \"__wbindgen_placeholder__\" \"f\" (func)))").unwrap(),
    );
    let out = String::from_utf8(verify("core.wasm").out).unwrap();
    for words in [
        "tinygo",
        "componentize-py",
        "jco",
        "wasi-sdk",
        "has code of wasm-bindgen",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
}

pub async fn file_extensions_are_case_insensitive() {
    let node = Node::prepare(&[], "");
    node.add_wasm("SAMPLE.WASM", &TestGuest::default().wasm().unwrap());
    let node = node.started().await;
    let listed = node.hostel(&["plugins", "list"]).text();
    assert!(listed.contains("SAMPLE.WASM"), "{listed}");
    let result = node.hostel(&["submit", "sample", "--payload", "x", "--wait"]);
    assert_eq!(result.bytes(), b"x");
}

/// The file is named as the plugin, and is installed only if a node would accept it.
pub async fn build_installs_only_acceptable_plugins() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (built().join("source/big-desc"), dir.path().join("out"));
    let build = |description: &str| {
        write_crate(&source, "big-desc", "1.0.0", "big_desc", description, ECHO);
        let mut build = hostel();
        build
            .args(["plugins", "build"])
            .arg(&source)
            .arg("--out")
            .arg(&out);
        run(build.env("CARGO_TARGET_DIR", self::source().join("target")))
    };
    let output = build(&"x".repeat(2000));
    assert_eq!(output.code, Some(1), "{output:?}");
    for words in [
        "a node would refuse it",
        "description of the plugin has 2000 bytes",
    ] {
        assert!(output.err.contains(words), "{words}: {}", output.err);
    }
    assert!(!out.exists(), "the plugin is installed");
    let output = build("short");
    let file = out.join("big-desc.wasm");
    let installed = String::from_utf8(output.out).unwrap();
    assert_eq!(installed, format!("{}\n", file.display()), "{}", output.err);
    // A file of the same plugin with another name would prevent this one from serving.
    fs::copy(&file, out.join("big_desc.wasm")).unwrap();
    let output = build("short");
    assert!(output.err.contains("remove it"), "{}", output.err);
}

/// A plugin that needs more memory to describe itself than others have, as the section of its name says.
/// The name has a dash, which cargo does not put into the name of the file.
pub async fn build_checks_a_plugin_under_the_limits_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (built().join("source/big-list"), dir.path().join("out"));
    write_crate(&source, "big-list", "1.0.0", "big_list", "", GREEDY);
    let build = |settings: &str| {
        fs::write(dir.path().join("hostel.toml"), settings).unwrap();
        let mut build = hostel();
        build.current_dir(dir.path()).args(["plugins", "build"]);
        build.arg(&source).arg("--out").arg(&out);
        run(build.env("CARGO_TARGET_DIR", self::source().join("target")))
    };
    let output = build("");
    let words = "plugins.sandbox.max_memory_bytes";
    assert!(output.err.contains(words), "{}", output.err);
    let output = build("[plugin.big-list.limits]\nmax_memory_bytes = 209715200\n");
    assert_eq!(output.code, Some(0), "{}", output.err);
    assert!(out.join("big-list.wasm").exists());
}

const GREEDY: &str = "use hostel_sdk::prelude::*;
fn same(payload: Vec<u8>) -> Vec<u8> { payload }
hostel_sdk::plugin! {
    task(\"greedy\", same).attempts(std::hint::black_box(vec![1_u8; 100 << 20])[7].into()),
}
";

const ECHO: &str = "use hostel_sdk::prelude::*;
fn same(payload: Vec<u8>) -> Vec<u8> { payload }
hostel_sdk::plugin! { task(\"same\", same) }
";
