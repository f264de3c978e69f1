//! `twinlake validate`, `test` and `graph`: pipelines without running them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use twinlake_pipeline::{Diagnostics, Plan};

use crate::pipelines::{components, sql_engine};

/// Checks every file and shows every mistake.
pub async fn validate(files: &[PathBuf]) -> Result<()> {
    let mut wrong = 0;
    for file in files {
        match load(file).await {
            Ok(plan) => println!("{}: valid ({})", file.display(), shape(&plan)),
            Err(found) => {
                wrong += found.errors.len();
                show(&found);
            }
        }
    }
    if wrong > 0 {
        bail!("{wrong} mistake{} found", if wrong == 1 { "" } else { "s" });
    }
    Ok(())
}

/// Runs the `[[tests]]` of every file.
pub async fn test(files: &[PathBuf]) -> Result<()> {
    let (mut passed, mut failed) = (0, 0);
    for file in files {
        let plan = match load(file).await {
            Ok(loaded) => loaded,
            Err(found) => {
                show(&found);
                bail!("{} cannot be tested before it is valid", file.display());
            }
        };
        let plan = Arc::new(plan);
        for outcome in twinlake_pipeline::run_tests(&plan, &sql_engine()).await {
            if outcome.passed() {
                passed += 1;
                println!("ok      {}: {}", plan.pipeline.name, outcome.name);
            } else {
                failed += 1;
                println!(
                    "FAILED  {}: {} ({}:{})",
                    plan.pipeline.name,
                    outcome.name,
                    file.display(),
                    outcome.line
                );
                for failure in &outcome.failures {
                    println!("{failure}");
                }
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed > 0 {
        bail!("{failed} of {} tests failed", passed + failed);
    }
    Ok(())
}

/// Draws one file.
pub fn graph(file: &Path, dot: bool) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let (pipeline, found) = twinlake_pipeline::Pipeline::parse(&text, Some(file), &components());
    let Some(pipeline) = pipeline else {
        show(&found);
        bail!("{} cannot be drawn before it is valid", file.display());
    };
    print!("{}", if dot { pipeline.dot() } else { pipeline.mermaid() });
    Ok(())
}

async fn load(file: &Path) -> Result<Plan, Diagnostics> {
    let engine = sql_engine();
    let (plan, warnings) = twinlake_pipeline::load(file, &components(), &engine).await?;
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    Ok(plan)
}

fn show(found: &Diagnostics) {
    for warning in &found.warnings {
        eprintln!("warning: {warning}");
    }
    for error in &found.errors {
        eprintln!("error: {error}\n");
    }
}

fn shape(plan: &Plan) -> String {
    let pipeline = &plan.pipeline;
    format!(
        "{} sources, {} transforms, {} sinks, {} tests",
        pipeline.sources.len(),
        pipeline.transforms.len(),
        pipeline.sinks.len(),
        pipeline.tests.len()
    )
}
