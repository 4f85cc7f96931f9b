//! The command line: one file a command. Talks to a node through `client` like everybody else;
//! only `serve` and `demo` hold a node themselves.

/// `println!` for commands: one printable line, and a reader that has gone (`| head`) is no panic.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::output::line(format_args!($($text)*)) };
}

mod build;
mod compile;
mod components;
mod config;
mod config_watch;
mod demo;
mod exit;
mod inspection;
mod log;
mod nodes;
mod output;
mod payload;
mod plugins;
mod send;
mod serve;
mod server;
mod submit;
mod tasks;
mod token;

use clap::{Args, Parser, Subcommand};
use exit::Failure;
use server::Server;
use std::{path::PathBuf, process::ExitCode, time::Duration};

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  the task failed or was cancelled, a check found faults, or the node failed
  2  the command line or the configuration is wrong
  3  the node cannot be reached, or cannot do it now
  4  the node refused the request
  5  the node ended because a part of it failed; start it again

Environment:
  HOSTEL_SERVER            the node to talk to, as --server
  HOSTEL_TOKEN             the token to show; or its file, HOSTEL_TOKEN_FILE
  HOSTEL_CA_FILE           who signs the node's certificate, as --ca-file
  HOSTEL_CERT_FILE, HOSTEL_KEY_FILE
                           the certificate to show, as --cert-file and --key-file
  HOSTEL_CLIENT            the file with all of these, as --client-file
  HOSTEL__SECTION__KEY     any setting, above the configuration file
  RUST_LOG                 what the node logs, such as info or hostel=debug
  NO_COLOR                 no colours";

/// A node that hosts WebAssembly plugins.
#[derive(Debug, Parser)]
#[command(name = "hostel", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Demo(demo::Demo),
    Submit(submit::Submit),
    /// Look at tasks, cancel or requeue them
    Tasks(tasks::Tasks),
    Send(send::Send),
    /// List the components of a node
    Components(components::Components),
    /// List what a node hosts; inspect, verify and build plugin files
    Plugins(plugins::Plugins),
    /// List the nodes of the cluster, drain them
    Nodes(nodes::Nodes),
    /// Make a token that lets a client in
    Token(token::Token),
    /// Show or check the configuration
    Config(config::ConfigCommand),
    #[command(hide = true)]
    Tied(demo::Tied),
    #[command(hide = true)]
    CompilePlugin(compile::CompilePlugin),
}

/// Which configuration a command works with.
#[derive(Debug, Clone, Default, Args)]
struct ConfigFile {
    /// The configuration file [default: ./hostel.toml, then hostel/hostel.toml in the XDG
    /// configuration directory, then the built-in defaults]
    // Not by the field's name: commands have a file of their own.
    #[arg(id = "config", long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
}

impl ConfigFile {
    /// The file that is read, if there is one.
    fn path(&self) -> Option<PathBuf> {
        self.file.clone().or_else(crate::config::locate)
    }

    /// The configuration of a node that runs in this program.
    fn load(&self) -> Result<crate::Config, Failure> {
        self.read().map(compile::by_this_program)
    }

    /// The configuration as it stands in the file.
    fn read(&self) -> Result<crate::Config, Failure> {
        crate::Config::load(self.file.as_deref(), crate::config::environment())
            .map_err(Failure::usage)
    }
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Before there are threads: it becomes another program.
    if let Command::Tied(tied) = cli.command {
        return tied.run().report();
    }
    // Before there are threads, too: it takes its rights away.
    if let Command::CompilePlugin(compile) = &cli.command {
        return compile.run();
    }
    log::start(match cli.command {
        Command::Serve(_) | Command::Demo(_) => "info",
        // What these have to say they print; built-in hostile guests should not add to it.
        _ => "warn,hostel::guest=off",
    });
    let runtime = match crate::node::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::node(error.into()).report(),
    };
    let done = runtime.block_on(async {
        match cli.command {
            Command::Serve(serve) => tokio::select! {
                done = serve.run() => done,
                never = serve.watch_config() => match never {},
            },
            Command::Demo(demo) => demo.run().await,
            Command::Submit(submit) => submit.run().await,
            Command::Tasks(tasks) => tasks.run().await,
            Command::Send(send) => send.run().await,
            Command::Components(components) => components.run().await,
            Command::Plugins(plugins) => plugins.run().await,
            Command::Nodes(nodes) => nodes.run().await,
            Command::Token(token) => token.run(),
            Command::Config(config) => config.run(),
            Command::Tied(_) | Command::CompilePlugin(_) => Ok(()),
        }
    });
    // Whatever still blocks (a read of stdin, say) must not hold the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn no_command_names_two_arguments_alike() {
        Cli::command().debug_assert();
    }
}
