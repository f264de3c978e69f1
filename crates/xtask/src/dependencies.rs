//! The dependency picture of ARCHITECTURE.md, kept by a script: an arrow that is not listed fails.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::{cargo, output};

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
    ("cluster", &["contracts", "lake", "query", "spatial"]),
    ("catalog", &["contracts", "lake", "query"]),
    ("twin", &["contracts", "formats", "lake", "query", "simulate", "spatial"]),
    ("service", &["contracts", "lake", "query", "twin"]),
    (
        "cli",
        &[
            "catalog",
            "cluster",
            "contracts",
            "formats",
            "lake",
            "pipeline",
            "query",
            "service",
            "simulate",
            "sources",
            "spatial",
            "twin",
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
    (&["contracts", "formats", "spatial", "simulate"], &["tokio", "reqwest", "rumqttc", "rmqtt-codec"]),
    (
        &[
            "contracts",
            "sources",
            "formats",
            "pipeline",
            "lake",
            "spatial",
            "simulate",
            "query",
            "twin",
            "catalog",
            "cluster",
        ],
        &["axum"],
    ),
];

/// Reads `cargo metadata` and fails on a dependency that the picture does not have, or on two versions of arrow,
/// datafusion or object_store.
pub fn check() -> Result<()> {
    let text =
        output(cargo().args(["metadata", "--format-version", "1"])).context("cargo metadata failed")?;
    let metadata: Value = serde_json::from_str(&text)?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let members = metadata["workspace_members"].as_array().context("cargo metadata names no members")?;
    let mut problems = Vec::new();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let ours = packages.iter().filter(|package| members.contains(&package["id"]));
    for package in ours {
        let name = package["name"].as_str().unwrap_or_default().trim_start_matches("twinlake-");
        if name == "unify" {
            continue;
        }
        let Some(may) = allowed.get(name) else {
            problems.push(format!(
                "crate {name} is not in the picture: add it to crates/xtask/src/dependencies.rs"
            ));
            continue;
        };
        // Only tests may look sideways.
        let dependencies =
            package["dependencies"].as_array().into_iter().flatten().filter(|one| one["kind"] != "dev");
        for dependency in dependencies.filter_map(|one| one["name"].as_str()) {
            if let Some(other) = dependency.strip_prefix("twinlake-")
                && other != "unify"
                && !may.contains(&other)
            {
                problems.push(format!("{name} must not depend on {other}"));
            }
            for (crates, libraries) in BANNED {
                if crates.contains(&name) && libraries.contains(&dependency) {
                    problems.push(format!("{name} must not depend on {dependency}"));
                }
            }
        }
    }
    for single in ["arrow", "datafusion", "object_store", "parquet"] {
        let versions: BTreeSet<&str> = packages
            .iter()
            .filter(|package| package["name"] == single)
            .filter_map(|package| package["version"].as_str())
            .collect();
        if versions.len() != 1 {
            problems.push(format!("not one version of {single}: {versions:?}"));
        }
    }
    if !problems.is_empty() {
        bail!("the dependency picture does not hold:\n  {}", problems.join("\n  "));
    }
    println!("dependency picture: {} crates, every arrow allowed", ALLOWED.len());
    Ok(())
}
