//! The rules of tables, judged over the tables as they are in the lake: `twinlake check`.
//!
//! All row-wise rules of a table are judged in one pass over it; each other rule asks once.

use twinlake_contracts::{Error, Result, TableName, now_us};
use twinlake_query::{Session, output};

use crate::catalog::Catalog;
use crate::definition::TableDefinition;
use crate::drift;
use crate::result::{DESCRIPTION, Judged, QualityResult, to_rows};
use crate::rows::Rows;
use crate::rule::{QualityRule, RuleKind, quoted, quoted_table};

/// How many rows at fault are shown.
const SAMPLE_ROWS: usize = 3;
/// The longest sample that is kept, in characters.
const SAMPLE_CHARACTERS: usize = 2_000;

/// A statement that counts: `checked`, `failed`.
pub(crate) struct Count {
    /// `SELECT … AS checked, … AS failed FROM …`
    pub(crate) sql: String,
    /// A query for rows at fault.
    pub(crate) sample: String,
}

/// The count of a rule on a table as a whole over a relation; `reference` is the relation in which a `referential` rule
/// looks. `None` for rules that do not count rows.
pub(crate) fn count(rule: &QualityRule, relation: &str, reference: &str) -> Option<Count> {
    let columns: Vec<String> = rule.own_columns().iter().map(|column| quoted(column)).collect();
    let list = columns.join(", ");
    let there = |prefix: &str| {
        columns.iter().map(|column| format!("{prefix}{column} IS NOT NULL")).collect::<Vec<_>>().join(" AND ")
    };
    match rule.rule {
        RuleKind::Unique => Some(Count {
            sql: format!(
                "SELECT CAST(coalesce(sum(n), 0) AS BIGINT) AS checked, CAST(coalesce(sum(n - 1), 0) AS BIGINT) AS failed \
                 FROM (SELECT count(*) AS n FROM {relation} WHERE {} GROUP BY {list}) AS groups",
                there("")
            ),
            sample: format!(
                "SELECT {list}, count(*) AS rows FROM {relation} WHERE {} GROUP BY {list} HAVING count(*) > 1 \
                 ORDER BY rows DESC, {list} LIMIT {SAMPLE_ROWS}",
                there("")
            ),
        }),
        RuleKind::Referential => {
            let theirs: Vec<String> = if rule.references.is_empty() {
                columns.clone()
            } else {
                rule.references.iter().map(|column| quoted(column)).collect()
            };
            let named: Vec<String> =
                theirs.iter().enumerate().map(|(at, column)| format!("{column} AS r{at}")).collect();
            let on: Vec<String> = columns
                .iter()
                .enumerate()
                .map(|(at, column)| format!("own.{column} = other.r{at}"))
                .collect();
            let joined = format!(
                "{relation} AS own LEFT JOIN (SELECT DISTINCT {}, true AS there FROM {reference}) AS other ON {}",
                named.join(", "),
                on.join(" AND ")
            );
            let missing = format!("other.there IS NULL AND {}", there("own."));
            let own: Vec<String> = columns.iter().map(|column| format!("own.{column}")).collect();
            let own = own.join(", ");
            Some(Count {
                sql: format!(
                    "SELECT count(*) AS checked, count(*) FILTER (WHERE {missing}) AS failed FROM {joined}"
                ),
                sample: format!(
                    "SELECT {own}, count(*) AS rows FROM {joined} WHERE {missing} GROUP BY {own} ORDER BY {own} \
                     LIMIT {SAMPLE_ROWS}"
                ),
            })
        }
        RuleKind::Sql => rule.query.as_ref().map(|query| Count {
            sql: format!("SELECT count(*) AS checked, count(*) AS failed FROM ({query}) AS found"),
            sample: format!("SELECT * FROM ({query}) AS found LIMIT {SAMPLE_ROWS}"),
        }),
        _ => None,
    }
}

impl Catalog {
    /// Judges the rules of these tables (of all that have rules, when none is named) over the lake. A table that is named
    /// and has no rules is an error; one with rules that is not in the lake yet is passed over unless it is named.
    pub async fn check(&self, tables: &[TableName]) -> Result<Vec<QualityResult>> {
        let session = self.session()?;
        let mut results = Vec::new();
        for name in tables {
            if self.definition(name).is_none_or(|own| own.quality.is_empty()) {
                let known: Vec<String> = self.definitions().map(|own| own.table.to_string()).collect();
                return Err(Error::not_found(
                    "table with quality rules",
                    name.to_string(),
                    known.iter().map(String::as_str),
                ));
            }
        }
        for definition in self.definitions() {
            let named = tables.contains(&definition.table);
            let chosen = tables.is_empty() || named;
            if !chosen || definition.quality.is_empty() {
                continue;
            }
            let Some(table) = self.lake().table(&definition.table) else {
                if named {
                    let known: Vec<String> =
                        self.lake().tables().iter().map(|table| table.name().to_string()).collect();
                    return Err(Error::not_found(
                        "table",
                        definition.table.to_string(),
                        known.iter().map(String::as_str),
                    ));
                }
                continue;
            };
            let schema = table.schema();
            let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            if !self.fits(definition, &names)? {
                continue;
            }
            results.extend(self.judge_table(&session, definition).await?);
        }
        Ok(results)
    }

    /// Puts results into `meta.quality`.
    pub async fn record_quality(&self, results: &[QualityResult], judged: &Judged<'_>) -> Result<()> {
        if results.is_empty() {
            return Ok(());
        }
        self.lake().append_meta("meta.quality", DESCRIPTION, to_rows(results, judged)?).await
    }

    /// The rules on a table as a whole that stop a pipeline which writes it, judged before it starts. Freshness is not
    /// among them: a pipeline that was away must be able to come back.
    pub async fn check_before(&self, table: &TableName) -> Result<Vec<QualityResult>> {
        let Some(definition) = self.definition(table) else { return Ok(Vec::new()) };
        let Some(stored) = self.lake().table(table) else { return Ok(Vec::new()) };
        let schema = stored.schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        if !self.fits(definition, &names)? {
            return Ok(Vec::new());
        }
        let session = self.session()?;
        let mut results = Vec::new();
        for rule in &definition.quality {
            let stops = rule.severity == crate::rule::Severity::Stop && rule.rule != RuleKind::Freshness;
            if stops && !rule.is_row_wise() {
                results.push(self.judge_whole(&session, definition, rule).await?);
            }
        }
        Ok(results)
    }

    async fn judge_table(
        &self,
        session: &Session,
        definition: &TableDefinition,
    ) -> Result<Vec<QualityResult>> {
        let mut results = judge_rows(session, definition).await?;
        for rule in definition.quality.iter().filter(|rule| !rule.is_row_wise()) {
            results.push(self.judge_whole(session, definition, rule).await?);
        }
        Ok(results)
    }

    async fn judge_whole(
        &self,
        session: &Session,
        definition: &TableDefinition,
        rule: &QualityRule,
    ) -> Result<QualityResult> {
        let relation = quoted_table(&definition.table);
        match rule.rule {
            RuleKind::Freshness => freshness(session, definition, rule).await,
            RuleKind::Drift => drift::judge(session, &definition.table, rule).await,
            _ => {
                let reference = rule.table.as_ref().map(quoted_table).unwrap_or_default();
                let counted = count(rule, &relation, &reference)
                    .ok_or_else(|| Error::internal(format!("the rule '{}' counts nothing", rule.label())))?;
                let row = Rows::one(
                    &session.collect(&counted.sql).await.map_err(|error| about(rule, definition, error))?,
                )?;
                let checked = row.integer("checked").unwrap_or(0);
                let failed = row.integer("failed").unwrap_or(0);
                let mut result = QualityResult::new(&definition.table, rule, checked, failed);
                if rule.query.is_some() && failed > 0 {
                    result.detail = format!("the query gives {failed} rows");
                }
                if failed > 0 {
                    result.sample = sample(session, &counted.sample).await;
                }
                Ok(result)
            }
        }
    }
}

/// All row-wise rules of a table, in one pass.
async fn judge_rows(session: &Session, definition: &TableDefinition) -> Result<Vec<QualityResult>> {
    let rules: Vec<(&QualityRule, String)> =
        definition.quality.iter().filter_map(|rule| Some((rule, rule.row_condition()?))).collect();
    if rules.is_empty() {
        return Ok(Vec::new());
    }
    let counts: Vec<String> = rules
        .iter()
        .enumerate()
        .map(|(at, (_, good))| format!("count(*) FILTER (WHERE NOT ({good})) AS failed{at}"))
        .collect();
    let relation = quoted_table(&definition.table);
    let sql = format!("SELECT count(*) AS checked, {} FROM {relation}", counts.join(", "));
    let counted = match session.collect(&sql).await {
        Ok(rows) => Rows::one(&rows)?,
        Err(error) => {
            // Which of the rules is at fault?
            for (rule, good) in &rules {
                let alone = format!("SELECT count(*) FILTER (WHERE {good}) FROM {relation}");
                session.collect(&alone).await.map_err(|error| about(rule, definition, error))?;
            }
            return Err(error);
        }
    };
    let checked = counted.integer("checked").unwrap_or(0);
    let mut results = Vec::new();
    for (at, (rule, good)) in rules.iter().enumerate() {
        let failed = counted.integer(&format!("failed{at}")).unwrap_or(0);
        let mut result = QualityResult::new(&definition.table, rule, checked, failed);
        if failed > 0 {
            let mut shown: Vec<String> = definition.keys.first().cloned().unwrap_or_default();
            shown.extend(rule.own_columns());
            shown.dedup();
            let mut seen = std::collections::BTreeSet::new();
            shown.retain(|column| seen.insert(column.clone()));
            let list = if shown.is_empty() {
                "*".to_owned()
            } else {
                shown.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ")
            };
            let query = format!("SELECT {list} FROM {relation} WHERE NOT ({good}) LIMIT {SAMPLE_ROWS}");
            result.sample = sample(session, &query).await;
        }
        results.push(result);
    }
    Ok(results)
}

async fn freshness(
    session: &Session,
    definition: &TableDefinition,
    rule: &QualityRule,
) -> Result<QualityResult> {
    let own = definition.freshness.as_ref();
    let promise = rule.promise.or_else(|| own?.promise).ok_or_else(|| {
        Error::config(format!("the rule '{}' of table {} has no promise", rule.label(), definition.table))
            .with_help("promise = \"10m\", at the rule or under [freshness]")
    })?;
    let column = rule.column.clone().or_else(|| own?.column.clone());
    let sql = match column {
        Some(column) => format!(
            "SELECT CAST(CAST(max({}) AS TIMESTAMP(6)) AS BIGINT) AS us, count(*) AS n FROM {}",
            quoted(&column),
            quoted_table(&definition.table)
        ),
        None => format!(
            "SELECT CAST(CAST(updated_at AS TIMESTAMP(6)) AS BIGINT) AS us, rows AS n FROM meta.datasets \
             WHERE name = '{}'",
            definition.table
        ),
    };
    let row = Rows::one(&session.collect(&sql).await.map_err(|error| about(rule, definition, error))?)?;
    let (newest, rows) = (row.integer("us"), row.integer("n").unwrap_or(0));
    let age = newest.map(|us| (now_us() - us) as f64 / 1e6);
    let mut result = QualityResult::new(&definition.table, rule, rows, 0);
    result.value = age;
    result.threshold = Some(promise.0 as f64);
    result.passed = age.is_some_and(|age| age <= promise.0 as f64);
    result.detail = match age {
        None => "the table has no rows".to_owned(),
        Some(age) if !result.passed => {
            format!("the newest row is {age:.0} s old, promised are {} s", promise.0)
        }
        Some(_) => String::new(),
    };
    Ok(result)
}

/// An error of a rule's SQL with the rule's name.
fn about(rule: &QualityRule, definition: &TableDefinition, error: Error) -> Error {
    Error::config(format!(
        "the quality rule '{}' of table {} cannot be judged: {error}",
        rule.label(),
        definition.table
    ))
}

/// A few rows as JSON; what cannot be shown is left out.
async fn sample(session: &Session, sql: &str) -> Option<String> {
    let rows = match session.collect(sql).await {
        Ok(rows) => rows,
        Err(error) => {
            tracing::debug!(%error, "rows at fault cannot be shown");
            return None;
        }
    };
    let schema = rows.first()?.schema();
    let mut text = Vec::new();
    output::write(output::Format::Json, &schema, &rows, &mut text).ok()?;
    let text = String::from_utf8(text).ok()?;
    let value: serde_json::Value = serde_json::from_str(&text).ok()?;
    let text = value.to_string();
    (text.chars().count() <= SAMPLE_CHARACTERS).then_some(text)
}
