//! Credentials of the command line: where it finds certificates and tokens, their precedence, and the
//! errors for missing or invalid ones.

use super::*;
use std::process::{Command, Output};

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn assert_success(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", errors(&output));
}

fn assert_failure(command: &mut Command, code: i32, words: &str) {
    let output = command.output().unwrap();
    let errors = errors(&output);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert!(errors.contains(words), "{words}: {errors}");
    assert!(!errors.contains("5ecre7"), "{errors}");
}

/// Starts a node that requires a client certificate and a token, with the files of a client in its
/// directory.
async fn node() -> Node {
    let authority = Authority::new("authority");
    let settings = format!("{TLS}client_ca_file = \"ca.pem\"\n{TOKENS}");
    let node = prepared(&settings, &authority);
    fs::write(node.path("ca.pem"), &authority.pem).unwrap();
    authority.client("ann").write(&node.path(""), "ann");
    fs::write(node.path("token"), format!("{TOKEN}\n")).unwrap();
    fs::write(node.path("wrong"), "hostel_wrong-5ecre7").unwrap();
    node.started().await
}

fn list(node: &Node) -> Command {
    let mut command = hostel();
    command.current_dir(node.path("")).args(["plugins", "list"]);
    command
}

pub async fn the_cli_finds_credentials_by_precedence() {
    let node = node().await;
    let https = format!("https://{}", node.address());
    let flags = [
        "--ca-file=ca.pem",
        "--cert-file=ann.pem",
        "--key-file=ann.key",
        "--token-file=token",
    ];
    assert_success(list(&node).args(flags).args(["--server", &https]));
    // A CA implies https.
    assert_success(list(&node).args(flags).args(["--server", node.address()]));
    assert_success(
        list(&node)
            .args(&flags[..3])
            .args(["--server", &https, "--token", TOKEN]),
    );

    let variables = [
        ("HOSTEL_SERVER", https.as_str()),
        ("HOSTEL_CA_FILE", "ca.pem"),
        ("HOSTEL_CERT_FILE", "ann.pem"),
        ("HOSTEL_KEY_FILE", "ann.key"),
    ];
    let environment = || {
        let mut command = list(&node);
        command.envs(variables);
        command
    };
    assert_success(environment().env("HOSTEL_TOKEN", TOKEN));
    assert_success(environment().env("HOSTEL_TOKEN_FILE", "token"));

    // The client file at its default place and by name; its paths are relative to it.
    let file = format!(
        "server = \"{https}\"\nca_file = \"../ca.pem\"\ncert_file = \"../ann.pem\"\n\
         key_file = \"../ann.key\"\ntoken_file = \"../token\"\n"
    );
    fs::create_dir(node.path("hostel")).unwrap();
    fs::write(node.path("hostel/client.toml"), file).unwrap();
    assert_success(list(&node).env("XDG_CONFIG_HOME", node.path("")));
    assert_success(list(&node).args(["--client-file", "hostel/client.toml"]));
    assert_success(list(&node).env("HOSTEL_CLIENT", "hostel/client.toml"));

    // Flags override the environment, which overrides the file.
    let wrong = || {
        let mut command = environment();
        command.env("HOSTEL_TOKEN", "hostel_wrong-5ecre7");
        command
    };
    assert_failure(&mut wrong(), 4, "--token-file or HOSTEL_TOKEN");
    assert_success(wrong().args(["--token-file", "token"]));
    let file = ["--client-file", "hostel/client.toml"];
    assert_failure(wrong().args(file), 4, "Unauthenticated");
    assert_success(wrong().args(file).args(["--token", TOKEN]));
    assert_failure(
        list(&node).args(file).args(["--token-file", "wrong"]),
        4,
        "Unauthenticated",
    );
    // An empty variable is ignored.
    assert_success(
        list(&node)
            .args(file)
            .env("HOSTEL_TOKEN", "")
            .env("HOSTEL_SERVER", ""),
    );
}

pub async fn the_cli_explains_rejected_credentials() {
    let node = node().await;
    let https = format!("https://{}", node.address());
    let ask = |arguments: &[&str]| {
        let mut command = list(&node);
        command.env("HOSTEL_SERVER", &https).args(arguments);
        command
    };
    let stranger = Authority::new("stranger");
    fs::write(node.path("stranger.pem"), &stranger.pem).unwrap();
    stranger.client("ann").write(&node.path(""), "eve");
    let with_ca = |rest: &[&'static str]| [&["--ca-file=ca.pem"], rest].concat();
    let ann = ["--cert-file=ann.pem", "--key-file=ann.key"];

    let untrusted = "name the CA that signed it with --ca-file or HOSTEL_CA_FILE";
    assert_failure(&mut ask(&["--ca-file=stranger.pem"]), 3, untrusted);
    // The reason does not always reach the client; the error names the flags to check.
    assert_failure(&mut ask(&with_ca(&[])), 3, "--cert-file");
    let eve = ["--cert-file=eve.pem", "--key-file=eve.key"];
    assert_failure(&mut ask(&with_ca(&eve)), 3, "--cert-file");
    assert_failure(&mut ask(&with_ca(&ann)), 4, "--token-file or HOSTEL_TOKEN");
    assert_failure(
        &mut ask(&with_ca(&ann[..1])),
        2,
        "--key-file or HOSTEL_KEY_FILE",
    );
    assert_failure(
        &mut ask(&["--ca-file=none.pem"]),
        2,
        "the CA file none.pem cannot be read",
    );
    assert_failure(
        &mut ask(&["--ca-file=token"]),
        2,
        "token holds no certificate",
    );
    let other = ["--cert-file=ann.pem", "--key-file=eve.key"];
    let words = "the client's key eve.key is not the key of the client's certificate ann.pem";
    assert_failure(&mut ask(&with_ca(&other)), 2, words);
    let both = ["--token-file=token", "--token=hostel_5ecre7"];
    let output = ask(&both).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", errors(&output));
    assert_failure(
        ask(&[])
            .env("HOSTEL_TOKEN", TOKEN)
            .env("HOSTEL_TOKEN_FILE", "token"),
        2,
        "are both set",
    );
    // The token is never sent over a plain connection.
    let plain = ["--server=http://192.0.2.1:1", "--token-file=token"];
    assert_failure(&mut ask(&plain), 2, "use https://");
    let plain = ["--server=http://127.0.0.1:1", "--ca-file=ca.pem"];
    assert_failure(&mut ask(&plain), 2, "use https://");
    assert_failure(
        &mut ask(&["--client-file=none.toml"]),
        2,
        "none.toml: cannot be read",
    );
    fs::write(node.path("client.toml"), "sever = \"x\"\n").unwrap();
    assert_failure(
        &mut ask(&["--client-file=client.toml"]),
        2,
        "client.toml: line 1: unknown field",
    );

    // Plain text to a node with TLS, and TLS to a node without.
    let http = format!("--server=http://{}", node.address());
    assert_failure(&mut ask(&[&http]), 3, "https://");
    let open = Node::start(&[], "").await;
    let server = format!("--server=https://{}", open.address());
    assert_failure(&mut ask(&[&server, "--ca-file=ca.pem"]), 3, "write http://");

    // The configuration is shown with paths and hashes only.
    let shown = hostel()
        .current_dir(node.path(""))
        .args(["config", "show", "--config", "hostel.toml"])
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("/node.key\"") && shown.contains("/tokens\""),
        "{shown}"
    );
    assert!(
        !shown.contains("PRIVATE") && !shown.contains("5ecre7"),
        "{shown}"
    );
    let help = list(&node)
        .env("HOSTEL_TOKEN", TOKEN)
        .arg("--help")
        .output()
        .unwrap();
    assert!(!String::from_utf8_lossy(&help.stdout).contains("5ecre7"));
}

pub async fn token_new_prints_a_token_and_its_hash() {
    let new = |arguments: &[&str]| {
        let output = hostel().args(["token", "new"]).args(arguments).output();
        let output = output.unwrap();
        let out = String::from_utf8(output.stdout.clone()).unwrap();
        (output.status.code(), out, errors(&output))
    };
    let (code, token, line) = new(&["ci"]);
    assert_eq!(code, Some(0), "{line}");
    let token = token.strip_suffix('\n').unwrap();
    let digits = token.strip_prefix("hostel_").unwrap();
    assert_eq!(digits.len(), 64);
    assert!(digits.chars().all(|c| c.is_ascii_hexdigit()));
    assert_eq!(line, format!("ci {}\n", TokenHash::of(token.as_bytes())));
    assert_ne!(new(&["ci"]).1.trim(), token);

    let (_, json, err) = new(&["ann", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let hash = TokenHash::of(json["token"].as_str().unwrap().as_bytes());
    assert_eq!(json["sha256"], hash.to_string());
    assert_eq!((&json["name"], err.as_str()), (&"ann".into(), ""));
    let (code, out, err) = new(&["a b"]);
    assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");

    // The outputs are lines for the two files, as the help says.
    let node = Node::prepare(&[], TOKENS);
    fs::write(node.path("tokens"), line).unwrap();
    fs::write(node.path("token"), format!("{token}\n")).unwrap();
    let node = node.started().await;
    assert!(
        node.cli(&["plugins", "list", "--token-file", "token"])
            .status
            .success()
    );
    assert_eq!(node.cli(&["plugins", "list"]).status.code(), Some(4));
}
