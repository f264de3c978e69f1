//! `cargo xtask ci | test | bench | bless | gen`: the chores of the project, the same here and on CI.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a terminal program")]

mod bench;
mod dependencies;
mod generate;
mod run;
mod setup;
mod test;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The chores of the project")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Everything that CI checks: format, lints, dependency picture, generated files, all tests.
    Ci,
    /// Sets up what the tests need on a Debian machine (says what it installs), then runs all of them.
    Test {
        /// Also run the long fault tests.
        #[arg(long)]
        long: bool,
        /// Install nothing; a missing program fails the tests that need it.
        #[arg(long)]
        no_setup: bool,
    },
    /// Runs one benchmark against its peers and prints the figures.
    Bench {
        /// Which one; without a name the list is shown.
        name: Option<String>,
    },
    /// Accepts what the programs print now as the expected output of snapshot and SQL tests.
    Bless,
    /// Writes the generated files (JSON Schema, OpenAPI); with `--check` only compares.
    Gen {
        /// Fail when a generated file is stale instead of writing it.
        #[arg(long)]
        check: bool,
    },
    /// Checks that the crates depend on one another only as ARCHITECTURE.md draws it.
    Dependencies,
}

fn main() -> Result<()> {
    match Arguments::parse().chore {
        Chore::Ci => test::ci(),
        Chore::Test { long, no_setup } => test::test(long, !no_setup),
        Chore::Bench { name } => bench::bench(name.as_deref()),
        Chore::Bless => test::bless(),
        Chore::Gen { check } => generate::generate(check),
        Chore::Dependencies => dependencies::check(),
    }
}
