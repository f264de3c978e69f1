//! The work that keeps a lake quick and small while it is written: small files joined, rows let go of after their time,
//! files deleted that nobody needs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use twinlake_contracts::{INGESTED_AT, Result, TableName, now_us};

use crate::lake::Lake;
use crate::table::{CompactOptions, LakeTable};

const TIME_COLUMN: &str = "ts";

/// How long the rows of some tables are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// `schema.table`, where `*` as the schema or as the table stands for every one.
    pub tables: String,
    /// How long, by the time in `column`.
    pub keep: Duration,
    /// The column with the time; without it `ts` where there is one, else `_ingested_at`.
    pub column: Option<String>,
}

/// What upkeep does.
#[derive(Debug, Clone)]
pub struct UpkeepOptions {
    /// When small files are joined.
    pub compact: CompactOptions,
    /// How long rows are kept; the last entry that names a table counts. Rows of other tables are kept for ever.
    pub retention: Vec<Retention>,
    /// How long versions can be gone back to: files that only older ones need are deleted. `None`: for ever.
    pub keep_versions: Option<Duration>,
    /// Versions that are never given up, by table.
    pub pinned: BTreeMap<String, Vec<u64>>,
}

/// What upkeep did to a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Upkept {
    /// Files that were joined, and what they became.
    pub files_joined: u64,
    /// Files after the joining.
    pub files_made: u64,
    /// Rows let go of.
    pub rows_expired: u64,
    /// Files deleted.
    pub files_deleted: u64,
    /// What failed; the rest was done all the same, and the next time it is tried again.
    pub failures: Vec<String>,
}

impl Retention {
    fn names(&self, name: &TableName) -> bool {
        let fits = |pattern: &str, word: &str| pattern == "*" || pattern == word;
        self.tables.split_once('.').is_some_and(|(s, t)| fits(s, &name.schema) && fits(t, &name.table))
    }
}

impl Lake {
    /// Does the upkeep of every table. One table's failure is no other's.
    pub async fn upkeep(&self, options: &UpkeepOptions) -> Result<BTreeMap<String, Upkept>> {
        self.refresh().await?;
        let mut report = BTreeMap::new();
        for table in self.tables() {
            let done = keep_up(&table, options).await;
            if done != Upkept::default() {
                report.insert(table.name().to_string(), done);
            }
        }
        Ok(report)
    }
}

async fn keep_up(table: &LakeTable, options: &UpkeepOptions) -> Upkept {
    let mut done = Upkept::default();
    if let Some(retention) = options.retention.iter().rev().find(|retention| retention.names(table.name())) {
        let keep_us = i64::try_from(retention.keep.as_micros()).unwrap_or(i64::MAX);
        let before_us = now_us().saturating_sub(keep_us);
        let has_times = table.schema().field_with_name(TIME_COLUMN).is_ok();
        let usual = if has_times { TIME_COLUMN } else { INGESTED_AT };
        let column = retention.column.as_deref().unwrap_or(usual);
        match table.expire(column, before_us).await {
            Ok(expired) => done.rows_expired = expired.rows,
            Err(error) => done.failures.push(error.to_string()),
        }
    }
    match table.compact(options.compact).await {
        Ok(compacted) => {
            (done.files_joined, done.files_made) = (compacted.files_before, compacted.files_after);
        }
        Err(error) => done.failures.push(error.to_string()),
    }
    if let Some(keep) = options.keep_versions {
        let pinned = options.pinned.get(&table.name().to_string()).map_or(&[][..], Vec::as_slice);
        match table.vacuum(keep, pinned, false).await {
            Ok(vacuumed) => done.files_deleted = vacuumed.files,
            Err(error) => done.failures.push(error.to_string()),
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_tables() {
        let retention =
            |tables: &str| Retention { tables: tables.to_owned(), keep: Duration::ZERO, column: None };
        let name = TableName::parse("raw.reading").unwrap();
        for (pattern, expected) in [
            ("raw.*", true),
            ("*.*", true),
            ("*.reading", true),
            ("raw.reading", true),
            ("meta.*", false),
            ("raw", false),
        ] {
            assert_eq!(retention(pattern).names(&name), expected, "{pattern}");
        }
    }
}
