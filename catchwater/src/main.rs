//! The binary: parse the command line, run one command, print one outcome.

mod assemble;
mod audit;
mod cli;
mod command;
mod config;
mod connect;
mod groups;
mod http;
mod live;
mod metrics;
mod observe;
mod pipeline;
mod report;
mod rows;
mod screen;
mod signal;

use clap::Parser;
use cli::{Cli, Command};
use command::node::Ended;
use report::{Done, Exit, Failure};
use std::process::ExitCode;

fn main() -> ExitCode {
    catchwater_runtime::memory::bound_arenas();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) if e.use_stderr() => {
            if cli::wants_json(std::env::args_os()) {
                let failure = Failure::new(Exit::Refused, "CW0015", cli::first_line(&e.to_string()))
                    .cause(e.render().to_string().trim_end().to_owned())
                    .next("catchwater --help, or catchwater VERB --help");
                return ExitCode::from(report::finish("", report::Output::Json, Err(failure)));
            }
            let _ = e.print();
            return ExitCode::from(2);
        }
        // Help and version.
        Err(e) => {
            report::print(&e.render().to_string());
            return ExitCode::SUCCESS;
        }
    };
    observe::start_crash_points();
    let (name, output) = (cli.command.name(), cli.output);
    let ended: Ended = match cli.command {
        Command::Validate { file, allow_plain_secrets } => {
            command::validate::run(&file, allow_plain_secrets, output).into()
        }
        Command::Test { file, only } => {
            block_on(async { command::test::run(&file, only.as_deref(), output).await.into() })
        }
        Command::Explain { code } => command::explain::run(&code).into(),
        Command::Storage(storage) => command::storage::run(&storage, output).into(),
        Command::Version => Ok(command::version::run()).into(),
        Command::Topic(topic) => block_on(async { command::topic::run(topic, output).await.into() }),
        Command::Group(group) => block_on(async { command::group::run(group).await.into() }),
        Command::Plan { file, http } => block_on(async { command::pipeline::plan(&file, &http, output).await.into() }),
        Command::Apply { mut files, mut file, plan_hash, message, allow_destructive, dry_run, http } => {
            files.append(&mut file);
            block_on(async {
                if dry_run {
                    return command::pipeline::plan_all(&files, &http, output).await.into();
                }
                let args = command::pipeline::Apply { files: &files, hash: plan_hash, message, allow_destructive };
                command::pipeline::apply(args, &http, output).await.into()
            })
        }
        Command::Diff { file, http } => block_on(async { command::pipeline::diff(&file, &http, output).await.into() }),
        Command::Rollback { name, to, message, allow_destructive, http } => {
            block_on(async { command::pipeline::rollback(&name, to, message, allow_destructive, &http).await.into() })
        }
        Command::Pipeline(pipeline) => block_on(async { command::pipeline::run(pipeline).await.into() }),
        Command::Dlq(dlq) => block_on(async { command::dlq::run(dlq).await.into() }),
        Command::Audit(audit) => block_on(async { command::audit::run(audit, output).await.into() }),
        Command::Lag { http, watch } => block_on(command::group::lag(&http, watch, output)),
        Command::Sink(sink) => block_on(async { command::sink::run(sink).await.into() }),
        Command::Tap(args) => block_on(async { command::tap::run(args, output).await.into() }),
        Command::Top(args) => block_on(command::top::run(args, output)),
        Command::Wait(args) => block_on(async { command::wait::run(args).await.into() }),
        Command::Import(cli::Import::Connect(args)) => block_on(async { command::import::connect(args).await.into() }),
        Command::Start(args) => block_on(command::node::start(args)),
        Command::Dev(args) => block_on(command::node::dev(args, output)),
        Command::Doctor { file, node } => block_on(async { command::doctor::run(file.as_deref(), &node).await.into() }),
    };
    let code = report::finish(name, output, ended.outcome);
    ExitCode::from(if code == 0 { ended.signal.unwrap_or(0) } else { code })
}

impl From<Result<Done, Failure>> for Ended {
    fn from(outcome: Result<Done, Failure>) -> Self {
        Ended { outcome, signal: None }
    }
}

/// One runtime for the command.
fn block_on(work: impl Future<Output = Ended>) -> Ended {
    match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("catchwater").build() {
        Ok(runtime) => {
            let ended = runtime.block_on(work);
            runtime.shutdown_timeout(std::time::Duration::from_millis(200));
            ended
        }
        Err(e) => Failure::new(Exit::Environment, "CW0011", "cannot start the runtime").cause(e.to_string()).into(),
    }
}
