//! Constraints of a table: conditions on single rows, kept in Delta's own form (`delta.constraints.NAME`), so that other
//! engines hold their rows to them, too.
//!
//! A row passes when the condition is true; false and null fail, as the Delta protocol says. Rows that fail are refused
//! here, the last door; pipelines and the HTTP intake ask before ([`TableWriter::violations`]) and make rejects of them.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::physical_plan::{ColumnarValue, PhysicalExpr};
use deltalake_core::table::state::DeltaTableState;
use twinlake_contracts::{Error, Rejects, Result, TableName};

use super::{LakeTable, SCAN_DEFAULTS};
use crate::error;

/// How Delta names the property with a constraint.
const PREFIX: &str = "delta.constraints.";
/// The reason of rows that fail, in `meta.rejects`.
const REASON: &str = "constraint";

/// A condition that every row fulfils.
#[derive(Clone)]
struct Constraint {
    name: String,
    expression: String,
    condition: Arc<dyn PhysicalExpr>,
}

/// The constraints of a version of a table.
#[derive(Clone, Default)]
pub(super) struct Constraints(Arc<Vec<Constraint>>);

impl fmt::Debug for Constraints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|own| (&own.name, &own.expression))).finish()
    }
}

fn plan(expression: &str, schema: &SchemaRef) -> datafusion::error::Result<Arc<dyn PhysicalExpr>> {
    let columns = DFSchema::try_from(Arc::clone(schema))?;
    let logical = SCAN_DEFAULTS.create_logical_expr(expression, &columns)?;
    let condition = SCAN_DEFAULTS.create_physical_expr(logical, &columns)?;
    if condition.data_type(schema)? != DataType::Boolean {
        return datafusion::common::plan_err!("'{expression}' is not true or false");
    }
    Ok(condition)
}

impl Constraints {
    /// Those of a version, over its columns.
    pub(super) fn of(system: &str, state: &DeltaTableState, schema: &SchemaRef) -> Result<Self> {
        let configuration = state.metadata().configuration().iter();
        let own = configuration.filter_map(|(key, expression)| Some((key.strip_prefix(PREFIX)?, expression)));
        let sorted: BTreeMap<&str, &String> = own.collect();
        let planned = sorted.into_iter().map(|(name, expression)| {
            let condition = plan(expression, schema).map_err(|error| {
                Error::config(format!("the constraint '{name}' of {system} is not understood: {error}"))
                    .with_help("drop it with: twinlake table alter --drop-constraint NAME")
            })?;
            Ok(Constraint { name: name.to_owned(), expression: expression.clone(), condition })
        });
        Ok(Self(Arc::new(planned.collect::<Result<_>>()?)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rows that fail, each with the first constraint that it fails; rows have all columns of the table.
    pub(super) fn violations(&self, table: &TableName, rows: &RecordBatch) -> Result<Rejects> {
        let mut rejects = Rejects::default();
        let mut failed = vec![false; rows.num_rows()];
        for own in self.0.iter() {
            let good = own.condition.evaluate(rows).map_err(|error| {
                Error::data(REASON, format!("the constraint '{}' of table {table}: {error}", own.name))
            })?;
            let good = match good {
                ColumnarValue::Scalar(ScalarValue::Boolean(Some(true))) => continue,
                other => other.into_array(rows.num_rows()).map_err(Error::internal)?,
            };
            let good = good.as_boolean();
            for (row, failed) in failed.iter_mut().enumerate() {
                let passes = good.is_valid(row) && good.value(row);
                if !passes && !std::mem::replace(failed, true) {
                    let detail = format!(
                        "the constraint '{}' of table {table} does not hold: {}",
                        own.name, own.expression
                    );
                    rejects.push(row, REASON, detail);
                }
            }
        }
        rejects.0.sort_by_key(|reject| reject.index);
        Ok(rejects)
    }

    /// Refuses rows of which one fails.
    pub(super) fn hold(&self, table: &TableName, rows: &RecordBatch) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let rejects = self.violations(table, rows)?;
        match rejects.0.first() {
            None => Ok(()),
            Some(first) => Err(Error::data(
                REASON,
                format!("{} ({} of {} rows)", first.detail, rejects.0.len(), rows.num_rows()),
            )),
        }
    }
}

impl LakeTable {
    /// Its constraints: name and condition.
    pub fn constraints(&self) -> BTreeMap<String, String> {
        let readable = self.readable();
        readable.constraints.0.iter().map(|own| (own.name.clone(), own.expression.clone())).collect()
    }

    /// Whether it has this constraint, however it is written.
    pub fn has_constraint(&self, name: &str, expression: &str) -> bool {
        let readable = self.readable();
        let known = readable.constraints.0.iter().find(|own| own.name == name);
        let wanted = plan(expression, &readable.schema);
        known.zip(wanted.ok()).is_some_and(|(known, wanted)| {
            known.expression == expression || known.condition.to_string() == wanted.to_string()
        })
    }

    /// Adds a constraint: an SQL expression over the columns of a row. Rows that are there, committed or fresh, must fulfil
    /// it. The same once more changes nothing; another one of that name is an error.
    pub async fn add_constraint(&self, name: &str, expression: &str) -> Result<()> {
        let wrong = |why: String| {
            Error::config(format!("the constraint '{name}' cannot be added to table {}: {why}", self.name))
        };
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(word) {
            return Err(wrong("its name is not a word of letters, digits and _".to_owned()));
        }
        let mut side = self.write_side.lock().await;
        self.look_for_news(&mut side).await?;
        let (schema, fresh) = {
            let readable = self.readable();
            let fresh: Vec<RecordBatch> =
                readable.fresh.values().flat_map(|fresh| fresh.batches.iter().cloned()).collect();
            (Arc::clone(&readable.schema), fresh)
        };
        let condition = plan(expression, &schema).map_err(|error| wrong(error.to_string()))?;
        let own = Constraint { name: name.to_owned(), expression: expression.to_owned(), condition };
        let alone = Self::alone(own);
        for batch in &fresh {
            alone.hold(&self.name, batch).map_err(|error| wrong(format!("rows break it: {error}")))?;
        }
        if self.has_constraint(name, expression) {
            return Ok(());
        }
        let added = side.table.clone().add_constraint().with_constraint(name, expression).await;
        side.table = added.map_err(|error| match error {
            deltalake_core::DeltaTableError::Generic(text) => wrong(format!("rows break it: {text}")),
            other => match error::delta(&self.system, &other) {
                error @ Error::External { .. } => error,
                error => wrong(format!("rows break it: {error}")),
            },
        })?;
        self.publish(&mut side, None, &HashSet::new(), false).await
    }

    fn alone(own: Constraint) -> Constraints {
        Constraints(Arc::new(vec![own]))
    }

    /// Takes a constraint away; one that is not there is an error.
    pub async fn drop_constraint(&self, name: &str) -> Result<()> {
        let mut side = self.write_side.lock().await;
        self.look_for_news(&mut side).await?;
        if !self.constraints().contains_key(name) {
            let known = self.constraints();
            let known = known.keys().map(String::as_str);
            return Err(Error::not_found("constraint", name, known));
        }
        let dropped = side.table.clone().drop_constraints().with_constraint(name).await;
        side.table = dropped.map_err(|error| error::delta(&self.system, &error))?;
        self.publish(&mut side, None, &HashSet::new(), false).await
    }
}
