//! An operator straight on the field's own files: EPANET, MATPOWER and TNTP networks, production lines in TOML, folders of GTFS.
//!
//! The command line, SQL (`simulate('water_network', network => 'town.inp')`) and pipelines (the reader `simulate`) all come
//! here, so that the same files and parameters give the same rows at each door. Blocking: call it off the async runtime.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use twinlake_contracts::{
    Error, Horizon, OperatorRegistry, OperatorSpec, Outcome, Parameters, Progress, Result, Snapshot,
    TableShape, suggest, timestamp_type,
};
use twinlake_formats::network_files::read_text;
use twinlake_formats::{csv_table, epanet, gtfs, line_toml, matpower, tntp};

/// The output that says what is wrong with a run.
const WARNINGS: &str = "warnings";

/// The files of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldFiles {
    /// The network, in the format of the operator's field; a folder is a GTFS feed.
    pub network: PathBuf,
    /// Trips in the format of TNTP, for operators that take a demand beside the network.
    pub demand: Option<PathBuf>,
    /// Further tables: role, and a CSV file with a header.
    pub inputs: Vec<(String, PathBuf)>,
}

impl FieldFiles {
    /// Reads the files and runs the operator. Errors name file and place where the format knows them.
    pub fn run(
        &self,
        operators: &OperatorRegistry,
        operator: &str,
        seed: u64,
        parameters: &Parameters,
        progress: Progress<'_>,
    ) -> Result<Outcome> {
        let found = operators.get(operator)?;
        let snapshot = self.snapshot(operator)?;
        let outcome = found.run(&snapshot, Horizon { from_us: 0, to_us: 0 }, seed, parameters, progress);
        outcome.map_err(|error| self.placed(operator, error))
    }

    fn snapshot(&self, operator: &str) -> Result<Snapshot> {
        let mut snapshot = Snapshot { tables: network_tables(operator, &self.network)? };
        for (role, path) in &self.inputs {
            let table = csv_table::read_table(&read_text(path)?, &path.display().to_string())?;
            snapshot.tables.insert(role.clone(), table);
        }
        if let Some(demand) = &self.demand {
            if snapshot.tables.contains_key("demand") || !snapshot.tables.contains_key("nodes") {
                return Err(Error::config(format!("{operator} takes its demand from the network"))
                    .with_help("leave out the demand"));
            }
            let trips = tntp::read_trips(&read_text(demand)?, &demand.display().to_string())?;
            snapshot.tables.insert("demand".to_owned(), trips);
        }
        Ok(snapshot)
    }

    /// An error of the operator, with its place in the network file where the format knows it.
    fn placed(&self, operator: &str, error: Error) -> Error {
        match (operator, read_text(&self.network)) {
            ("production_line", Ok(text)) => {
                line_toml::placed(error, &text, &self.network.display().to_string())
            }
            _ => error,
        }
    }
}

/// The tables of a network file, by the format of the operator's field; of a folder, those of its GTFS files.
fn network_tables(operator: &str, network: &Path) -> Result<BTreeMap<String, RecordBatch>> {
    let name = network.display().to_string();
    if network.is_dir() {
        return gtfs::read_feed(&feed_files(network)?, &name);
    }
    let text = read_text(network)?;
    match operator {
        "power_flow" => matpower::read_case(&text, &name),
        "water_network" => epanet::read_network(&text, &name),
        "production_line" => line_toml::read_line(&text, &name),
        _ => tntp::read_network(&text, &name),
    }
}

/// The text files of a GTFS feed by name.
fn feed_files(folder: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let wrong = |error: std::io::Error| Error::config(format!("cannot read {}: {error}", folder.display()));
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        if path.extension().is_some_and(|extension| extension == "txt")
            && let Some(name) = path.file_name().and_then(|name| name.to_str())
        {
            files.insert(name.to_owned(), read_text(&path)?);
        }
    }
    Ok(files)
}

/// The output asked for; without a name the first that the operator describes.
pub fn output_shape<'a>(spec: &'a OperatorSpec, asked: Option<&str>) -> Result<&'a TableShape> {
    let Some(asked) = asked else {
        return spec.outputs.first().ok_or_else(|| Error::internal(format!("{} gives nothing", spec.name)));
    };
    spec.outputs.iter().find(|shape| shape.role == asked).ok_or_else(|| {
        let known: Vec<&str> = spec.outputs.iter().map(|shape| shape.role).collect();
        let help = match suggest(asked, known.iter().copied()) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("it gives: {}", known.join(", ")),
        };
        Error::config(format!("{} gives no table '{asked}'", spec.name)).with_help(help)
    })
}

/// The columns that an operator describes for an output, known before it runs.
pub fn output_schema(shape: &TableShape) -> Result<SchemaRef> {
    let fields = shape.columns.iter().map(|(name, kind, _)| Ok(Field::new(*name, data_type(kind)?, true)));
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?)))
}

/// The Arrow type that a description names.
fn data_type(name: &str) -> Result<DataType> {
    Ok(match name {
        "Int64" => DataType::Int64,
        "Float64" => DataType::Float64,
        "Utf8" => DataType::Utf8,
        "Boolean" => DataType::Boolean,
        "Binary" => DataType::Binary,
        "Timestamp(us, UTC)" => timestamp_type(),
        other => return Err(Error::internal(format!("no operator may give a column of type '{other}'"))),
    })
}

/// The rows of an output in the columns that the operator describes. A column that a run in its mode does not give is null.
fn output_rows(outcome: &Outcome, shape: &TableShape) -> Result<RecordBatch> {
    let schema = output_schema(shape)?;
    let given = outcome.tables.get(shape.role).ok_or_else(|| Error::internal("an output is missing"))?;
    let columns = schema.fields().iter().map(|field| {
        Ok(match given.column_by_name(field.name()) {
            Some(column) => cast(column, field.data_type())?,
            None => new_null_array(field.data_type(), given.num_rows()),
        })
    });
    let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// The rows of one output of a run on files. A run that did not converge is an error, unless its warnings are asked for;
/// so is a table that the run, in its mode, does not give.
pub(crate) fn rows_of(
    files: &FieldFiles,
    operators: &OperatorRegistry,
    operator: &str,
    asked: Option<&str>,
    seed: u64,
    parameters: &Parameters,
) -> Result<RecordBatch> {
    let spec = operators.get(operator)?.describe();
    let shape = output_shape(&spec, asked)?;
    let outcome = files.run(operators, operator, seed, parameters, &|_, _| true)?;
    let way_out =
        "give it more iterations or a wider tolerance; twinlake simulate shows what it has all the same";
    rows_of_outcome(outcome, operator, shape, way_out)
}

/// The rows of one output of a run, in the columns that the operator describes. `way_out` is for a run that did not converge.
pub(crate) fn rows_of_outcome(
    outcome: Outcome,
    operator: &str,
    shape: &TableShape,
    way_out: &str,
) -> Result<RecordBatch> {
    if outcome.summary.get("converged") == Some(&serde_json::Value::Bool(false)) && shape.role != WARNINGS {
        let figures = serde_json::Value::Object(outcome.summary);
        return Err(Error::config(format!("{operator} did not converge: {figures}")).with_help(way_out));
    }
    if !outcome.tables.contains_key(shape.role) {
        let given: Vec<&str> = outcome.tables.keys().map(String::as_str).collect();
        return Err(Error::config(format!(
            "{operator} with these parameters gives no table '{}'",
            shape.role
        ))
        .with_help(format!("it gives: {}", given.join(", "))));
    }
    output_rows(&outcome, shape)
}
