//! The rules of tables, applied to rows on their way into them.
//!
//! Row-wise rules are one projection over the batch (`SELECT good₀, good₁, … FROM input`), planned once by the engine of
//! pipelines: no clock, no chance, so that the same rows get the same verdict again. `stop` ends the run with an error
//! before the commit, `reject` takes the row out with the payload of its message, `warn` counts.
//!
//! Rows that replace a table (files) are judged as a whole too, by the rules `unique` and `referential`; a reference to a
//! table that the same run replaces is looked up in its new rows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use twinlake_contracts::{
    Error, INGESTED_AT, Result, RowGuard, SEQUENCE, SqlEngine, TableName, TableSpec, Verdict,
};

use twinlake_lake::LakeTable;

use crate::catalog::Catalog;
use crate::check::count;
use crate::definition::TableDefinition;
use crate::result::QualityResult;
use crate::rows::Rows;
use crate::rule::{QualityRule, RuleKind, Severity, quoted, quoted_table};

/// The reason of a row that a rule refuses, in `meta.rejects`.
pub const REASON: &str = "quality";

/// Holds the rows of one run to the rules of their tables, and counts.
pub struct Guard {
    engine: Arc<dyn SqlEngine>,
    /// The definitions that hold, with the constraints that the tables have besides.
    definitions: BTreeMap<TableName, Arc<TableDefinition>>,
    /// Those that are in the lake already: their columns may have got other names than the pipeline gives.
    tables: BTreeMap<TableName, Arc<LakeTable>>,
    counts: Mutex<BTreeMap<(TableName, String), Counted>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    checked: i64,
    failed: i64,
}

/// A row-wise rule with its condition.
struct RowRule<'a> {
    rule: &'a QualityRule,
    good: String,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

impl Guard {
    /// A guard for one run, for the tables that it writes; mistakes in their rules are found here. `None` when none of the
    /// tables has rules.
    pub async fn new<'a>(
        catalog: &Arc<Catalog>,
        engine: Arc<dyn SqlEngine>,
        tables: impl IntoIterator<Item = &'a TableSpec>,
    ) -> Result<Option<Arc<Self>>> {
        let mut guard =
            Self { engine, definitions: BTreeMap::new(), tables: BTreeMap::new(), counts: Mutex::default() };
        for spec in tables {
            let table = catalog.lake().table(&spec.name);
            let constraints = table.as_ref().map(|table| table.constraints()).unwrap_or_default();
            let stored = table.as_ref().map(|table| table.schema());
            let Some(definition) = with_constraints(catalog.definition(&spec.name), &spec.name, constraints)
            else {
                continue;
            };
            let definition = &definition;
            let all = stored.as_ref().unwrap_or(&spec.schema);
            let mut names: Vec<&str> = all.fields().iter().map(|field| field.name().as_str()).collect();
            // The lake adds it beside a geometry.
            names.push(twinlake_lake::H3_COLUMN);
            if !catalog.fits(definition, &names)? {
                continue;
            }
            if !definition.quality.is_empty() {
                guard.definitions.insert(spec.name.clone(), Arc::clone(definition));
            }
            if let Some(table) = table {
                guard.tables.insert(spec.name.clone(), table);
            }
            let schema = without_added(&guard.present_names(&spec.name, &spec.schema));
            let rules = row_rules(definition, &schema);
            for rule in &rules {
                guard.plan(&definition.table, rule, &schema).await?;
            }
            if let Some(rule) = definition.quality.iter().find(|rule| {
                rule.severity == Severity::Reject && !rules.iter().any(|own| std::ptr::eq(own.rule, *rule))
            }) {
                return Err(Error::config(format!(
                    "the quality rule '{}' of table {} rejects rows by a column that the pipeline does not give",
                    rule.label(),
                    definition.table
                ))
                .with_help("columns that the lake adds can only be judged with severity = \"warn\" or \"stop\""));
            }
        }
        Ok((!guard.definitions.is_empty()).then(|| Arc::new(guard)))
    }

    fn definition(&self, table: &TableName) -> Option<&Arc<TableDefinition>> {
        self.definitions.get(table)
    }

    /// The columns of a batch by the names that the rules of its table use.
    fn present_names(&self, table: &TableName, given: &SchemaRef) -> SchemaRef {
        self.tables.get(table).map_or_else(|| Arc::clone(given), |table| table.present_names(given))
    }

    /// A batch with the names that the rules of its table use.
    fn named(&self, table: &TableName, rows: &RecordBatch) -> Result<RecordBatch> {
        Ok(RecordBatch::try_new(self.present_names(table, rows.schema_ref()), rows.columns().to_vec())?)
    }

    async fn plan(&self, table: &TableName, rule: &RowRule<'_>, schema: &SchemaRef) -> Result<()> {
        let sql = format!("SELECT {} AS good FROM input", rule.good);
        let inputs = [("input".to_owned(), Arc::clone(schema))];
        let failed = |error: Error| {
            Error::config(format!("the quality rule '{}' of table {table}: {error}", rule.rule.label()))
        };
        let planned = self.engine.plan(&sql, &inputs).await.map_err(failed)?;
        if planned.field(0).data_type() != &arrow::datatypes::DataType::Boolean {
            return Err(failed(Error::config(format!(
                "it gives {}, not true or false",
                planned.field(0).data_type()
            ))));
        }
        if !self.engine.is_row_wise(&sql, &inputs).await.map_err(failed)? {
            return Err(failed(
                Error::config("its expression looks at more than one row")
                    .with_help("write it as a 'query' that must give no rows"),
            ));
        }
        Ok(())
    }

    /// Whether each row of a batch fulfils each rule: a list a rule. A rule whose SQL fails on a row does not hold for it.
    async fn conditions(&self, rules: &[RowRule<'_>], rows: &RecordBatch) -> Result<Vec<Vec<bool>>> {
        let list: Vec<String> =
            rules.iter().enumerate().map(|(at, rule)| format!("{} AS good{at}", rule.good)).collect();
        let sql = format!("SELECT {} FROM input", list.join(", "));
        let mut good = vec![vec![false; rows.num_rows()]; rules.len()];
        let mut parts = vec![(0, rows.num_rows())];
        while let Some((start, length)) = parts.pop() {
            if length == 0 {
                continue;
            }
            let part = rows.slice(start, length);
            let inputs = [("input".to_owned(), part.schema(), vec![part])];
            match self.engine.run(&sql, &inputs, None).await {
                Ok(found) => {
                    let mut row = start;
                    for batch in found {
                        for (rule, column) in batch.columns().iter().enumerate() {
                            let flags = column.as_boolean();
                            for at in 0..flags.len() {
                                good[rule][row + at] = flags.is_null(at) || flags.value(at);
                            }
                        }
                        row += batch.num_rows();
                    }
                }
                Err(error @ Error::External { .. }) => return Err(error),
                Err(_) if length == 1 => {
                    for (rule, own) in rules.iter().enumerate() {
                        let sql = format!("SELECT {} AS good FROM input", own.good);
                        good[rule][start] = match self.engine.run(&sql, &inputs, None).await {
                            Ok(found) => found.iter().all(|batch| batch.column(0).as_boolean().value(0)),
                            Err(_) => false,
                        };
                    }
                }
                Err(_) => {
                    let half = length / 2;
                    parts.push((start + half, length - half));
                    parts.push((start, half));
                }
            }
        }
        Ok(good)
    }

    fn add(&self, table: &TableName, rule: &QualityRule, checked: usize, failed: usize) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let own = counts.entry((table.clone(), rule.label())).or_default();
        own.checked += checked as i64;
        own.failed += failed as i64;
    }

    /// What was counted so far, a result a rule that judged rows.
    pub fn results(&self) -> Vec<QualityResult> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let result = |((table, label), counted): (&(TableName, String), &Counted)| {
            let rule = self.definition(table)?.quality.iter().find(|rule| rule.label() == *label)?;
            let mut result = QualityResult::new(table, rule, counted.checked, counted.failed);
            if counted.failed > 0 && rule.severity == Severity::Reject {
                result.detail = format!("{} of {} rows were rejected", counted.failed, counted.checked);
            }
            Some(result)
        };
        counts.iter().filter_map(result).collect()
    }

    /// The rows to look a reference up in: those that the run is about to write, else those of the lake.
    async fn referenced(
        &self,
        table: &TableName,
        columns: &[String],
        tables: &[(TableName, Vec<RecordBatch>)],
    ) -> Result<Vec<RecordBatch>> {
        if let Some((name, rows)) = tables.iter().find(|(name, _)| name == table) {
            return rows.iter().map(|rows| self.named(name, rows)).collect();
        }
        let list: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
        self.engine
            .read_tables(&format!("SELECT DISTINCT {} FROM {}", list.join(", "), quoted_table(table)))
            .await
    }

    async fn judge_table(
        &self,
        definition: &TableDefinition,
        rows: &[RecordBatch],
        tables: &[(TableName, Vec<RecordBatch>)],
    ) -> Result<()> {
        let Some(first) = rows.first() else { return Ok(()) };
        for rule in definition.quality.iter().filter(|rule| rule.judges_replacement()) {
            let own = rule.own_columns();
            if own.iter().any(|column| first.schema().column_with_name(column).is_none()) {
                continue;
            }
            let mut inputs = vec![("input".to_owned(), first.schema(), rows.to_vec())];
            if let (RuleKind::Referential, Some(table)) = (rule.rule, &rule.table) {
                let theirs = if rule.references.is_empty() { &own } else { &rule.references };
                let known = self.referenced(table, theirs, tables).await?;
                let Some(schema) = known.first().map(RecordBatch::schema) else { continue };
                inputs.push(("reference".to_owned(), schema, known));
            }
            let Some(counted) = count(rule, "input", "reference") else { continue };
            let found = self.engine.run(&counted.sql, &inputs, None).await?;
            let row = Rows::one(&found)?;
            let (checked, failed) = (row.integer("checked").unwrap_or(0), row.integer("failed").unwrap_or(0));
            self.add(&definition.table, rule, checked as usize, failed as usize);
            if failed > 0 && rule.severity == Severity::Stop {
                return Err(stopped(rule, &definition.table, failed as usize, checked as usize));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl RowGuard for Guard {
    async fn judge(&self, table: &TableName, rows: &RecordBatch) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        let Some(definition) = self.definition(table) else { return Ok(verdict) };
        let rows = &self.named(table, rows)?;
        let schema = without_added(rows.schema_ref());
        let rules = row_rules(definition, &schema);
        if rules.is_empty() || rows.num_rows() == 0 {
            return Ok(verdict);
        }
        let good = self.conditions(&rules, rows).await?;
        let mut refused = vec![false; rows.num_rows()];
        for (rule, good) in rules.iter().zip(&good) {
            let failed = good.iter().filter(|good| !**good).count();
            self.add(table, rule.rule, rows.num_rows(), failed);
            if failed == 0 {
                continue;
            }
            match rule.rule.severity {
                Severity::Warn => {}
                Severity::Stop => return Err(stopped(rule.rule, table, failed, rows.num_rows())),
                Severity::Reject => {
                    for (row, _) in good.iter().enumerate().filter(|(_, good)| !**good) {
                        if !std::mem::replace(&mut refused[row], true) {
                            let detail =
                                format!("the rule '{}' of table {table} does not hold", rule.rule.label());
                            verdict.rejects.push(row, REASON, detail);
                        }
                    }
                }
            }
        }
        verdict.rejects.0.sort_by_key(|reject| reject.index);
        Ok(verdict)
    }

    async fn judge_all(&self, tables: &[(TableName, Vec<RecordBatch>)]) -> Result<()> {
        for (table, rows) in tables {
            if let Some(definition) = self.definition(table) {
                let rows: Vec<_> = rows.iter().map(|rows| self.named(table, rows)).collect::<Result<_>>()?;
                self.judge_table(definition, &rows, tables).await?;
            }
        }
        Ok(())
    }
}

fn stopped(rule: &QualityRule, table: &TableName, failed: usize, checked: usize) -> Error {
    Error::config(format!(
        "the quality rule '{}' stops the pipeline: {failed} of {checked} rows for table {table} are at fault; nothing of \
         them was committed",
        rule.label()
    ))
    .with_help("mend the rows at their source, or change the rule or its severity in the table's definition")
}

/// The columns that a sink gives, without those that the lake adds.
fn without_added(schema: &SchemaRef) -> SchemaRef {
    let own = |name: &str| ![SEQUENCE, INGESTED_AT].contains(&name);
    let fields: Vec<_> = schema.fields().iter().filter(|field| own(field.name())).cloned().collect();
    Arc::new(Schema::new(fields))
}

/// The definition of a table with rules for the constraints that the table has and the definition does not name; `None`
/// when there is neither.
fn with_constraints(
    definition: Option<&Arc<TableDefinition>>,
    table: &TableName,
    constraints: BTreeMap<String, String>,
) -> Option<Arc<TableDefinition>> {
    let known = |name: &String| definition.is_some_and(|own| own.constraints.contains_key(name));
    let more: Vec<QualityRule> = constraints
        .iter()
        .filter(|(name, _)| !known(name))
        .map(|(name, expression)| QualityRule::constraint(name, expression))
        .collect();
    if more.is_empty() {
        return definition.cloned();
    }
    let mut all = definition.map_or_else(|| TableDefinition::empty(table), |own| own.as_ref().clone());
    all.quality.extend(more);
    Some(Arc::new(all))
}

/// The row-wise rules whose columns are all there.
fn row_rules<'a>(definition: &'a TableDefinition, schema: &SchemaRef) -> Vec<RowRule<'a>> {
    let there = |column: &String| schema.column_with_name(column).is_some();
    definition
        .quality
        .iter()
        .filter(|rule| rule.own_columns().iter().all(there))
        .filter_map(|rule| Some(RowRule { rule, good: rule.row_condition()? }))
        .collect()
}
