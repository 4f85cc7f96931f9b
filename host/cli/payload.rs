//! Bytes in from wherever the caller has them, and bytes out as they are.

use super::exit::Failure;
use anyhow::Context;
use clap::Args;
use std::{
    io::{IsTerminal, Read, Write},
    path::PathBuf,
};

/// What to send.
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
    pub fn read(&self) -> Result<Vec<u8>, Failure> {
        self.bytes()
            .map_err(|error| Failure::usage(format!("{error:#}")))
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

/// These bytes on stdout and nothing else.
pub fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| {
        // A person's prompt should not stick to the result; a program gets the bytes alone.
        if std::io::stdout().is_terminal() && !bytes.ends_with(b"\n") {
            out.write_all(b"\n")?;
        }
        out.flush()
    });
    written
        .context("cannot write the result")
        .map_err(Failure::node)
}
