//! `twinlake catalog`: what is known of tables.

use anyhow::{Result, anyhow};
use serde_json::{Map, Value as Json, json};
use twinlake_catalog::{Direction, Trace, trace};
use twinlake_contracts::{Error, TableName, suggest};
use twinlake_query::{Session, output};

use crate::arguments::{CatalogCommand, LineageFormat, TextFormat};
use crate::governance::twin_lineage;
use crate::settings::Settings;
use crate::town::Town;

/// How many columns and runs are shown of one thing.
const SHOWN: usize = 5;

/// Runs one of the commands.
pub async fn run(settings: &Settings, command: &CatalogCommand) -> Result<()> {
    match command {
        CatalogCommand::Search { words, format } => search(settings, words, *format).await,
        CatalogCommand::Show { table, format } => show(settings, table, *format).await,
        CatalogCommand::Lineage { place, down, format, .. } => {
            let direction = if *down { Direction::Down } else { Direction::Up };
            lineage(settings, place, direction, *format).await
        }
        CatalogCommand::Profile { what, rows, all, key, format } => {
            let limit = (!all).then_some(*rows);
            profile(settings, what, limit, key, *format).await
        }
        CatalogCommand::Check(options) => crate::quality::check(settings, options).await,
    }
}

/// The rows of a query as JSON objects.
async fn rows(session: &Session, sql: &str) -> Result<Vec<Map<String, Json>>> {
    let frame = session.sql(sql).await?;
    let schema = std::sync::Arc::clone(frame.schema().inner());
    let found = frame.collect().await.map_err(|error| session.error(error))?;
    let mut text = Vec::new();
    output::write(output::Format::Json, &schema, &found, &mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn text<'a>(row: &'a Map<String, Json>, name: &str) -> &'a str {
    row.get(name).and_then(Json::as_str).unwrap_or_default()
}

/// The datasets (tables of the lake, and twins) with what is known of them.
const DATASETS: &str = "SELECT name, description, owner, tags, rows FROM meta.datasets \
     UNION ALL SELECT concat('twin.', name), description, NULL, NULL, NULL FROM meta.twin_models ORDER BY 1";
const COLUMNS: &str = "SELECT table_name, column_name, type, unit, crs, description, personal, \"key\" FROM meta.columns ORDER BY table_name, position";

async fn search(settings: &Settings, words: &[String], format: TextFormat) -> Result<()> {
    let town = Town::open(settings).await?;
    let session = town.session()?;
    let words: Vec<String> =
        words.iter().flat_map(|word| word.split_whitespace()).map(str::to_lowercase).collect();
    let columns = rows(&session, COLUMNS).await?;
    let mut found: Vec<(usize, Json)> = Vec::new();
    for dataset in rows(&session, DATASETS).await? {
        let name = text(&dataset, "name");
        let own = columns.iter().filter(|column| text(column, "table_name") == name);
        // A hit in a name says more than one in a sentence.
        let mut score = 0;
        let mut hit = vec![false; words.len()];
        let mut weigh = |field: &str, weight: usize| {
            let field = field.to_lowercase();
            let mut any = false;
            for (at, word) in words.iter().enumerate() {
                if field.contains(word) {
                    hit[at] = true;
                    any = true;
                    score += weight + usize::from(field == *word) * weight;
                }
            }
            any
        };
        weigh(name, 8);
        weigh(text(&dataset, "description"), 3);
        weigh(text(&dataset, "owner"), 3);
        weigh(text(&dataset, "tags"), 5);
        let mut matched = Vec::new();
        for column in own {
            let mut any = weigh(text(column, "column_name"), 4);
            for field in ["description", "unit", "crs", "personal"] {
                any |= weigh(text(column, field), 1);
            }
            if any {
                let shown = ["column_name", "unit", "description"]
                    .map(|key| (key.to_owned(), column.get(key).cloned().unwrap_or_default()));
                matched.push(Json::Object(shown.into_iter().collect()));
            }
        }
        if hit.iter().all(|hit| *hit) {
            let mut dataset = dataset.clone();
            dataset.insert("columns".to_owned(), Json::Array(matched));
            found.push((score, Json::Object(dataset)));
        }
    }
    found.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    let found: Vec<Json> = found.into_iter().map(|(_, dataset)| dataset).collect();
    if format == TextFormat::Json {
        println!("{}", serde_json::to_string_pretty(&found)?);
        return Ok(());
    }
    if found.is_empty() {
        println!("nothing has all of these words: {}", words.join(", "));
    }
    for dataset in found {
        let Json::Object(dataset) = dataset else { continue };
        println!("{}", text(&dataset, "name"));
        if !text(&dataset, "description").is_empty() {
            println!("  {}", text(&dataset, "description"));
        }
        if !text(&dataset, "owner").is_empty() {
            println!("  owner {}", text(&dataset, "owner"));
        }
        let matched: Vec<&Map<String, Json>> = dataset
            .get("columns")
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
            .filter_map(Json::as_object)
            .collect();
        for column in matched.iter().take(SHOWN) {
            let unit = text(column, "unit");
            let unit = if unit.is_empty() { String::new() } else { format!(" [{unit}]") };
            println!("    {}{unit}  {}", text(column, "column_name"), text(column, "description"));
        }
        if matched.len() > SHOWN {
            println!("    and {} columns more", matched.len() - SHOWN);
        }
    }
    Ok(())
}

async fn show(settings: &Settings, name: &str, format: TextFormat) -> Result<()> {
    let town = Town::open(settings).await?;
    let session = town.session()?;
    let table = TableName::parse(name)?;
    let quoted = format!("'{table}'");
    let columns = format!(
        "SELECT column_name, type, unit, crs, \"key\", personal, description FROM meta.columns WHERE table_name = {quoted} ORDER BY position"
    );
    let columns = rows(&session, &columns).await?;
    if columns.is_empty() {
        let known = rows(&session, "SELECT DISTINCT table_name FROM meta.columns").await?;
        return Err(Error::not_found("table", name, known.iter().map(|row| text(row, "table_name"))).into());
    }
    let mut shown = if table.schema == "twin" {
        let model = table.table.strip_suffix("_history").unwrap_or(&table.table);
        rows(
            &session,
            &format!("SELECT description, key, kind, \"table\" FROM meta.twin_models WHERE name = '{model}'"),
        )
        .await?
    } else {
        rows(&session, &format!("SELECT * FROM meta.datasets WHERE name = {quoted}")).await?
    };
    let mut shown = shown.pop().unwrap_or_default();
    for key in ["tags", "keys"] {
        // They are JSON in a text.
        if let Some(value) =
            shown.get(key).and_then(Json::as_str).and_then(|text| serde_json::from_str(text).ok())
        {
            shown.insert(key.to_owned(), value);
        }
    }
    shown.insert("name".to_owned(), json!(name));
    shown.insert("columns".to_owned(), json!(columns));
    let quality = rows(
        &session,
        &format!(
            "SELECT rule, severity, passed, rows_checked, rows_failed, detail, checked_at FROM (SELECT *, \
             row_number() OVER (PARTITION BY rule ORDER BY checked_at DESC) AS newest FROM meta.quality \
             WHERE table_name = {quoted}) WHERE newest = 1 ORDER BY rule"
        ),
    )
    .await?;
    shown.insert("quality".to_owned(), json!(quality));
    let runs = rows(
        &session,
        &format!(
            "SELECT * FROM meta.runs WHERE outputs LIKE '%\"{table}\"%' ORDER BY started_at DESC LIMIT {SHOWN}"
        ),
    )
    .await?;
    shown.insert("runs".to_owned(), json!(runs));
    let mut edges = town.catalog.lineage().await?;
    if edges.iter().all(|edge| !edge.pipeline.starts_with("twin/")) {
        edges.extend(twin_lineage(&town).await?);
    }
    for (key, direction) in [("from", Direction::Up), ("to", Direction::Down)] {
        let way = trace(&edges, name, None, direction).ok();
        let ends: Vec<Json> = way.iter().flat_map(Trace::ends).map(|place| json!(place.dataset)).collect();
        shown.insert(key.to_owned(), json!(ends));
    }
    if format == TextFormat::Json {
        println!("{}", serde_json::to_string_pretty(&shown)?);
        return Ok(());
    }
    print(&shown);
    Ok(())
}

/// For people.
fn print(shown: &Map<String, Json>) {
    println!("{}", text(shown, "name"));
    let plain = |value: &Json| match value {
        Json::String(text) => text.clone(),
        Json::Array(items) if items.iter().all(Json::is_string) => {
            items.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(", ")
        }
        Json::Array(items) => items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    };
    let left_out = ["name", "columns", "quality", "runs"];
    for (key, value) in shown.iter().filter(|(key, _)| !left_out.contains(&key.as_str())) {
        let said = plain(value);
        if !value.is_null() && !said.is_empty() {
            println!("  {key:20} {said}");
        }
    }
    let list = |key: &str| -> Vec<Map<String, Json>> {
        let items = shown.get(key).and_then(Json::as_array);
        items.into_iter().flatten().filter_map(Json::as_object).cloned().collect()
    };
    println!("\n  columns");
    for column in list("columns") {
        let mut notes = vec![text(&column, "type").to_owned()];
        notes.extend(["unit", "crs"].iter().map(|key| text(&column, key).to_owned()));
        if column.get("key") == Some(&Json::Bool(true)) {
            notes.push("key".to_owned());
        }
        if !text(&column, "personal").is_empty() {
            notes.push(format!("personal: {}", text(&column, "personal")));
        }
        notes.retain(|note| !note.is_empty());
        println!(
            "    {:24} {:40} {}",
            text(&column, "column_name"),
            notes.join(", "),
            text(&column, "description")
        );
    }
    let quality = list("quality");
    if !quality.is_empty() {
        println!("\n  quality");
    }
    for rule in quality {
        let word = if rule.get("passed") == Some(&Json::Bool(true)) { "holds" } else { "FAILS" };
        println!(
            "    {word}  {:8} {:40} {}",
            text(&rule, "severity"),
            text(&rule, "rule"),
            text(&rule, "detail")
        );
    }
    let runs = list("runs");
    if !runs.is_empty() {
        println!("\n  newest runs");
    }
    for run in runs {
        let number = |key: &str| run.get(key).map(ToString::to_string).unwrap_or_default();
        println!(
            "    {} {} {} by {}: {} rows, {} rejects, {} s CPU",
            text(&run, "started_at"),
            text(&run, "name"),
            text(&run, "status"),
            if text(&run, "who").is_empty() { "?" } else { text(&run, "who") },
            number("rows"),
            number("rejects"),
            number("cpu_s"),
        );
    }
}

async fn profile(
    settings: &Settings,
    what: &str,
    limit: Option<usize>,
    key: &[String],
    format: TextFormat,
) -> Result<()> {
    let town = Town::open(settings).await?;
    let session = town.session()?;
    // What lies on the disk is a file, also when a table could have its name.
    let is_file = std::path::Path::new(what).is_file();
    let relation =
        if is_file { format!("'{}'", what.replace('\'', "''")) } else { TableName::parse(what)?.to_string() };
    let defined = TableName::parse(what).ok().filter(|_| !is_file);
    let defined = defined.and_then(|name| town.catalog.definition(&name)?.keys.first().cloned());
    let key = if key.is_empty() { defined } else { Some(key.to_vec()) };
    let found = twinlake_catalog::profile::profile(&session, what, &relation, limit, key.as_deref()).await?;
    match format {
        TextFormat::Text => print!("{}", found.text()),
        TextFormat::Json => println!("{}", serde_json::to_string_pretty(&found)?),
    }
    Ok(())
}

async fn lineage(
    settings: &Settings,
    place: &str,
    direction: Direction,
    format: LineageFormat,
) -> Result<()> {
    let town = Town::open(settings).await?;
    let mut edges = town.catalog.lineage().await?;
    // Twins are known from their models, also before a pipeline has run with them.
    edges.retain(|edge| !edge.pipeline.starts_with("twin/"));
    edges.extend(twin_lineage(&town).await?);
    let datasets: std::collections::BTreeSet<&str> =
        edges.iter().flat_map(|edge| [edge.input.as_str(), edge.output.as_str()]).collect();
    let (dataset, column) = if datasets.contains(place) {
        (place, None)
    } else {
        match place.rsplit_once('.') {
            Some((dataset, column)) if datasets.contains(dataset) => (dataset, Some(column)),
            _ => {
                let help = suggest(place, datasets.iter().copied())
                    .map_or_else(String::new, |near| format!(", did you mean '{near}'?"));
                return Err(anyhow!("table with lineage '{place}' not found{help}"));
            }
        }
    };
    let way = trace(&edges, dataset, column, direction)?;
    match format {
        LineageFormat::Text => print!("{}", way.text()),
        LineageFormat::Json => println!("{}", serde_json::to_string_pretty(&way.json())?),
        LineageFormat::Mermaid => print!("{}", way.mermaid()),
    }
    Ok(())
}
