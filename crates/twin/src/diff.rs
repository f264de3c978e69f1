//! `scenario_diff(a, b)`: where two scenarios differ, property by property.
//!
//! A row a property of an instance whose value in `b` is not that in `a`, both as text, with the difference of numbers. An
//! instance that only one of them has is a row of its key. Properties and simulated columns are compared; when a state holds, since
//! when it is known and what a relation finds follow from those and are not. The difference of a scenario with itself is empty.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Builder, RecordBatch, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl};
use datafusion::datasource::TableProvider;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::{StreamExt, TryStreamExt};
use twinlake_query::{Arguments, Tense};

use crate::Twins;
use crate::model::{PropertyType, TwinModel};
use crate::snapshot::session_in;
use crate::twins::tense_call;
use crate::view::through;

/// What stands for the city as it is, besides null and an empty text: what `meta.scenarios` names as the base.
const OBSERVED: &str = "observed";

/// `scenario_diff(a, b [, model] [, at] [, known_at])`: `model`, `id`, `property`, `a`, `b` and `change`, which is b - a.
///
/// Without `at`, each scenario is read where it ends; the city as it is (`NULL`, `''`, `'observed'`) is read at the other's fork,
/// so that what happened since does not count as a difference.
pub(crate) struct ScenarioDiff(pub(crate) Arc<Twins>);

impl std::fmt::Debug for ScenarioDiff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScenarioDiff")
    }
}

impl TableFunctionImpl for ScenarioDiff {
    fn call_with_args(&self, arguments: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let mut given = Arguments::parse("scenario_diff", arguments.exprs())?;
        let names = ["a", "b", "model", "at", "known_at"];
        given.name_positional(&names)?;
        given.only(&names)?;
        let twins = &self.0;
        let scenario = |name: &str| -> Result<Option<String>> {
            let Some(name) = given.text(name)?.filter(|name| !name.is_empty()) else { return Ok(None) };
            match twins.scenario(&name) {
                Ok(_) => Ok(Some(name)),
                Err(_) if name == OBSERVED => Ok(None),
                Err(error) => Err(through(error)),
            }
        };
        let names = [scenario("a")?, scenario("b")?];
        let models = match given.text("model")? {
            Some(model) => vec![twins.model(&model).map_err(through)?],
            None => twins.models(),
        };
        let at = (given.instant_us("at")?, given.instant_us("known_at")?);
        let mut forks = Vec::new();
        for name in names.iter().flatten() {
            let scenario = twins.scenario(name).map_err(through)?;
            forks.push((scenario.fork_at_us, scenario.fork_known_at_us));
        }
        let tenses = names.map(|scenario| {
            let fork = if scenario.is_none() { forks.first().copied() } else { None };
            let (as_of, known) = if at == (None, None) { fork.unwrap_or_default() } else { at };
            Tense { as_of_us: as_of, known_at_us: known, scenario }
        });
        let difference = Difference { twins: twins.clone(), models, tenses, schema: schema() };
        let schema = difference.schema.clone();
        Ok(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(difference)])?))
    }
}

fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let mut fields: Vec<Field> = ["model", "id", "property", "a", "b"].map(text).into();
    fields.push(Field::new("change", DataType::Float64, true));
    Arc::new(Schema::new(fields))
}

#[derive(Clone)]
struct Difference {
    twins: Arc<Twins>,
    models: Vec<Arc<TwinModel>>,
    tenses: [Tense; 2],
    schema: SchemaRef,
}

impl std::fmt::Debug for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Difference").field("tenses", &self.tenses).finish_non_exhaustive()
    }
}

/// The columns that are compared: the key first.
fn compared(model: &TwinModel) -> Vec<(&str, PropertyType)> {
    let own = model.properties.iter().filter(|(name, _)| **name != model.key);
    let key = model.properties.get_key_value(&model.key);
    let simulated = model.simulation.iter().flat_map(|simulation| &simulation.columns);
    key.into_iter()
        .chain(own)
        .map(|(name, property)| (name.as_str(), property.kind))
        .chain(simulated.map(|(name, column)| (name.as_str(), column.kind)))
        .collect()
}

/// The rows that differ: for each compared column the value in the one and in the other.
fn differing_sql(model: &TwinModel, [a, b]: &[Tense; 2]) -> String {
    let columns = compared(model);
    let shown = |side: &str, (name, kind): (&str, PropertyType)| match kind {
        PropertyType::Geometry => format!("st_astext({side}.\"{name}\")"),
        _ => format!("{side}.\"{name}\""),
    };
    let mut selected = Vec::new();
    let mut differ = Vec::new();
    for (place, column) in columns.iter().enumerate() {
        selected.push(format!("{} AS a{place}, {} AS b{place}", shown("a", *column), shown("b", *column)));
        differ.push(format!("(a.\"{0}\" IS DISTINCT FROM b.\"{0}\")", column.0));
    }
    format!(
        "SELECT {} FROM {} AS a FULL JOIN {} AS b ON a.\"{3}\" = b.\"{3}\" WHERE {4} ORDER BY coalesce(a.\"{3}\", b.\"{3}\")",
        selected.join(", "),
        tense_call(&model.name, a),
        tense_call(&model.name, b),
        model.key,
        differ.join(" OR "),
    )
}

/// One batch of rows that differ, property by property.
fn told(model: &TwinModel, rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = compared(model);
    let options = FormatOptions::default();
    let mut texts = [(); 5].map(|()| StringBuilder::new());
    let mut changes = Float64Builder::new();
    let formatters: Vec<ArrayFormatter<'_>> = rows
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options))
        .collect::<Result<_, _>>()?;
    let number = |place: usize| -> Result<Option<ArrayRef>> {
        let column = rows.column(place);
        Ok(if column.data_type().is_numeric() { Some(cast(column, &DataType::Float64)?) } else { None })
    };
    let numbers: Vec<Option<ArrayRef>> = (0..rows.num_columns()).map(number).collect::<Result<_>>()?;
    for row in 0..rows.num_rows() {
        let text = |place: usize| -> Option<String> {
            rows.column(place).is_valid(row).then(|| formatters[place].value(row).to_string())
        };
        let id = text(0).or_else(|| text(1));
        let alone = rows.column(0).is_null(row) || rows.column(1).is_null(row);
        for (place, (property, _)) in columns.iter().enumerate() {
            let (a, b) = (text(2 * place), text(2 * place + 1));
            // An instance that only one has is told once, by its key.
            if a == b || (alone && place > 0) {
                continue;
            }
            let value = |place: usize| -> Option<f64> {
                let column = numbers[place].as_ref()?.as_primitive::<Float64Type>();
                column.is_valid(row).then(|| column.value(row))
            };
            let change = match (value(2 * place), value(2 * place + 1)) {
                (Some(a), Some(b)) if !alone => Some(b - a),
                _ => None,
            };
            let cells = [Some(model.name.clone()), id.clone(), Some((*property).to_owned()), a, b];
            for (column, cell) in texts.iter_mut().zip(cells) {
                column.append_option(cell);
            }
            changes.append_option(change);
        }
    }
    let mut arrays: Vec<ArrayRef> =
        texts.into_iter().map(|mut column| Arc::new(column.finish()) as ArrayRef).collect();
    arrays.push(Arc::new(changes.finish()));
    Ok(RecordBatch::try_new(schema.clone(), arrays)?)
}

impl PartitionStream for Difference {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let this = self.clone();
        let models = futures::stream::iter(this.models.clone()).then(move |model| {
            let this = this.clone();
            async move {
                let session = session_in(&this.twins, &Tense::default()).await.map_err(through)?;
                let rows = session.execute(&differing_sql(&model, &this.tenses)).await.map_err(through)?;
                let schema = this.schema.clone();
                Ok::<_, datafusion::error::DataFusionError>(
                    rows.map(move |batch| batch.and_then(|batch| told(&model, &batch, &schema))),
                )
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), models.try_flatten()))
    }
}
