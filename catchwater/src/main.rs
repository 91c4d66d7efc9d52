//! The binary: parse the command line, run one command, print one outcome.

mod cli;
mod command;
mod config;
mod http;
mod pipeline;
mod report;

use clap::Parser;
use cli::{Cli, Command};
use report::Done;
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
        _ => Ok(Done::silent()),
    };
    ExitCode::from(report::finish(name, output, outcome))
}
