//! Which node a command talks to, and how: flags over the environment over the client file. Every
//! command that asks a node has these.

use super::exit::Failure;
use crate::{
    client::{ClientOptions, DistributedClient, Error},
    config::Secret,
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

/// Which node a command talks to.
#[derive(Debug, Clone, Args)]
pub struct Server {
    #[command(flatten)]
    flags: Given,
    /// The file that has server, ca_file, cert_file, key_file and token_file for all commands
    /// [default: hostel/client.toml in the XDG configuration directory] [env: HOSTEL_CLIENT]
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    client_file: Option<PathBuf>,
}

const HEADING: &str = "Options for the connection";

/// What one of the three places says. Not clap's own variables: it would show a token in its help,
/// and could not let a flag win over another setting's variable.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[group(skip)]
struct Given {
    /// The node to talk to; https:// for TLS [default: http://127.0.0.1:50051] [env: HOSTEL_SERVER]
    #[arg(long, value_name = "ADDRESS", help_heading = HEADING)]
    server: Option<String>,
    /// Who signs the node's certificate (PEM) [default: whom this machine trusts] [env:
    /// HOSTEL_CA_FILE]
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    ca_file: Option<PathBuf>,
    /// The certificate to show to a node that asks for one (PEM) [env: HOSTEL_CERT_FILE]
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    cert_file: Option<PathBuf>,
    /// The certificate's key (PEM) [env: HOSTEL_KEY_FILE]
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    key_file: Option<PathBuf>,
    /// The file that holds the token [env: HOSTEL_TOKEN_FILE]
    #[arg(long, value_name = "FILE", help_heading = HEADING, conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// The token itself. Everybody on this machine can see it in the list of processes: rather use
    /// --token-file [env: HOSTEL_TOKEN]
    #[arg(long, value_name = "TOKEN", help_heading = HEADING, value_parser = secret)]
    // Not in a file that is likely to be copied along with everything else.
    #[serde(skip)]
    token: Option<Secret>,
}

fn secret(given: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(given))
}

impl Server {
    /// A command line wants its answer now: a node that is not there is said at once.
    pub async fn connect(&self) -> Result<DistributedClient, Failure> {
        let given = self.flags.clone().over(Given::environment()?);
        let given = given.over(self.client_file()?);
        let address = given.server.clone().unwrap_or_else(|| DEFAULT.to_owned());
        let connected = DistributedClient::connect_with(&address, given.options()?).await;
        Ok(connected?.with_patience(Duration::ZERO))
    }

    fn client_file(&self) -> Result<Given, Failure> {
        let named = match &self.client_file {
            Some(file) => Some(file.clone()),
            None => variable("HOSTEL_CLIENT")?.map(PathBuf::from),
        };
        if let Some(file) = named {
            return Given::read(&file);
        }
        let user = etcetera::choose_base_strategy().ok();
        let usual = user.map(|user| user.config_dir().join("hostel/client.toml"));
        match usual.filter(|file| file.exists()) {
            Some(file) => Given::read(&file),
            None => Ok(Given::default()),
        }
    }
}

impl Given {
    fn environment() -> Result<Self, Failure> {
        let path = |name| variable(name).map(|value| value.map(PathBuf::from));
        let given = Self {
            server: variable("HOSTEL_SERVER")?,
            ca_file: path("HOSTEL_CA_FILE")?,
            cert_file: path("HOSTEL_CERT_FILE")?,
            key_file: path("HOSTEL_KEY_FILE")?,
            token_file: path("HOSTEL_TOKEN_FILE")?,
            token: variable("HOSTEL_TOKEN")?.map(Secret::new),
        };
        match given.token.is_some() && given.token_file.is_some() {
            true => Err(Failure::usage(
                "HOSTEL_TOKEN and HOSTEL_TOKEN_FILE are both set; unset one",
            )),
            false => Ok(given),
        }
    }

    /// Relative paths start at the file.
    fn read(file: &Path) -> Result<Self, Failure> {
        let wrong = |problem: String| Failure::usage(format!("{}: {problem}", file.display()));
        let text = std::fs::read_to_string(file)
            .map_err(|error| wrong(format!("cannot be read: {error}")))?;
        let mut given: Self = toml::from_str(&text).map_err(|error| {
            let before = &text[..error.span().map_or(0, |span| span.start)];
            let line = before.matches('\n').count() + 1;
            wrong(format!("line {line}: {}", error.message()))
        })?;
        let dir = file.parent().unwrap_or(Path::new(""));
        for path in [
            &mut given.ca_file,
            &mut given.cert_file,
            &mut given.key_file,
            &mut given.token_file,
        ] {
            *path = path.take().map(|path| dir.join(path));
        }
        Ok(given)
    }

    /// What is not said here is what `lower` says. A token and a file for it are one matter.
    fn over(self, lower: Self) -> Self {
        let (token, token_file) = match self.token.is_some() || self.token_file.is_some() {
            true => (self.token, self.token_file),
            false => (lower.token, lower.token_file),
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

    fn options(self) -> Result<ClientOptions, Failure> {
        let mut options = ClientOptions::new();
        if let Some(file) = self.ca_file {
            options = options.ca_file(file);
        }
        match (self.cert_file, self.key_file) {
            (None, None) => {}
            (Some(cert), Some(key)) => options = options.identity_files(cert, key),
            (Some(_), None) => return Err(Failure::usage(half("--key-file", "HOSTEL_KEY_FILE"))),
            (None, Some(_)) => return Err(Failure::usage(half("--cert-file", "HOSTEL_CERT_FILE"))),
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

fn half(flag: &str, variable: &str) -> String {
    format!("a certificate and its key go together; give the other with {flag} or {variable}")
}

/// An empty variable is how scripts say none.
fn variable(name: &str) -> Result<Option<String>, Failure> {
    let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let value = value.into_string();
    value
        .map(Some)
        .map_err(|_| Failure::usage(format!("{name} is not Unicode")))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Unreachable {
                address,
                trouble,
                source,
            } => Self::unreachable(&address, trouble, &source),
            Error::OtherKey { .. } => Self::usage(format!(
                "{error}; give the two that belong together with --cert-file and --key-file"
            )),
            // As long as there has been --server, scripts have seen both alike.
            Error::Address { .. } => Self::nowhere(error),
            other => Self::usage(other),
        }
    }
}
