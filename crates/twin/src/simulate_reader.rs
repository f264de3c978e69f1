//! The reader `simulate`: an operator as a stage of a pipeline.
//!
//! ```toml
//! [sources.pressures]
//! path = "data/town.inp"
//! reader = { type = "simulate", operator = "water_network", table = "nodes", parameters = { duration_s = 0 } }
//! ```
//!
//! The rows go on as those of any file: through SQL, into tables with a replace in one commit. The same files give the same
//! rows. A run that fails or does not converge fails the pipeline, and the table keeps its last version.

use std::path::PathBuf;

use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::Deserialize;
use twinlake_contracts::{BatchIterator, Component, Location, Parameters, Reader, Result};

use crate::field_files::{FieldFiles, output_schema, output_shape, rows_of};

/// Runs a simulation operator on a network file, and reads one of the tables that it gives.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SimulateSettings {
    /// The operator: `water_network` (EPANET), `power_flow` (MATPOWER), `production_line` (TOML), `traffic_assignment` and
    /// `route` (TNTP), `isochrone` and `accessibility` (TNTP, or a folder of GTFS).
    pub operator: String,
    /// Which of its tables; the first without.
    pub table: Option<String>,
    /// Trips in the format of TNTP, for operators that take a demand beside the network.
    pub demand_file: Option<PathBuf>,
    /// Further tables that the operator takes.
    #[serde(default)]
    pub inputs: Vec<InputFile>,
    /// The operator's parameters.
    #[serde(default)]
    pub parameters: Parameters,
    /// The seed of operators that draw random numbers.
    #[serde(default)]
    pub seed: u64,
}

/// A table that an operator takes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InputFile {
    /// Its role.
    pub role: String,
    /// A CSV file with a header.
    pub path: PathBuf,
}

impl Component for SimulateSettings {
    const TYPE: &'static str = "simulate";
    type Product = dyn Reader;

    fn build(self) -> Result<Box<dyn Reader>> {
        let spec = twinlake_simulate::registry().get(&self.operator)?.describe();
        spec.resolve(&self.parameters)?;
        let schema = output_schema(output_shape(&spec, self.table.as_deref())?)?;
        Ok(Box::new(SimulateReader { settings: self, schema }))
    }
}

struct SimulateReader {
    settings: SimulateSettings,
    schema: SchemaRef,
}

impl Reader for SimulateReader {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn read(&self, at: &Location) -> Result<BatchIterator> {
        let settings = &self.settings;
        let files = FieldFiles {
            network: at.0.clone(),
            demand: settings.demand_file.clone(),
            inputs: settings.inputs.iter().map(|input| (input.role.clone(), input.path.clone())).collect(),
        };
        let operators = twinlake_simulate::registry();
        let rows = rows_of(
            &files,
            &operators,
            &settings.operator,
            settings.table.as_deref(),
            settings.seed,
            &settings.parameters,
        );
        Ok(Box::new(std::iter::once(Ok(rows?))))
    }
}
