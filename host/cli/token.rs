//! `hostel token`: makes tokens. Where they are let in is for the node's configuration to say; what
//! this prints once is kept nowhere.

use super::{
    exit::Failure,
    output::{note, print_json},
};
use crate::{config::TokenHash, task::Name};
use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;

/// So that people, and programs that look for secrets in sources, know one when they see it.
const PREFIX: &str = "hostel_";

/// As many as nobody can try.
const BYTES: usize = 32;

#[derive(Debug, Args)]
pub struct Token {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token
    ///
    /// Prints the token on stdout, and on stderr the line that lets it in, for the file that the
    /// node's auth.tokens_file names. The token itself is for the client and is kept nowhere.
    New {
        /// What the node's log calls whoever shows it
        name: String,
        /// Print name, token and sha256 as JSON instead
        #[arg(long)]
        json: bool,
    },
}

impl Token {
    pub fn run(self) -> Result<(), Failure> {
        let TokenCommand::New { name, json } = self.command;
        let name = Name::parse("token name", &name).map_err(Failure::usage)?;
        let token = new_token()?;
        let hash = TokenHash::of(token.as_bytes()).to_string();
        if json {
            print_json(&json!({ "name": name.as_str(), "token": token, "sha256": hash }));
            return Ok(());
        }
        say!("{token}");
        note(format_args!("{name} {hash}"));
        Ok(())
    }
}

fn new_token() -> anyhow::Result<String> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).context("the system has no random numbers")?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{PREFIX}{digits}"))
}
