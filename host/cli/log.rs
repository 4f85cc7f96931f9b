//! The log of a node, on stderr, one line per event. Texts of guests, clients, files and other nodes are
//! escaped, so that they can neither forge a line nor control a terminal.

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

/// Starts logging with the filter in `RUST_LOG`, else with `default`.
pub fn start(default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .fmt_fields(format::debug_fn(field).delimited(" "))
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(io::stderr)
        // A line that cannot be written is dropped: reporting that on stderr would fail as well, and panic.
        .log_internal_errors(false)
        .init();
}

/// Writes the message, or another field as `name=value`.
fn field(
    out: &mut Writer<'_>,
    field: &tracing::field::Field,
    value: &dyn fmt::Debug,
) -> fmt::Result {
    match field.name() {
        "message" => {}
        // Fields that the `log` crate adds.
        name if name.starts_with("log.") => return Ok(()),
        name if out.has_ansi_escapes() => write!(out, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?,
        name => write!(out, "{name}=")?,
    }
    write!(OneLine(out), "{value:?}")
}
