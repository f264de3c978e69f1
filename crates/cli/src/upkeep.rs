//! `twinlake table`, and the upkeep that running processes do beside their work.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use arrow::array::AsArray;
use serde::{Deserialize, Deserializer};
use tokio::task::JoinHandle;
use twinlake_contracts::{Error, INGESTED_AT, SqlEngine as _, TableName, format_us, now_us, suggest};
use twinlake_lake::{CompactOptions, Evolution, Lake, LakeTable, Retention, UpkeepOptions, wider_type};
use twinlake_pipeline::parse_duration_us;
use twinlake_query::Engine;

use crate::WrongUse;
use crate::arguments::{AlterOptions, TableCommand};
use crate::settings::Settings;
use crate::town::Town;

/// How often files that nobody needs are looked for.
const VACUUM_EVERY: Duration = Duration::from_hours(1);
/// As much of a commit's particulars is shown on a line.
const PARAMETERS: usize = 120;
const MINUTE: Duration = Duration::from_mins(1);

/// `[upkeep]` of the configuration file: what processes that run pipelines or serve do to the tables beside.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpkeepSettings {
    /// How often; `"0s"` is never.
    #[serde(deserialize_with = "duration")]
    every: Duration,
    /// With more small files of one writer than this they are joined.
    small_files: usize,
    /// How long versions of tables can be gone back to.
    #[serde(deserialize_with = "some_duration")]
    keep_versions: Option<Duration>,
    /// How long rows are kept, by table: `"raw.*" = "30d"`, or `{ keep = "30d", column = "ts" }`.
    keep: BTreeMap<String, Keep>,
}

impl Default for UpkeepSettings {
    /// Each minute, 16 files; versions and rows are kept for ever.
    fn default() -> Self {
        Self { every: MINUTE, small_files: 16, keep_versions: None, keep: BTreeMap::new() }
    }
}

/// How long rows are kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Keep {
    /// By the usual time: `ts`, else `_ingested_at`.
    Usual(#[serde(deserialize_with = "duration")] Duration),
    /// By the time in a column.
    By(KeepBy),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeepBy {
    #[serde(deserialize_with = "duration")]
    keep: Duration,
    column: String,
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration_us(&text).and_then(|us| u64::try_from(us).ok()).map(Duration::from_micros).ok_or_else(
        || {
            serde::de::Error::custom(format!(
                "'{text}' is not a length of time, expected a number with a unit: 30d"
            ))
        },
    )
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

impl UpkeepSettings {
    fn options(&self) -> UpkeepOptions {
        let retention = self.keep.iter().map(|(tables, keep)| match keep {
            Keep::Usual(keep) => Retention { tables: tables.clone(), keep: *keep, column: None },
            Keep::By(by) => {
                Retention { tables: tables.clone(), keep: by.keep, column: Some(by.column.clone()) }
            }
        });
        UpkeepOptions {
            compact: CompactOptions { leave_files: self.small_files.max(1), ..CompactOptions::default() },
            retention: retention.collect(),
            keep_versions: self.keep_versions,
            pinned: BTreeMap::new(),
        }
    }

    /// Checks what types cannot say.
    pub fn check(&self) -> twinlake_contracts::Result<()> {
        let wrong =
            self.keep.keys().find(|pattern| pattern.split('.').filter(|part| !part.is_empty()).count() != 2);
        match wrong {
            None => Ok(()),
            Some(pattern) => Err(Error::config(format!("'{pattern}' under upkeep.keep names no table"))
                .with_help("write schema.table, where * stands for every one: \"raw.*\"")),
        }
    }
}

/// The upkeep of a running process; ends when dropped.
pub struct Upkeep(JoinHandle<()>);

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Upkeep {
    /// Starts it. A change that is cut off in the middle leaves files that the next vacuum finds, and no more.
    pub fn start(town: &Town, settings: &UpkeepSettings) -> Self {
        let (lake, engine) = (Arc::clone(&town.lake), Arc::clone(&town.engine));
        let settings = settings.clone();
        Self(tokio::spawn(async move {
            if settings.every.is_zero() {
                return;
            }
            let mut vacuum_due = tokio::time::Instant::now();
            loop {
                tokio::time::sleep(settings.every).await;
                let mut options = settings.options();
                if options.keep_versions.is_some() {
                    if tokio::time::Instant::now() < vacuum_due {
                        options.keep_versions = None;
                    } else {
                        vacuum_due = tokio::time::Instant::now() + VACUUM_EVERY;
                        options.pinned = pinned(&engine).await;
                    }
                }
                match lake.upkeep(&options).await {
                    Ok(report) => {
                        for (table, done) in report {
                            for failure in &done.failures {
                                tracing::warn!(table, "upkeep failed and is tried again: {failure}");
                            }
                            tracing::info!(table, ?done, "upkeep");
                        }
                    }
                    Err(error) => tracing::warn!("upkeep failed and is tried again: {error}"),
                }
            }
        }))
    }
}

/// The versions that recorded runs have read, by table: they stay readable, so that runs can be made again.
async fn pinned(engine: &Engine) -> BTreeMap<String, Vec<u64>> {
    let mut versions: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    let batches = engine.read_tables("SELECT DISTINCT inputs FROM meta.runs WHERE inputs <> '{}'").await;
    for batch in batches.unwrap_or_default() {
        let Ok(texts) = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8) else {
            continue;
        };
        for inputs in texts.as_string::<i32>().iter().flatten() {
            let Ok(inputs) = serde_json::from_str::<BTreeMap<String, serde_json::Value>>(inputs) else {
                continue;
            };
            for (table, version) in inputs {
                versions.entry(table).or_default().extend(version.as_u64());
            }
        }
    }
    versions.into_iter().map(|(table, versions)| (table, versions.into_iter().collect())).collect()
}

/// The tables of these names; all when none is named.
fn tables(lake: &Lake, names: &[String]) -> Result<Vec<Arc<LakeTable>>> {
    if names.is_empty() {
        return Ok(lake.tables());
    }
    names.iter().map(|name| table(lake, name)).collect()
}

fn table(lake: &Lake, name: &str) -> Result<Arc<LakeTable>> {
    let parsed = TableName::parse(name).map_err(WrongUse)?;
    lake.table(&parsed).ok_or_else(|| {
        let known: Vec<String> = lake.tables().iter().map(|table| table.name().to_string()).collect();
        let error = Error::config(format!("there is no table '{name}'"));
        let near = suggest(name, known.iter().map(String::as_str));
        WrongUse(match near {
            Some(near) => error.with_help(format!("did you mean '{near}'?")),
            None => error.with_help("SELECT name FROM meta.datasets lists them"),
        })
        .into()
    })
}

/// `twinlake table …`
pub async fn run(settings: &Settings, command: &TableCommand) -> Result<()> {
    let town = Town::open(settings).await?;
    let lake = &town.lake;
    match command {
        TableCommand::History { table: name, limit } => {
            for record in table(lake, name)?.history(Some(*limit)).await? {
                let short: String = record.parameters.chars().take(PARAMETERS).collect();
                let more = if short.len() < record.parameters.len() { "…" } else { "" };
                println!(
                    "{:>8}  {:<27}  {:<12}  {}  {short}{more}",
                    record.version,
                    record.at_us.map(format_us).unwrap_or_default(),
                    record.operation,
                    record.writer.as_deref().unwrap_or("-")
                );
            }
        }
        TableCommand::Compact { tables: names } => {
            for table in tables(lake, names)? {
                let done = table.compact(CompactOptions::default()).await?;
                if done.commits > 0 || !names.is_empty() {
                    println!(
                        "{}: {} files of {} bytes became {} of {} bytes; version {}",
                        table.name(),
                        done.files_before,
                        done.bytes_before,
                        done.files_after,
                        done.bytes_after,
                        done.version
                    );
                }
            }
        }
        TableCommand::Expire { table: name, older_than, column } => {
            let table = table(lake, name)?;
            let usual = if table.schema().field_with_name("ts").is_ok() { "ts" } else { INGESTED_AT };
            let before_us = now_us().saturating_sub(*older_than);
            let done = table.expire(column.as_deref().unwrap_or(usual), before_us).await?;
            println!(
                "{name}: {} rows before {} went; version {}",
                done.rows,
                format_us(before_us),
                done.version
            );
        }
        TableCommand::Vacuum { tables: names, keep, dry_run } => {
            let pinned = pinned(&town.engine).await;
            let keep = Duration::from_micros(u64::try_from(*keep).unwrap_or_default());
            for table in tables(lake, names)? {
                let versions = pinned.get(&table.name().to_string()).map_or(&[][..], Vec::as_slice);
                let done = table.vacuum(keep, versions, *dry_run).await?;
                if done.files > 0 || !names.is_empty() {
                    let verb = if *dry_run { "would be" } else { "are" };
                    println!("{}: {} files {verb} deleted", table.name(), done.files);
                }
            }
        }
        TableCommand::Alter(options) => alter(lake, options).await?,
        TableCommand::Restore { table: name, version, at } => {
            let table = table(lake, name)?;
            let version = match (version, at) {
                (Some(version), _) => *version,
                (None, Some(at_us)) => table.version_at(*at_us).await?,
                (None, None) => {
                    return Err(WrongUse(Error::config("name the version: --version or --at")).into());
                }
            };
            let new = table.restore(version).await?;
            println!("{name}: the rows of version {version} are version {new}");
        }
    }
    town.lake.close().await?;
    Ok(())
}

/// Renames and widens, then adds and drops constraints, and says what was done.
async fn alter(lake: &Arc<Lake>, options: &AlterOptions) -> Result<()> {
    let (name, changes) = (&options.table, &options.changes);
    let mut widen = Vec::new();
    for (column, text) in &changes.widen {
        let wide = wider_type(text).ok_or_else(|| {
            WrongUse(
                Error::config(format!("'{text}' is no type that a column can be widened to"))
                    .with_help("types: smallint, int, bigint, real, double, decimal(digits,scale)"),
            )
        })?;
        widen.push((column.clone(), wide));
    }
    let table = table(lake, name)?;
    for constraint in &changes.drop_constraint {
        table.drop_constraint(constraint).await?;
        println!("{name}: the constraint '{constraint}' is gone");
    }
    let evolution = Evolution { rename: changes.rename.clone(), widen, forget: changes.forget.clone() };
    if evolution != Evolution::default() {
        let before = table.version();
        let evolved = table.evolve(&evolution).await?;
        if evolved.version == before {
            println!("{name}: the columns are so already");
        } else {
            println!(
                "{name}: version {} has the new columns ({} rows in {} files were written anew)",
                evolved.version, evolved.rows, evolved.files
            );
        }
    }
    for (constraint, expression) in &changes.constraint {
        table.add_constraint(constraint, expression).await?;
        println!("{name}: the constraint '{constraint}' holds");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_checked() {
        let text = "every = \"5m\"\nkeep_versions = \"7d\"\n[keep]\n\"raw.*\" = \"30d\"\n\
                    \"traffic.x\" = { keep = \"1d\", column = \"seen\" }\n";
        let settings: UpkeepSettings = toml::from_str(text).unwrap();
        settings.check().unwrap();
        let options = settings.options();
        assert_eq!(options.keep_versions, Some(Duration::from_hours(24 * 7)));
        assert_eq!(options.retention[0].keep, Duration::from_hours(24 * 30));
        assert_eq!(options.retention[1].column.as_deref(), Some("seen"));
        for (wrong, told) in [("every = \"often\"", "'often'"), ("smal_files = 3", "smal_files")] {
            let error = toml::from_str::<UpkeepSettings>(wrong).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        let unnamed: UpkeepSettings = toml::from_str("keep = { raw = \"1d\" }").unwrap();
        assert!(unnamed.check().unwrap_err().to_string().contains("'raw'"));
    }
}
