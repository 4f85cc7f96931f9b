//! Who may reach a node: TLS, client certificates and tokens, from both ends, and what they are told
//! who may not. Plain nodes on loopback are everybody else's matter.

mod command_line;
mod methods;
mod tls;
mod tokens;

use crate::support::{
    PATIENCE,
    certificates::{Authority, Signed},
    eventually,
    node::{Node, hostel},
    task, trial_needing,
};
use hostel::{
    ClientOptions, DistributedClient,
    client::{Error, Trouble},
    config::TokenHash,
    plugin::Sample,
};
use libtest_mimic::Trial;
use std::{fs, time::Duration};
use tonic::{Code, Status};

pub fn trials() -> Vec<Trial> {
    vec![
        trial_needing("access::beyond_loopback", true, tls::beyond_loopback),
        trial_needing("access::encrypted", true, tls::encrypted),
        trial_needing(
            "access::client_certificates",
            true,
            tls::client_certificates,
        ),
        trial_needing("access::certificates_replaced", true, tls::replaced),
        trial_needing(
            "access::the_end_of_a_certificate_is_told",
            true,
            tls::ends_are_told,
        ),
        trial_needing("access::silent_handshakes", true, tls::silent_handshakes),
        trial_needing("access::broken_files", true, tls::broken_files),
        trial_needing("access::tokens", true, tokens::tokens),
        trial_needing("access::tokens_file", true, tokens::tokens_file),
        trial_needing(
            "access::streams_end_with_their_token",
            true,
            tokens::streams_end_with_their_token,
        ),
        trial_needing("access::every_method", true, methods::every_method),
        trial_needing("access::command_line", true, command_line::places),
        trial_needing(
            "access::command_line_refusals",
            true,
            command_line::refusals,
        ),
        trial_needing("access::token_new", true, command_line::token_new),
    ]
}

const TLS: &str = "[tls]\ncert_file = \"node.pem\"\nkey_file = \"node.key\"\n";
const TOKENS: &str = "[auth]\ntokens_file = \"tokens\"\n";

/// What a client shows, and nobody else may ever read.
const TOKEN: &str = "hostel_7c1f0e5ecre7";

/// A node's directory with a certificate for this machine, one token of the name `ci`, and an echo.
fn prepared(settings: &str, authority: &Authority) -> Node {
    let node = Node::prepare(&[], settings);
    node.add_wasm("sample.wasm", &Sample::default().wasm().unwrap());
    here(authority).write(&node.path(""), "node");
    write_tokens(&node, &[("ci", TOKEN)]);
    node
}

fn here(authority: &Authority) -> Signed {
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

/// Of a node on whatever address, the one on loopback.
fn address(node: &Node) -> String {
    node.address().replace("0.0.0.0", "127.0.0.1")
}

/// A connection of its own.
async fn connect(node: &Node, options: ClientOptions) -> Result<DistributedClient, Error> {
    let client = DistributedClient::connect_with(&address(node), options).await?;
    Ok(client.with_patience(Duration::ZERO))
}

async fn works(client: &mut DistributedClient) {
    let echoed = client.submit_and_wait(task("sample", "over")).await;
    assert_eq!(echoed.unwrap().result, "over");
}

fn trouble(result: Result<DistributedClient, Error>) -> Option<Trouble> {
    match result {
        Err(Error::Unreachable { trouble, .. }) => trouble,
        other => panic!("{other:?}"),
    }
}

fn unauthenticated<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    let told = "`authorization: Bearer TOKEN`";
    assert!(status.message().contains(told), "{status}");
}
