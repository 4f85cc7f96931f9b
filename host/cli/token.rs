//! `hostel token`: generates tokens. They are not stored; a node accepts those whose hashes are in its
//! configuration.

use super::{
    error::CliError,
    output::{print_json, print_note},
};
use crate::{config::TokenHash, task::Name};
use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;

/// The prefix of tokens, by which people and secret scanners recognise them.
const PREFIX: &str = "hostel_";

/// The random bytes of a token.
const BYTES: usize = 32;

#[derive(Debug, Args)]
pub struct Token {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Generate a token
    ///
    /// Prints the token on stdout, for the client, and on stderr the line for the file that the node's
    /// auth.tokens_file names. The token is not stored anywhere.
    New {
        /// The name of the client in the node's log
        name: String,
        /// Print name, token and sha256 as JSON
        #[arg(long)]
        json: bool,
    },
}

impl Token {
    pub fn run(self) -> Result<(), CliError> {
        let TokenCommand::New { name, json } = self.command;
        let name = Name::parse("token name", &name).map_err(CliError::usage)?;
        let token = new_token()?;
        let hash = TokenHash::of(token.as_bytes()).to_string();
        if json {
            print_json(&json!({ "name": name.as_str(), "token": token, "sha256": hash }));
            return Ok(());
        }
        print_line!("{token}");
        print_note(format_args!("{name} {hash}"));
        Ok(())
    }
}

fn new_token() -> anyhow::Result<String> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).context("the system provides no random numbers")?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{PREFIX}{digits}"))
}
