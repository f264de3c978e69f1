//! The `twinlake` binary: one program for demo, service, pipelines, SQL and simulation.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a terminal program")]

mod apply;
mod arguments;
mod assets;
mod catalog;
mod check;
mod cluster;
mod demo;
mod events;
mod governance;
mod jobs;
mod members;
mod models;
mod pieces;
mod pipelines;
mod printed;
mod progress;
mod quality;
mod reprocess;
mod scenario;
mod schema;
mod serve;
mod settings;
mod shell;
mod simulate;
mod sql;
mod town;
mod upkeep;

use std::process::ExitCode;

use clap::Parser;
use twinlake_contracts::Error;

use crate::arguments::{Arguments, Command};
use crate::settings::Settings;

/// Done.
const DONE: u8 = 0;
/// The work failed.
const FAILED: u8 = 1;
/// The command line or a setting is wrong.
const WRONG_USE: u8 = 2;

/// The command line itself is at fault: exit code 2.
#[derive(Debug)]
pub(crate) struct WrongUse(pub(crate) Error);

impl std::fmt::Display for WrongUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for WrongUse {}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_logging(arguments.global.verbose);
    // Planning SQL recurses deeply; the default 2 MiB of a worker thread is not enough for wide queries.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(16 << 20).build();
    let outcome = match runtime {
        Ok(runtime) => {
            // The main future too runs on a worker with the deep stack.
            let outcome = runtime.block_on(async { tokio::spawn(run(arguments)).await });
            runtime.shutdown_timeout(std::time::Duration::from_secs(5));
            outcome.unwrap_or_else(|error| Err(anyhow::anyhow!("the command ended early: {error}")))
        }
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::from(DONE),
        Err(error) if is_broken_pipe(&error) => ExitCode::from(DONE),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<WrongUse>() { WRONG_USE } else { FAILED })
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let settings = Settings::resolve(&arguments.global)?;
    match arguments.command {
        Command::Demo(options) => demo::run(&settings, &options).await,
        Command::Serve(options) => serve::run(&settings, &options).await,
        Command::Scheduler(options) => cluster::scheduler(&options).await,
        Command::Executor(options) => cluster::executor(&options).await,
        Command::Run { files, once } => pipelines::run(&settings, &files, once).await,
        Command::Reprocess(options) => reprocess::run(&settings, &options).await,
        Command::Plan(options) => apply::plan(&settings, &options).await,
        Command::Apply(options) => apply::apply(&settings, &options).await,
        Command::Validate { files } => check::validate(&files).await,
        Command::Test { files } => check::test(&files).await,
        Command::Graph { file, dot } => check::graph(&file, dot),
        Command::Sql(options) => sql::run(&settings, &options).await,
        Command::Check(options) => quality::check(&settings, &options).await,
        Command::Catalog(command) => catalog::run(&settings, &command).await,
        Command::Simulate(options) => simulate::run(&settings, &options).await,
        Command::Scenario(command) => scenario::run(&settings, &command).await,
        Command::Table(command) => upkeep::run(&settings, &command).await,
        Command::Schema { what } => schema::print(what),
    }
}

/// `-v` shows what the program does, `-vv` why; warnings always show. `RUST_LOG` overrides.
fn start_logging(verbose: u8) {
    let level = match verbose {
        // The Delta kernel logs as errors what its callers expect, such as a table that is not there yet.
        0 => "warn,buoyant_kernel=off,delta_kernel=off,deltalake_core=error,ballista_core=off",
        1 => "info,ballista_core=warn,ballista_scheduler=warn,ballista_executor=warn",
        2 => "info,twinlake=debug",
        _ => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(verbose > 1)
        .init();
}

/// A reader that goes away (`| head`) is not a failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
