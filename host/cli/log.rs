//! The log of a node, on stderr: one line an event, whatever the texts in it hold. Guests, clients,
//! files and other nodes have their say in it, and none of them can forge a line or move a terminal.

use crate::untrusted::OneLine;
use std::{
    fmt::{self, Write},
    io::{self, IsTerminal},
};
use tracing_subscriber::{
    EnvFilter,
    field::MakeExt,
    fmt::format::{self, Writer},
};

/// Logs what `RUST_LOG` asks for, else what `default` does.
pub fn start(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .fmt_fields(format::debug_fn(field).delimited(" "))
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(io::stderr)
        .init();
}

/// `message`, or `name=value`.
fn field(
    out: &mut Writer<'_>,
    field: &tracing::field::Field,
    value: &dyn fmt::Debug,
) -> fmt::Result {
    match field.name() {
        "message" => {}
        // What the `log` crate adds of its own.
        name if name.starts_with("log.") => return Ok(()),
        name if out.has_ansi_escapes() => write!(out, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?,
        name => write!(out, "{name}=")?,
    }
    write!(OneLine(out), "{value:?}")
}
