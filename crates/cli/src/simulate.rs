//! `twinlake simulate`: an operator on the twins, or straight on the field's own files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use twinlake_contracts::{Error, OperatorSpec, Outcome, Parameters};
use twinlake_query::output;
use twinlake_twin::FieldFiles;

use crate::WrongUse;
use crate::arguments::{Format, SimulateOptions};
use crate::printed::Printed;
use crate::progress;
use crate::settings::Settings;
use crate::sql::print_format;
use crate::town::Town;

/// Runs the operator and prints or writes what it gave.
pub async fn run(settings: &Settings, options: &SimulateOptions) -> Result<()> {
    let registry = twinlake_simulate::registry();
    let operator = registry.get(&options.operator).map_err(WrongUse)?.describe();
    let parameters = parse_parameters(&options.set).map_err(WrongUse)?;
    operator.resolve(&parameters).map_err(WrongUse)?;
    let (rows, summary) = match &options.network {
        Some(network) => {
            if options.scenario.is_some() {
                let error = Error::config("--scenario works on the twins, not on --network");
                return Err(WrongUse(error.with_help("leave out --network to run on the twins")).into());
            }
            if options.model.is_some() {
                return Err(WrongUse(Error::config("--model is of the twins, not of --network")).into());
            }
            let role = result_table(&operator, options.table.as_deref()).map_err(WrongUse)?;
            let outcome = on_files(settings, options, network, parameters).await?;
            // Without a name the first output that this run gave: which there are depends on the operator's mode.
            let rows = match role {
                Some(role) => outcome.tables.get(role).cloned(),
                None => operator.outputs.iter().find_map(|shape| outcome.tables.get(shape.role).cloned()),
            };
            let rows = rows.context("the operator gave no rows")?;
            (vec![rows], serde_json::Value::Object(outcome.summary))
        }
        None if options.demand.is_some() => {
            return Err(WrongUse(Error::config("--demand needs --network")).into());
        }
        None if options.table.is_some() => {
            return Err(WrongUse(Error::config("--table needs --network")).into());
        }
        None if !options.input.is_empty() => {
            return Err(WrongUse(Error::config("--input needs --network")).into());
        }
        None => on_twins(settings, options, parameters).await?,
    };
    if let Some(file) = &options.output {
        let format = options.format.map_or_else(|| by_ending(file), Ok)?;
        let mut writer =
            fs::File::create(file).with_context(|| format!("cannot write {}", file.display()))?;
        write(&rows, format, &mut writer)?;
    }
    if options.summary.is_some() {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else if options.output.is_none() {
        write(&rows, options.format.unwrap_or(Format::Table), &mut Printed::new())?;
    } else {
        println!("{}", serde_json::to_string(&summary)?);
    }
    Ok(())
}

fn write(rows: &[RecordBatch], format: Format, writer: &mut dyn std::io::Write) -> Result<()> {
    let Some(first) = rows.first() else { return Ok(()) };
    Ok(output::write(print_format(format), &first.schema(), rows, writer)?)
}

/// The role of the result table asked for, if one is.
fn result_table<'a>(operator: &'a OperatorSpec, asked: Option<&str>) -> Result<Option<&'a str>, Error> {
    let roles = || operator.outputs.iter().map(|shape| shape.role);
    let Some(asked) = asked else { return Ok(None) };
    let found = roles().find(|role| *role == asked);
    found.map(Some).ok_or_else(|| Error::not_found("result table", asked, roles()))
}

/// The field's own files: TNTP networks and trips, MATPOWER cases, EPANET networks, production lines in TOML.
async fn on_files(
    settings: &Settings,
    options: &SimulateOptions,
    network: &Path,
    parameters: Parameters,
) -> Result<Outcome> {
    let inputs = options.input.iter().map(|pair| {
        pair.split_once('=').map(|(role, file)| (role.to_owned(), PathBuf::from(file))).ok_or_else(|| {
            let error = Error::config(format!("'{pair}' is not ROLE=FILE"));
            WrongUse(error.with_help("for example --input origins=origins.csv"))
        })
    });
    let files = FieldFiles {
        network: network.to_owned(),
        demand: options.demand.clone(),
        inputs: inputs.collect::<Result<_, _>>()?,
    };
    let named = [Some(&files.network), files.demand.as_ref()].into_iter().flatten();
    for file in named.chain(files.inputs.iter().map(|(_, file)| file)) {
        // A file that is not there is a mistake of the one who named it.
        fs::metadata(file)
            .map_err(|error| WrongUse(Error::config(format!("cannot read {}: {error}", file.display()))))?;
    }
    let bar = progress::spinner(settings.progress && options.output.is_some(), &options.operator);
    let (name, seed) = (options.operator.clone(), options.seed);
    let outcome = tokio::task::spawn_blocking(move || {
        let told = |_: f64, word: &str| {
            bar.set_message(word.to_owned());
            true
        };
        let outcome = files.run(&twinlake_simulate::registry(), &name, seed, &parameters, &told);
        bar.finish_and_clear();
        outcome
    });
    Ok(outcome.await??)
}

/// The twins of the lake, in the scenario.
async fn on_twins(
    settings: &Settings,
    options: &SimulateOptions,
    parameters: Parameters,
) -> Result<(Vec<RecordBatch>, serde_json::Value)> {
    let town = Town::open(settings).await?;
    let simulations = town.twins.simulations();
    let run = simulations
        .submit(twinlake_twin::SimulationRequest {
            operator: options.operator.clone(),
            model: options.model.clone(),
            scenario: options.scenario.clone(),
            seed: options.seed,
            parameters,
            as_of_us: None,
        })
        .await?;
    let run = simulations.wait(&run).await?;
    let rows = town.session()?.collect(&simulations.result_sql(&run)?).await?;
    let mut summary = run.summary.clone();
    summary.insert("run_id".to_owned(), run.run_id.clone().into());
    Ok((rows, serde_json::Value::Object(summary)))
}

/// `key=value`; a value that is JSON is taken as such, anything else as text.
fn parse_parameters(set: &[String]) -> Result<Parameters, Error> {
    set.iter()
        .map(|pair| {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                Error::config(format!("'{pair}' is not KEY=VALUE"))
                    .with_help("for example --set relative_gap=1e-8")
            })?;
            let value =
                serde_json::from_str(value).unwrap_or_else(|_| serde_json::Value::String(value.to_owned()));
            Ok((key.trim().to_owned(), value))
        })
        .collect()
}

fn by_ending(file: &Path) -> Result<Format> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => Ok(Format::Csv),
        Some("json") => Ok(Format::Json),
        Some("arrow" | "arrows") => Ok(Format::Arrow),
        Some("parquet") => Ok(Format::Parquet),
        _ => {
            let error = Error::config(format!("cannot tell a format from the name {}", file.display()));
            Err(WrongUse(error.with_help("add --format csv, json, arrow or parquet")).into())
        }
    }
}
