//! The binary: parse the command line, run one command, print one outcome.

mod cli;
mod command;
mod config;
mod http;
mod pipeline;
mod report;

use clap::Parser;
use cli::{Cli, Command};
use report::{Done, Exit, Failure};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { 2 } else { 0 });
        }
    };
    let (name, output) = (cli.command.name(), cli.output);
    let outcome = match cli.command {
        Command::Validate { file, allow_plain_secrets } => command::validate::run(&file, allow_plain_secrets, output),
        Command::Explain { code } => command::explain::run(&code),
        Command::Version => Ok(command::version::run()),
        Command::Topic(topic) => block_on(command::topic::run(topic, output)),
        Command::Group(group) => block_on(command::group::run(group)),
        Command::Lag { http, watch } => block_on(command::group::lag(&http, watch, output)),
        _ => Ok(Done::silent()),
    };
    ExitCode::from(report::finish(name, output, outcome))
}

/// A small runtime for a command that asks a node.
fn block_on(work: impl Future<Output = Result<Done, Failure>>) -> Result<Done, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(e) => Err(Failure::new(Exit::Environment, "CW0011", "cannot start the runtime").cause(e.to_string())),
    }
}
