//! Runs the tests: everything, the same way on a desk and on CI.

use anyhow::Result;

use crate::run::{cargo, run};
use crate::{dependencies, generate, setup};

/// All tests of the workspace, with what they need installed first.
pub fn test(long: bool, install: bool) -> Result<()> {
    if install {
        setup::setup()?;
    }
    run(cargo().args(["build", "--workspace", "--bins"]))?;
    let mut command = cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]);
    environment(&mut command);
    if long {
        command.env("TWINLAKE_LONG", "1");
    }
    run(&mut command)
}

/// Format, lints, dependency picture, generated files, tests.
pub fn ci() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    dependencies::check()?;
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    generate::generate(true)?;
    test(false, true)
}

/// Accepts present output: SQL golden files and snapshots.
pub fn bless() -> Result<()> {
    let mut command = cargo();
    command.args(["test", "--workspace", "--no-fail-fast"]).env("BLESS", "1").env("INSTA_UPDATE", "always");
    environment(&mut command);
    run(&mut command)?;
    generate::generate(false)
}

fn environment(command: &mut std::process::Command) {
    command.env("TWINLAKE_PYTHON", setup::python_environment().join("bin/python"));
    command.env("TWINLAKE_NODE_MODULES", setup::node_environment().join("node_modules"));
    // Debug builds of the SQL planner recurse deeply.
    command.env("RUST_MIN_STACK", "16777216");
}
