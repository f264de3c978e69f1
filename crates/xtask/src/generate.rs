//! The generated files: written by the program itself, compared on CI.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{cargo, root, run};
use crate::setup::target;

/// File, arguments of `twinlake schema` that print it.
const FILES: &[(&str, &str)] = &[
    ("schemas/pipeline.schema.json", "pipeline"),
    ("schemas/table.schema.json", "table"),
    ("schemas/openapi.json", "openapi"),
    ("docs/sql-functions.md", "functions"),
];

/// Writes each file, or with `check` fails when one is stale.
pub fn generate(check: bool) -> Result<()> {
    // The whole workspace, so that the libraries are built with the features that the tests build them with: once.
    run(cargo().args(["build", "--workspace", "--bins"]))?;
    for (file, what) in FILES {
        let output = Command::new(target().join("debug/twinlake")).args(["schema", what]).output()?;
        if !output.status.success() {
            bail!("twinlake schema {what}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let path = root().join(file);
        if check {
            let committed =
                std::fs::read(&path).with_context(|| format!("{file} is missing: run cargo xtask gen"))?;
            if committed != output.stdout {
                bail!("{file} is stale: run cargo xtask gen");
            }
            println!("{file} is up to date");
        } else {
            std::fs::write(&path, &output.stdout)?;
            println!("wrote {file}");
        }
    }
    Ok(())
}
