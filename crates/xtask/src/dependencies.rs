//! The dependency picture of ARCHITECTURE.md, kept by a script: an arrow that is not listed fails.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::run::root;

/// Which of our crates each of our crates may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("contracts", &[]),
    ("sources", &["contracts"]),
    ("formats", &["contracts"]),
    ("pipeline", &["contracts"]),
    ("lake", &["contracts"]),
    ("spatial", &["contracts"]),
    ("simulate", &["contracts"]),
    ("query", &["contracts", "lake", "spatial"]),
    ("twin", &["contracts", "lake", "query", "simulate", "spatial"]),
    ("service", &["contracts", "lake", "query", "twin"]),
    (
        "cli",
        &[
            "contracts", "formats", "lake", "pipeline", "query", "service", "simulate", "sources", "spatial", "twin",
        ],
    ),
    ("xtask", &[]),
    ("tests", &[]),
];

/// Which crates may not use these libraries at all.
const BANNED: &[(&[&str], &[&str])] = &[
    (
        &["contracts", "sources", "formats", "pipeline", "simulate"],
        &["datafusion", "deltalake-core", "object_store", "datafusion-postgres"],
    ),
    (&["contracts", "formats", "spatial", "simulate"], &["tokio", "reqwest", "rumqttc", "rmqtt"]),
    (&["contracts", "sources", "formats", "pipeline", "lake", "spatial", "simulate", "query", "twin"], &["axum"]),
];

/// Reads `cargo metadata` and fails on a dependency that the picture does not have, or on two versions of arrow,
/// datafusion or object_store.
pub fn check() -> Result<()> {
    let metadata = MetadataCommand::new().manifest_path(root().join("Cargo.toml")).exec()?;
    let mut problems = Vec::new();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    for package in metadata.workspace_packages() {
        let name = package.name.trim_start_matches("twinlake-").to_owned();
        let Some(may) = allowed.get(name.as_str()) else {
            problems.push(format!("crate {name} is not in the picture: add it to crates/xtask/src/dependencies.rs"));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development) {
            if let Some(ours) = dependency.name.strip_prefix("twinlake-")
                && !may.contains(&ours)
            {
                problems.push(format!("{name} must not depend on {ours}"));
            }
            for (crates, libraries) in BANNED {
                if crates.contains(&name.as_str()) && libraries.contains(&dependency.name.as_str()) {
                    problems.push(format!("{name} must not depend on {}", dependency.name));
                }
            }
        }
    }
    for single in ["arrow", "datafusion", "object_store", "parquet"] {
        let versions: BTreeSet<String> = metadata
            .packages
            .iter()
            .filter(|package| package.name.as_str() == single)
            .map(|package| package.version.to_string())
            .collect();
        if versions.len() > 1 {
            problems.push(format!("more than one version of {single}: {versions:?}"));
        }
    }
    if !problems.is_empty() {
        bail!("the dependency picture does not hold:\n  {}", problems.join("\n  "));
    }
    println!("dependency picture: {} crates, every arrow allowed", ALLOWED.len());
    Ok(())
}
