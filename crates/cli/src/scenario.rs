//! `twinlake scenario`: what would be, from the terminal. Every answer is that of SQL.

use std::path::Path;

use anyhow::Result;
use twinlake_contracts::Error;
use twinlake_query::output;

use crate::WrongUse;
use crate::arguments::{Format, ScenarioCommand};
use crate::printed::Printed;
use crate::settings::Settings;
use crate::sql::print_format;
use crate::town::Town;

/// Runs one of the commands.
pub async fn run(settings: &Settings, command: &ScenarioCommand) -> Result<()> {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let town = Town::open(settings).await?;
    let (sql, format) = match command {
        ScenarioCommand::List { format } => (
            "SELECT name, source, fork_at, override_count AS overrides, runs IS NOT NULL AS has_runs, ensemble IS NOT NULL AS is_ensemble, \
             description FROM meta.scenarios ORDER BY name"
                .to_owned(),
            format,
        ),
        ScenarioCommand::Show { name, format } => {
            // An unknown name is an error, not an answer without rows.
            town.twins.scenario(name).map_err(WrongUse)?;
            (format!("SELECT * FROM meta.scenarios WHERE name = {}", quoted(name)), format)
        }
        ScenarioCommand::Create { file, name, format } => {
            let text = read(file).map_err(WrongUse)?;
            let (scenario, change) = town
                .twins
                .create_scenario_of(&file.display().to_string(), name.as_deref(), &text)
                .await
                .map_err(WrongUse)?;
            eprintln!("{} {}", change.name(), scenario.name);
            (format!("SELECT * FROM meta.scenarios WHERE name = {}", quoted(&scenario.name)), format)
        }
        ScenarioCommand::Run { name, format } => (format!("SELECT * FROM scenario_run({})", quoted(name)), format),
        ScenarioCommand::Drop { name, format } => {
            (format!("SELECT name, change FROM scenario_drop({})", quoted(name)), format)
        }
    };
    let session = town.session()?;
    let frame = session.sql(&sql).await?;
    let schema = std::sync::Arc::clone(frame.schema().inner());
    let rows = frame.collect().await.map_err(|error| session.error(error))?;
    // One scenario is read as an object of its columns: they do not fit beside each other.
    let long = matches!(command, ScenarioCommand::Show { .. } | ScenarioCommand::Create { .. });
    let format = format.unwrap_or(if long { Format::Json } else { Format::Table });
    output::write(print_format(format), &schema, &rows, &mut Printed::new())?;
    town.close().await
}

fn read(file: &Path) -> Result<String, Error> {
    std::fs::read_to_string(file)
        .map_err(|error| Error::config(format!("cannot read {}: {error}", file.display())))
}
