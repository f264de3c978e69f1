//! `simulate('water_network', network => 'town.inp', …)`: an operator on files, as a table.
//!
//! The names are those of the command line: `network`, `demand`, `inputs` (`'role=file.csv; role=file.csv'`), `table` (which
//! output; the first without), `seed`, and the operator's parameters. Only sessions that may read files of the machine may
//! name them. Nothing lands in the lake. Rows of a run that did not converge are an error, except its warnings.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::plan_err;
use datafusion::datasource::TableProvider;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::TryFutureExt;
use twinlake_contracts::{Error, OperatorSpec, Parameters};
use twinlake_query::{Arguments, may_read_file};

use crate::Twins;
use crate::field_files::{FieldFiles, output_schema, output_shape, rows_of};
use crate::functions::{parameters, seed};
use crate::view::through;

/// The arguments of a call on files that are not the operator's parameters.
const OWN: [&str; 6] = ["operator", "network", "demand", "inputs", "table", "seed"];

/// Whether a call names files. Without a network, a name that is also an input of the operator is that input.
pub(crate) fn is_asked(given: &Arguments, spec: &OperatorSpec) -> Result<bool> {
    if given.get("network").is_some() {
        return Ok(true);
    }
    for name in ["demand", "inputs"] {
        let is_input = spec.inputs.iter().any(|shape| shape.role == name);
        if given.get(name).is_some() && !is_input {
            return plan_err!("simulate: '{name}' needs network => 'file'");
        }
    }
    Ok(false)
}

/// The table of a call on files.
pub(crate) fn table(
    twins: &Arc<Twins>,
    spec: &OperatorSpec,
    given: &Arguments,
    session: &dyn Session,
) -> Result<Arc<dyn TableProvider>> {
    for name in ["scenario", "as_of", "model"] {
        if given.get(name).is_some() {
            return plan_err!("simulate: '{name}' is for runs on the twins, leave out 'network' or '{name}'");
        }
    }
    let known: Vec<&str> = OWN.into_iter().chain(spec.parameters.iter().map(|spec| spec.name)).collect();
    given.only(&known)?;
    let files = FieldFiles {
        network: PathBuf::from(given.text("network")?.unwrap_or_default()),
        demand: given.text("demand")?.map(PathBuf::from),
        inputs: inputs(given.text("inputs")?.as_deref().unwrap_or_default())?,
    };
    let named = [Some(&files.network), files.demand.as_ref()];
    for file in named.into_iter().flatten().chain(files.inputs.iter().map(|(_, file)| file)) {
        may_read_file(session, &file.display().to_string())?;
    }
    let asked = given.text("table")?;
    let schema = output_schema(output_shape(spec, asked.as_deref()).map_err(through)?).map_err(through)?;
    let run = FileRun {
        twins: twins.clone(),
        operator: spec.name.to_owned(),
        files,
        asked,
        seed: seed(given)?,
        parameters: parameters(given, &OWN)?,
        schema: schema.clone(),
    };
    Ok(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(run)])?))
}

/// `role=file` pairs between semicolons.
fn inputs(text: &str) -> Result<Vec<(String, PathBuf)>> {
    let pairs = text.split(';').map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let Some((role, file)) = pair.split_once('=') else {
                return plan_err!("simulate: '{pair}' in 'inputs' is not role=file");
            };
            Ok((role.trim().to_owned(), PathBuf::from(file.trim())))
        })
        .collect()
}

#[derive(Clone)]
struct FileRun {
    twins: Arc<Twins>,
    operator: String,
    files: FieldFiles,
    asked: Option<String>,
    seed: u64,
    parameters: Parameters,
    schema: SchemaRef,
}

impl std::fmt::Debug for FileRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileRun")
            .field("operator", &self.operator)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl PartitionStream for FileRun {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let run = self.clone();
        let work = move || {
            let operators = run.twins.operators();
            rows_of(&run.files, operators, &run.operator, run.asked.as_deref(), run.seed, &run.parameters)
        };
        let rows = tokio::task::spawn_blocking(work)
            .map_err(|error| Error::internal(format!("the operator broke off: {error}")))
            .and_then(std::future::ready)
            .map_err(through);
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), futures::stream::once(rows)))
    }
}
