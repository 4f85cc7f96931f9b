//! The payload arguments of `submit` and `send`.

use super::error::CliError;
use anyhow::Context;
use clap::Args;
use std::{io::Read, path::PathBuf};

/// The source of a payload: stdin, an argument or a file; empty without any.
#[derive(Debug, Args)]
pub struct Payload {
    /// `-` reads the payload from stdin
    #[arg(value_name = "-", value_parser = ["-"], conflicts_with_all = ["payload", "file"])]
    stdin: Option<String>,
    /// The payload, as text
    #[arg(
        long,
        value_name = "TEXT",
        conflicts_with = "file",
        allow_hyphen_values = true
    )]
    payload: Option<String>,
    /// The file that holds the payload
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Payload {
    /// Reads the payload from its source.
    pub fn read(&self) -> Result<Vec<u8>, CliError> {
        self.bytes()
            .map_err(|error| CliError::usage(format!("{error:#}")))
    }

    fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        if let Some(text) = &self.payload {
            return Ok(text.clone().into_bytes());
        }
        if let Some(file) = &self.file {
            return std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
        }
        let mut payload = Vec::new();
        if self.stdin.is_some() {
            std::io::stdin().read_to_end(&mut payload)?;
        }
        Ok(payload)
    }
}
