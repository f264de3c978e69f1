//! What the binary carries: the shipped pipelines with their data, twin models and scenarios.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rust_embed::Embed;

/// `pipelines/`.
#[derive(Embed)]
#[folder = "../../pipelines"]
struct Pipelines;

/// `schemas/twins/`.
#[derive(Embed)]
#[folder = "../../schemas/twins"]
struct TwinModels;

/// `schemas/tables/`.
#[derive(Embed)]
#[folder = "../../schemas/tables"]
struct TableDefinitions;

/// `scenarios/`.
#[derive(Embed)]
#[folder = "../../scenarios"]
struct Scenarios;

/// Writes the shipped pipelines with their data, models and scenarios below `folder`; files that are there already
/// with the same content stay untouched.
pub fn write_to(folder: &Path) -> Result<()> {
    write_all::<Pipelines>(&folder.join("pipelines"))?;
    write_all::<TwinModels>(&folder.join("schemas/twins"))?;
    write_all::<TableDefinitions>(&folder.join("schemas/tables"))?;
    write_all::<Scenarios>(&folder.join("scenarios"))
}

/// The shipped twin models: file name, TOML.
pub fn twin_models() -> Vec<(String, String)> {
    texts::<TwinModels>()
}

/// The shipped table definitions: file name, TOML.
pub fn table_definitions() -> Vec<(String, String)> {
    texts::<TableDefinitions>()
}

/// The shipped scenarios: file name, TOML.
pub fn scenarios() -> Vec<(String, String)> {
    texts::<Scenarios>()
}

/// The TOML files of a folder, sorted by name.
pub fn read_folder(folder: &Path) -> Result<Vec<(String, String)>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .with_context(|| format!("cannot read the folder {}", folder.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok((path.display().to_string(), text))
        })
        .collect()
}

fn texts<E: Embed>() -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = E::iter()
        .filter(|name| name.ends_with(".toml"))
        .filter_map(|name| {
            E::get(&name).map(|file| (name.to_string(), String::from_utf8_lossy(&file.data).into_owned()))
        })
        .collect();
    found.sort();
    found
}

fn write_all<E: Embed>(folder: &Path) -> Result<()> {
    for name in E::iter() {
        let Some(file) = E::get(&name) else { continue };
        let path = folder.join(name.as_ref());
        if std::fs::read(&path).is_ok_and(|present| present == file.data.as_ref()) {
            continue;
        }
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        }
        std::fs::write(&path, &file.data).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
