//! The connection options of the commands that call a node. Arguments override the environment, which
//! overrides the client file.

use super::error::CliError;
use crate::{
    client::{ClientOptions, DistributedClient, Error},
    config::{self, Secret},
};
use clap::Args;
use etcetera::BaseStrategy;
use serde::Deserialize;
use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    time::Duration,
};

const DEFAULT: &str = "http://127.0.0.1:50051";

/// The address of the node and how to connect to it.
#[derive(Debug, Clone, Args)]
pub struct ConnectionArgs {
    #[command(flatten)]
    arguments: Options,
    /// A file with server, ca_file, cert_file, key_file and token_file for all commands
    /// [default: hostel/client.toml in the XDG configuration directory] [env: HOSTEL_CLIENT]
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    client_file: Option<PathBuf>,
}

const HEADING: &str = "Options for the connection";

/// The options that one source gives. Clap's own support for environment variables is not used: it
/// would print a token in its help, and --token could not override HOSTEL_TOKEN_FILE.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[group(skip)]
struct Options {
    /// The address of the node; https:// for TLS [default: http://127.0.0.1:50051] [env: HOSTEL_SERVER]
    #[arg(long, value_name = "ADDRESS", help_heading = HEADING)]
    server: Option<String>,
    /// The CA that signs the node's certificate (PEM) [default: the CAs that this machine trusts]
    /// [env: HOSTEL_CA_FILE]
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    ca_file: Option<PathBuf>,
    /// The client's certificate, for a node that asks for one (PEM) [env: HOSTEL_CERT_FILE]
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    cert_file: Option<PathBuf>,
    /// The certificate's key (PEM) [env: HOSTEL_KEY_FILE]
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    key_file: Option<PathBuf>,
    /// The file that holds the token [env: HOSTEL_TOKEN_FILE]
    #[arg(long, value_name = "FILE", help_heading = HEADING, conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// The token itself. It is visible in the list of processes; prefer --token-file
    /// [env: HOSTEL_TOKEN]
    #[arg(long, value_name = "TOKEN", help_heading = HEADING, value_parser = secret)]
    // Not in the client file, which is likely to be copied.
    #[serde(skip)]
    token: Option<Secret>,
}

fn secret(given: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(given))
}

impl ConnectionArgs {
    /// Connects to the node. Fails at once if it cannot be reached.
    pub async fn connect(&self) -> Result<DistributedClient, CliError> {
        let options = self.arguments.clone().or(Options::from_env()?);
        let options = options.or(self.client_file()?);
        let address = options.server.clone().unwrap_or_else(|| DEFAULT.to_owned());
        let connected = DistributedClient::connect_with(&address, options.for_client()?).await;
        Ok(connected?.with_retry_timeout(Duration::ZERO))
    }

    /// Reads the client file, if there is one.
    fn client_file(&self) -> Result<Options, CliError> {
        let named = match &self.client_file {
            Some(file) => Some(file.clone()),
            None => variable("HOSTEL_CLIENT")?.map(PathBuf::from),
        };
        if let Some(file) = named {
            return Options::read(&file);
        }
        let user = etcetera::choose_base_strategy().ok();
        let default = user.map(|user| user.config_dir().join("hostel/client.toml"));
        match default.filter(|file| config::exists(file)) {
            Some(file) => Options::read(&file),
            None => Ok(Options::default()),
        }
    }
}

impl Options {
    fn from_env() -> Result<Self, CliError> {
        let path = |name| variable(name).map(|value| value.map(PathBuf::from));
        let options = Self {
            server: variable("HOSTEL_SERVER")?,
            ca_file: path("HOSTEL_CA_FILE")?,
            cert_file: path("HOSTEL_CERT_FILE")?,
            key_file: path("HOSTEL_KEY_FILE")?,
            token_file: path("HOSTEL_TOKEN_FILE")?,
            token: variable("HOSTEL_TOKEN")?.map(Secret::new),
        };
        if options.token.is_some() && options.token_file.is_some() {
            return Err(CliError::usage(
                "HOSTEL_TOKEN and HOSTEL_TOKEN_FILE are both set; unset one",
            ));
        }
        Ok(options)
    }

    /// Reads a client file. Relative paths in it start at its directory.
    fn read(file: &Path) -> Result<Self, CliError> {
        let invalid = |problem: String| CliError::usage(format!("{}: {problem}", file.display()));
        let text = std::fs::read_to_string(file)
            .map_err(|error| invalid(format!("cannot be read: {error}")))?;
        let mut options: Self = toml::from_str(&text).map_err(|error| {
            let before = &text[..error.span().map_or(0, |span| span.start)];
            let line = before.matches('\n').count() + 1;
            invalid(format!("line {line}: {}", error.message()))
        })?;
        let dir = file.parent().unwrap_or(Path::new(""));
        for path in [
            &mut options.ca_file,
            &mut options.cert_file,
            &mut options.key_file,
            &mut options.token_file,
        ] {
            *path = path.take().map(|path| dir.join(path));
        }
        Ok(options)
    }

    /// Returns these options, with those of `lower` where they are absent. A token and its file count
    /// as one option.
    fn or(self, lower: Self) -> Self {
        let (token, token_file) = if self.token.is_some() || self.token_file.is_some() {
            (self.token, self.token_file)
        } else {
            (lower.token, lower.token_file)
        };
        Self {
            server: self.server.or(lower.server),
            ca_file: self.ca_file.or(lower.ca_file),
            cert_file: self.cert_file.or(lower.cert_file),
            key_file: self.key_file.or(lower.key_file),
            token_file,
            token,
        }
    }

    fn for_client(self) -> Result<ClientOptions, CliError> {
        let mut options = ClientOptions::new();
        if let Some(file) = self.ca_file {
            options = options.ca_file(file);
        }
        match (self.cert_file, self.key_file) {
            (None, None) => {}
            (Some(cert), Some(key)) => options = options.identity_files(cert, key),
            (Some(_), None) => {
                return Err(CliError::usage(missing_half(
                    "--key-file",
                    "HOSTEL_KEY_FILE",
                )));
            }
            (None, Some(_)) => {
                return Err(CliError::usage(missing_half(
                    "--cert-file",
                    "HOSTEL_CERT_FILE",
                )));
            }
        }
        if let Some(token) = self.token {
            options = options.token(token.reveal());
        }
        if let Some(file) = self.token_file {
            options = options.token_file(file);
        }
        Ok(options)
    }
}

fn missing_half(flag: &str, variable: &str) -> String {
    format!(
        "a certificate needs its key and vice versa; give the other one with {flag} or {variable}"
    )
}

/// Returns an environment variable. Scripts use an empty one for none.
fn variable(name: &str) -> Result<Option<String>, CliError> {
    let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let value = value.into_string();
    value
        .map(Some)
        .map_err(|_| CliError::usage(format!("{name} is not Unicode")))
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        match error {
            Error::Unreachable {
                address,
                tls,
                source,
            } => Self::unreachable(&address, tls, &source),
            Error::KeyMismatch { .. } => Self::usage(format!(
                "{error}; give a certificate and its own key with --cert-file and --key-file"
            )),
            // Scripts rely on the same exit code as that of an unreachable node.
            Error::Address { .. } => Self::bad_address(error),
            other => Self::usage(other),
        }
    }
}
