//! The command line, one file per command. Commands call a node through `client`; only `serve` and
//! `demo` run a node themselves.

/// Prints a single line on stdout; see `output::print_line`.
macro_rules! print_line {
    ($($text:tt)*) => { $crate::cli::output::print_line(format_args!($($text)*)) };
}

mod build;
mod compile;
mod components;
mod config;
mod config_args;
mod config_watcher;
mod connection;
mod demo;
mod die_with_parent;
mod error;
mod inspection;
mod json;
mod log;
mod many;
mod metadata;
mod nodes;
mod output;
mod payload;
mod plugins;
mod schedules;
mod send;
mod serve;
mod signals;
mod submit;
mod task_actions;
mod task_filter;
mod task_options;
mod task_progress;
mod task_reads;
mod tasks;
mod token;
mod type_limits;
mod type_pauses;
mod types;

use clap::{Parser, Subcommand};
use error::CliError;
use std::{process::ExitCode, time::Duration};

const AFTER_HELP: &str = "\
Exit codes:
  0  done
  1  the task failed or was cancelled, a message was not delivered or was answered with an error, a
     plugin has errors or cannot be built, or the node is not serving or failed
  2  the command line or the configuration is invalid, also in `config check`
  3  the node cannot be reached or is unavailable, or did not answer in time: it is not known whether
     it did what was requested
  4  the node refused the request
  5  the node ended because a part of it failed; start it again
  130  a second signal ended the node at once

Environment:
  HOSTEL_SERVER            the address of the node, as --server
  HOSTEL_TOKEN             the token of the client; HOSTEL_TOKEN_FILE names its file
  HOSTEL_CA_FILE           the CA of the node's certificate, as --ca-file
  HOSTEL_CERT_FILE, HOSTEL_KEY_FILE
                           the client's certificate, as --cert-file and --key-file
  HOSTEL_CLIENT            a file with all of these but the token itself, as --client-file
  HOSTEL__SECTION__KEY     any setting of the node; overrides the configuration file
  RUST_LOG                 the log level of the node, such as info or hostel=debug
  NO_COLOR                 disables colours";

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
    Submit(Box<submit::Submit>),
    /// Show, explain, watch, list, cancel, requeue, purge or hasten tasks
    Tasks(tasks::Tasks),
    Send(send::Send),
    /// List the components of a node
    Components(components::Components),
    /// List the plugins of a node; inspect, verify and build plugin files
    Plugins(plugins::Plugins),
    /// List, drain or undrain the nodes of the cluster; show a node's health
    Nodes(nodes::Nodes),
    /// Create, list, pause, resume, run or delete schedules
    Schedules(schedules::Schedules),
    /// List task types, change their limits, pause or resume them
    Types(types::Types),
    /// Generate a token for a client
    Token(token::Token),
    /// Show or check the configuration
    Config(config::Configuration),
    #[command(hide = true)]
    DieWithParent(die_with_parent::DieWithParent),
    #[command(hide = true)]
    CompilePlugin(compile::CompilePlugin),
}

/// Parses the arguments and runs the command.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // These two have to run before there are threads: one becomes another program,
    if let Command::DieWithParent(command) = cli.command {
        return command.run().report();
    }
    // and the other gives up its permissions.
    if let Command::CompilePlugin(compile) = &cli.command {
        return compile.run();
    }
    log::start(match cli.command {
        Command::Serve(_) | Command::Demo(_) => "info",
        // These print their results; the log of `plugins verify --self` would only distract.
        _ => "warn,hostel::guest=off",
    });
    let runtime = match crate::node::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return CliError::from(anyhow::Error::from(error)).report(),
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
            Command::Schedules(schedules) => schedules.run().await,
            Command::Types(types) => types.run().await,
            Command::Token(token) => token.run(),
            Command::Config(config) => config.run(),
            Command::DieWithParent(_) | Command::CompilePlugin(_) => Ok(()),
        }
    });
    // A thread that blocks, such as a read of stdin, must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_of_each_command_are_distinct() {
        Cli::command().debug_assert();
    }
}
