//! Access to a node: TLS, client certificates and tokens, on the node and on the client, and the errors
//! of rejected clients. Other scenarios use plain nodes on the loopback interface.

mod cli_credentials;
mod methods;
mod tls;
mod tokens;

use crate::support::{
    DEADLINE,
    certificates::{Authority, Signed},
    eventually,
    node::{Node, hostel},
    task, trial_needing,
};
use hostel::{
    ClientOptions, DistributedClient,
    client::{Error, TlsError},
    config::TokenHash,
    plugin::TestGuest,
};
use libtest_mimic::Trial;
use std::{fs, time::Duration};
use tonic::{Code, Status};

pub fn trials() -> Vec<Trial> {
    vec![
        trial_needing(
            "security::listening_beyond_loopback_needs_tls_and_tokens",
            true,
            tls::listening_beyond_loopback_needs_tls_and_tokens,
        ),
        trial_needing(
            "security::untrusted_certificates_and_plain_text_are_rejected",
            true,
            tls::untrusted_certificates_and_plain_text_are_rejected,
        ),
        trial_needing(
            "security::client_certificates_are_required",
            true,
            tls::client_certificates_are_required,
        ),
        trial_needing(
            "security::renewed_certificates_serve_without_a_restart",
            true,
            tls::renewed_certificates_serve_without_a_restart,
        ),
        trial_needing(
            "security::an_expiring_certificate_is_reported",
            true,
            tls::an_expiring_certificate_is_reported,
        ),
        trial_needing(
            "security::silent_handshakes_time_out",
            true,
            tls::silent_handshakes_time_out,
        ),
        trial_needing(
            "security::broken_certificate_files_are_named",
            true,
            tls::broken_certificate_files_are_named,
        ),
        trial_needing(
            "security::a_call_needs_a_known_token",
            true,
            tokens::a_call_needs_a_known_token,
        ),
        trial_needing(
            "security::the_tokens_file_is_reloaded",
            true,
            tokens::the_tokens_file_is_reloaded,
        ),
        trial_needing(
            "security::a_stream_ends_when_its_token_is_removed",
            true,
            tokens::a_stream_ends_when_its_token_is_removed,
        ),
        trial_needing(
            "security::every_method_needs_a_token",
            true,
            methods::every_method_needs_a_token,
        ),
        trial_needing(
            "security::the_cli_finds_credentials_by_precedence",
            true,
            cli_credentials::the_cli_finds_credentials_by_precedence,
        ),
        trial_needing(
            "security::the_cli_explains_rejected_credentials",
            true,
            cli_credentials::the_cli_explains_rejected_credentials,
        ),
        trial_needing(
            "security::token_new_prints_a_token_and_its_hash",
            true,
            cli_credentials::token_new_prints_a_token_and_its_hash,
        ),
    ]
}

const TLS: &str = "[tls]\ncert_file = \"node.pem\"\nkey_file = \"node.key\"\n";
const TOKENS: &str = "[auth]\ntokens_file = \"tokens\"\n";

/// The token of a client, which must not appear anywhere else.
const TOKEN: &str = "hostel_7c1f0e5ecre7";

/// Prepares a node with a certificate for this machine, a token named `ci`, and a plugin that echoes.
fn prepared(settings: &str, authority: &Authority) -> Node {
    let node = Node::prepare(&[], settings);
    node.add_wasm("sample.wasm", &TestGuest::default().wasm().unwrap());
    node_certificate(authority).write(&node.path(""), "node");
    write_tokens(&node, &[("ci", TOKEN)]);
    node
}

fn node_certificate(authority: &Authority) -> Signed {
    authority.node(&["127.0.0.1", "localhost", "node.example"])
}

fn write_tokens(node: &Node, tokens: &[(&str, &str)]) {
    let line =
        |(name, token): &(&str, &str)| format!("{name} {}\n", TokenHash::of(token.as_bytes()));
    let lines: String = tokens.iter().map(line).collect();
    // Renamed into place, so that the node never reads half of it.
    fs::write(node.path("tokens.new"), lines).unwrap();
    fs::rename(node.path("tokens.new"), node.path("tokens")).unwrap();
}

/// Returns the address of a node on the loopback interface.
fn address(node: &Node) -> String {
    node.address().replace("0.0.0.0", "127.0.0.1")
}

/// Connects a client on a new connection.
async fn connect(node: &Node, options: ClientOptions) -> Result<DistributedClient, Error> {
    let client = DistributedClient::connect_with(&address(node), options).await?;
    Ok(client.with_retry_timeout(Duration::ZERO))
}

async fn assert_works(client: &mut DistributedClient) {
    let echoed = client.submit_and_wait(task("sample", "over")).await;
    assert_eq!(echoed.unwrap().result, "over");
}

fn tls_error(result: Result<DistributedClient, Error>) -> Option<TlsError> {
    match result {
        Err(Error::Unreachable { tls, .. }) => tls,
        other => panic!("{other:?}"),
    }
}

fn assert_unauthenticated<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    let words = "`authorization: Bearer TOKEN`";
    assert!(status.message().contains(words), "{status}");
}
