//! Benchmarks by name.

use anyhow::{Result, bail};

/// Name, what it measures, the example that runs it (package, example).
const BENCHMARKS: &[(&str, &str, &str, &str)] = &[(
    "simulate",
    "traffic assignment to a relative gap of 1e-10; with TWINLAKE_TESTDATA also on the published networks",
    "twinlake-simulate",
    "traffic_assignment",
)];

/// Runs one in the release profile, or shows the list.
pub fn bench(name: Option<&str>) -> Result<()> {
    let list = BENCHMARKS
        .iter()
        .map(|(name, what, ..)| format!("  {name:12} {what}"))
        .collect::<Vec<_>>()
        .join("\n");
    let Some(name) = name else {
        println!("benchmarks:\n{list}");
        return Ok(());
    };
    let Some((_, _, package, example)) = BENCHMARKS.iter().find(|(known, ..)| *known == name) else {
        bail!("unknown benchmark '{name}'; there are:\n{list}");
    };
    crate::run::run(crate::run::cargo().args([
        "run",
        "--release",
        "--package",
        package,
        "--example",
        example,
    ]))
}
