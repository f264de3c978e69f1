//! The frozen city: what an operator is given, from which table versions, and a hash that tells equal ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::row::{RowConverter, SortField};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::DataFrame;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{self, SetExpr};
use indexmap::IndexMap;
use sha2::{Digest, Sha256};
use twinlake_contracts::{Error, Parameters, Result, Snapshot, TableName, format_us};
use twinlake_query::{Session, SessionSettings, Tense};

use crate::Twins;
use crate::demand;
use crate::model::{DemandBinding, RELATIONS, SimulationBinding};
use crate::scenario::Pins;

/// How often a snapshot is taken anew because a table got a new version meanwhile.
const ATTEMPTS: usize = 5;

/// A snapshot with its provenance.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) snapshot: Snapshot,
    /// The Delta version of each table that was read.
    pub(crate) versions: BTreeMap<String, u64>,
    /// What the run says of itself besides its operator: the figures of its demand, and which member of an ensemble it is.
    pub(crate) told: serde_json::Map<String, serde_json::Value>,
}

/// What an operator is given.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) operator: String,
    /// Role → SQL.
    pub(crate) inputs: IndexMap<String, String>,
    pub(crate) demand: Option<DemandBinding>,
    /// Tables that are no input, though twins show them: what its earlier runs have said.
    pub(crate) earlier: Vec<TableName>,
    /// Whether the SQL may read files of this machine.
    pub(crate) local_files: bool,
    /// How many operators wait for this one, whose inputs it is a part of.
    pub(crate) depth: usize,
}

/// How many operators wait for what a session asks.
struct Depth(usize);

/// Operators that ask operators, one through the other, at most.
const DEEPEST: usize = 8;

/// How many operators wait for what `session` asks; an error where it is so many that they must be asking themselves.
pub(crate) fn depth(session: &dyn datafusion::catalog::Session, operator: &str) -> Result<usize> {
    let depth = session.config().get_extension::<Depth>().map_or(0, |depth| depth.0);
    if depth < DEEPEST {
        return Ok(depth);
    }
    let message = format!("{operator} is asked by {depth} operators, one through the other");
    Err(Error::config(message).with_help("an input must not read what its own operator says of it"))
}

impl Wanted {
    /// What a model's simulation takes.
    pub(crate) fn bound(twins: &Twins, binding: &SimulationBinding) -> Self {
        Self {
            operator: binding.operator.clone(),
            inputs: binding.inputs.clone(),
            demand: binding.demand.clone(),
            earlier: twins.result_tables(binding),
            local_files: false,
            depth: 0,
        }
    }

    /// A session that the inputs are read in.
    async fn session(&self, twins: &Twins, tense: &Tense) -> Result<Session> {
        let session = session_with(twins, tense, self.local_files).await?;
        session.context().state_ref().write().config_mut().set_extension(Arc::new(Depth(self.depth + 1)));
        Ok(session)
    }

    /// Plans the SQL of a role and runs nothing: a mistake is told with the role's name.
    pub(crate) async fn plan(&self, twins: &Twins, role: &str, tense: &Tense) -> Result<()> {
        let Some(sql) = self.inputs.get(role) else { return Ok(()) };
        let session = self.session(twins, tense).await?;
        let planned = async { session.plan(query(sql)?).await }.await;
        planned.map(|_| ()).map_err(|error| of_input(&error, &self.operator, role))
    }
}

/// Parses SQL that must be one query: what else a statement can be has no rows.
pub(crate) fn query(sql: &str) -> Result<Statement> {
    let mut statements = twinlake_query::parse(sql)?;
    let (Some(statement), true) = (statements.pop_front(), statements.is_empty()) else {
        return Err(Error::config("it must be one statement").with_help(QUERY));
    };
    let is_query = match &statement {
        Statement::Statement(inner) => match inner.as_ref() {
            ast::Statement::Query(query) => !matches!(
                query.body.as_ref(),
                SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_)
            ),
            _ => false,
        },
        _ => false,
    };
    if is_query {
        return Ok(statement);
    }
    let word = sql.split_whitespace().next().unwrap_or_default().to_uppercase();
    Err(Error::config(format!("only a query has rows, {word} is none")).with_help(QUERY))
}

/// What to write in place of what is no query.
const QUERY: &str = "write SELECT …";

/// Reads the inputs of an operator in one tense, and makes its demand.
pub(crate) async fn freeze(
    twins: &Twins,
    wanted: &Wanted,
    tense: &Tense,
    parameters: &Parameters,
    pins: Option<&Arc<Pins>>,
) -> Result<Frozen> {
    // Demand is that of the city as it is: closing a street does not change what people want.
    let without_scenario = Tense { scenario: None, ..tense.clone() };
    for _ in 0..ATTEMPTS {
        let mut names = BTreeSet::new();
        let mut tables = BTreeMap::new();
        let session = wanted.session(twins, tense).await?;
        if let Some(pins) = pins {
            session.context().state_ref().write().config_mut().set_extension(Arc::clone(pins));
        }
        for (role, sql) in &wanted.inputs {
            let rows = read(twins, &session, sql, &mut names).await;
            let rows = rows.map_err(|error| of_input(&error, &wanted.operator, role))?;
            tables.insert(role.clone(), rows);
        }
        // What its earlier runs have said is no input.
        for earlier in &wanted.earlier {
            names.remove(earlier);
        }
        let demanded = match &wanted.demand {
            None => None,
            Some(demand) => {
                let base = session_in(twins, &without_scenario).await?;
                Some(DemandTables {
                    nodes: read(twins, &base, &demand.nodes, &mut names).await?,
                    links: read(twins, &base, &demand.links, &mut names).await?,
                    buildings: read(twins, &base, &demand.buildings, &mut names).await?,
                })
            }
        };
        let versions = versions(twins, &names);
        // Read again: nothing may have changed between the first table and the last.
        for name in &names {
            twins.provider(name).await?;
        }
        if self::versions(twins, &names) != versions {
            continue;
        }
        let mut made = serde_json::Map::new();
        if let (Some(demanded), Some(demand)) = (demanded, &wanted.demand) {
            let (table, summary) = make(demanded, demand, parameters.clone()).await?;
            tables.insert(demand.role.clone(), table);
            made = summary;
        }
        let named = versions.into_iter().map(|(name, version)| (name.to_string(), version)).collect();
        return Ok(Frozen { snapshot: Snapshot { tables }, versions: named, told: made });
    }
    Err(Error::transient("lake", "the tables of a simulation change faster than they can be read"))
}

struct DemandTables {
    nodes: RecordBatch,
    links: RecordBatch,
    buildings: RecordBatch,
}

async fn make(
    tables: DemandTables,
    binding: &DemandBinding,
    parameters: Parameters,
) -> Result<(RecordBatch, serde_json::Map<String, serde_json::Value>)> {
    let role = binding.role.clone();
    let work = move || demand::gravity(&tables.nodes, &tables.links, &tables.buildings, &parameters);
    let made = tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal(format!("the demand '{role}' was not made: {error}")))??;
    Ok((made.table, made.summary))
}

/// A session of the engine in that tense.
pub(crate) async fn session_in(twins: &Twins, tense: &Tense) -> Result<Session> {
    session_with(twins, tense, false).await
}

/// As [`session_in`], where SQL may read files of this machine or not.
async fn session_with(twins: &Twins, tense: &Tense, local_files: bool) -> Result<Session> {
    let session = twins.engine()?.session(SessionSettings { local_files })?;
    let instant = |us: Option<i64>| us.map(format_us);
    let settings = [
        ("as_of", instant(tense.as_of_us)),
        ("known_at", instant(tense.known_at_us)),
        ("scenario", tense.scenario.clone()),
    ];
    for (name, value) in settings {
        if let Some(value) = value {
            session.sql(&format!("SET twin.{name} = '{}'", value.replace('\'', "''"))).await?;
        }
    }
    Ok(session)
}

/// Says whose input failed.
pub(crate) fn of_input(error: &Error, operator: &str, role: &str) -> Error {
    let whose = format!("the input '{role}' of {operator}");
    match error {
        // What its SQL names is the author's to say, not the caller's of the operator.
        Error::NotFound { .. } => Error::config(format!("{whose}: {error}")),
        Error::Data { reason, message } => {
            Error::Data { reason: reason.clone(), message: format!("{whose}: {message}") }
        }
        Error::Config(known) => {
            let failed = Error::config(format!("{whose}: {}", known.message));
            match &known.help {
                Some(help) => failed.with_help(help.clone()),
                None => failed,
            }
        }
        other => other.clone(),
    }
}

/// Runs one input's SQL; `names` gets the lake tables behind it.
async fn read(
    twins: &Twins,
    session: &Session,
    sql: &str,
    names: &mut BTreeSet<TableName>,
) -> Result<RecordBatch> {
    let frame: DataFrame = session.statement(query(sql)?).await?;
    names.extend(tables_of(twins, frame.logical_plan()));
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.collect().await.map_err(|error| session.error(error))?;
    let schema = batches.first().map_or(schema, RecordBatch::schema);
    canonical(&concat_batches(&schema, &batches)?)
}

/// The lake tables that a plan reads; a twin stands for the tables that it is bound to.
fn tables_of(twins: &Twins, plan: &LogicalPlan) -> BTreeSet<TableName> {
    let mut names = BTreeSet::new();
    // The closure gives no error, so neither does the walk.
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let schema = scan.table_name.schema().unwrap_or_default();
            let table = scan.table_name.table();
            if schema == "twin" && table == RELATIONS {
                // Edges are where both their ends are.
                let models = twins.models();
                let ends = models.iter().flat_map(|model| {
                    let others =
                        model.relations.values().filter_map(|relation| twins.model(&relation.twin).ok());
                    others.chain((!model.relations.is_empty()).then(|| model.clone()))
                });
                names.extend(ends.filter_map(|model| model.table().cloned()));
            } else if schema == "twin" {
                let model = twins.model(table.strip_suffix("_history").unwrap_or(table)).ok();
                names.extend(model.iter().filter_map(|model| model.table().cloned()));
                // What other simulations have said of it.
                let simulated = model.iter().filter_map(|model| model.simulation.as_ref());
                names.extend(simulated.map(|binding| binding.table.clone()));
            } else if let Ok(name) = TableName::parse(&format!("{schema}.{table}")) {
                names.insert(name);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    names
}

fn versions(twins: &Twins, names: &BTreeSet<TableName>) -> BTreeMap<TableName, u64> {
    let known = |name: &TableName| twins.lake().table(name).map(|table| (name.clone(), table.version()));
    names.iter().filter_map(known).collect()
}

/// The rows sorted by all columns from left to right, in plain types: equal tables become equal bytes.
fn canonical(batch: &RecordBatch) -> Result<RecordBatch> {
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let plain = match column.data_type() {
            DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
            DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
            other => other.clone(),
        };
        columns.push(cast(column, &plain)?);
        fields.push(Field::new(field.name(), plain, true));
    }
    if columns.is_empty() {
        return Ok(batch.clone());
    }
    let sort = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let rows = RowConverter::new(sort)?.convert_columns(&columns)?;
    let mut order: Vec<u32> = (0..batch.num_rows() as u32).collect();
    order.sort_by(|a, b| rows.row(*a as usize).cmp(&rows.row(*b as usize)));
    let plain = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    Ok(take_record_batch(&plain, &UInt32Array::from(order))?)
}

/// SHA-256 over the tables' names, columns and values, in an encoding that does not depend on how rows were batched.
pub(crate) fn hash(snapshot: &Snapshot, hasher: &mut Sha256) -> Result<()> {
    for (role, batch) in &snapshot.tables {
        hasher.update(format!("{role}:{}\n", batch.num_rows()));
        for field in batch.schema().fields() {
            hasher.update(format!("{} {}\n", field.name(), field.data_type()));
        }
        if batch.num_columns() == 0 {
            continue;
        }
        let sort = batch.columns().iter().map(|column| SortField::new(column.data_type().clone())).collect();
        for row in &RowConverter::new(sort)?.convert_columns(batch.columns())? {
            hasher.update(row.as_ref());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray, StringViewArray};

    fn hashed(batch: &RecordBatch) -> Vec<u8> {
        let snapshot = Snapshot { tables: BTreeMap::from([("links".to_owned(), canonical(batch).unwrap())]) };
        let mut hasher = Sha256::new();
        hash(&snapshot, &mut hasher).unwrap();
        hasher.finalize().to_vec()
    }

    #[test]
    fn equal_tables_hash_equal_in_any_order_and_string_type() {
        let ids = |ids: Vec<i64>| Arc::new(Int64Array::from(ids)) as ArrayRef;
        let one = RecordBatch::try_from_iter([
            ("id", ids(vec![2, 1])),
            ("name", Arc::new(StringArray::from(vec![None, Some("a")])) as ArrayRef),
        ]);
        let other = RecordBatch::try_from_iter([
            ("id", ids(vec![1, 2])),
            ("name", Arc::new(StringViewArray::from(vec![Some("a"), None])) as ArrayRef),
        ]);
        let different = RecordBatch::try_from_iter([
            ("id", ids(vec![1, 2])),
            ("name", Arc::new(StringArray::from(vec![Some("a"), Some("")])) as ArrayRef),
        ]);
        assert_eq!(hashed(one.as_ref().unwrap()), hashed(other.as_ref().unwrap()));
        assert_ne!(hashed(one.as_ref().unwrap()), hashed(different.as_ref().unwrap()));
    }
}
