//! Which table comes from which source, step by step: the rows of `meta.lineage`.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Value as Json;
use twinlake_contracts::{ColumnEdge, Dependency, INGESTED_AT, Result, SEQUENCE, SqlEngine};

use crate::model::{Pipeline, SourceKind};
use crate::plan::Plan;

/// One arrow: what a step takes and what it gives. A step's name is `<pipeline>/<step>`, a table's `schema.table`, so
/// that following `output` to `input` leads from any table to its sources, over pipelines too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Edge {
    /// The pipeline.
    pub pipeline: String,
    /// The source, transform or sink.
    pub step: String,
    /// Its type: `mqtt`, `sql`, `clean`, `lake`, ….
    pub kind: String,
    /// What it takes.
    pub input: String,
    /// What it gives.
    pub output: String,
    /// The column that it takes; `None` for an arrow between tables and steps.
    pub input_column: Option<String>,
    /// The column that it gives; `None`, with an input column, for what decides over all rows.
    pub output_column: Option<String>,
    /// How the output column depends on the input column.
    pub dependency: Option<Dependency>,
    /// What is computed.
    pub expression: Option<String>,
}

/// All arrows between the steps and tables of a pipeline, in the order of the file.
pub fn lineage(pipeline: &Pipeline) -> Vec<Edge> {
    let name = &pipeline.name;
    let own = |step: &str| format!("{name}/{step}");
    let edge = |step: &str, kind: &str, input: String, output: String| Edge {
        pipeline: name.clone(),
        step: step.to_owned(),
        kind: kind.to_owned(),
        input,
        output,
        input_column: None,
        output_column: None,
        dependency: None,
        expression: None,
    };
    let mut edges = Vec::new();
    for (step, source) in &pipeline.sources {
        match &source.kind {
            SourceKind::Messages { type_name, settings, .. } => {
                let place = ["url", "listen", "path", "address"]
                    .into_iter()
                    .find_map(|key| settings.get(key)?.as_str().map(str::to_owned));
                let origin = place.map_or_else(|| type_name.clone(), |place| format!("{type_name}:{place}"));
                edges.push(edge(step, type_name, origin.clone(), format!("raw.{step}")));
                edges.push(edge(step, type_name, origin, own(step)));
                edges.push(edge(step, type_name, own(step), "meta.rejects".to_owned()));
            }
            SourceKind::File { path, reader_type, .. } => {
                edges.push(edge(step, reader_type, path.display().to_string(), own(step)));
            }
        }
    }
    for (step, node) in &pipeline.transforms {
        edges.extend(node.inputs.iter().map(|input| edge(step, &node.type_name, own(input), own(step))));
        edges.push(edge(step, &node.type_name, own(step), "meta.rejects".to_owned()));
    }
    for (step, node) in &pipeline.sinks {
        edges.extend(node.inputs.iter().map(|input| edge(step, "lake", own(input), node.table.to_string())));
    }
    edges
}

/// All arrows of a plan: those between steps and tables (lookups included), then those between their columns, found in
/// the plans of queries and in the settings of the other steps.
pub async fn column_lineage(plan: &Plan, engine: &Arc<dyn SqlEngine>) -> Result<Vec<Edge>> {
    let pipeline = &plan.pipeline;
    let mut steps = lineage(pipeline);
    let mut columns = Vec::new();
    for (step, source) in &pipeline.sources {
        let kind = match &source.kind {
            SourceKind::Messages { type_name, .. } => type_name,
            SourceKind::File { reader_type, .. } => reader_type,
        };
        let place = Place { pipeline, step, kind, output: format!("{}/{step}", pipeline.name) };
        let Some(schema) = plan.schemas.get(step) else { continue };
        for field in schema.fields() {
            let edge = match &source.kind {
                SourceKind::Messages { decoder_type, .. } => {
                    let origin = topic_columns(pipeline, step).any(|column| column == *field.name());
                    let column = if origin { "origin" } else { "payload" };
                    let what = Some(format!("decoder: {decoder_type}"));
                    ColumnEdge::new(
                        Some(field.name()),
                        &format!("raw.{step}"),
                        column,
                        Dependency::Computed,
                        what,
                    )
                }
                SourceKind::File { path, .. } => {
                    ColumnEdge::direct(field.name(), &path.display().to_string(), field.name())
                }
            };
            columns.push(place.edge(edge));
        }
    }
    for (step, context) in plan.contexts(engine) {
        let node = &pipeline.transforms[&step];
        let place = Place {
            pipeline,
            step: &step,
            kind: &node.type_name,
            output: format!("{}/{step}", pipeline.name),
        };
        let Some(schema) = plan.schemas.get(&step) else { continue };
        for mut edge in node.builder.lineage(&context, schema).await? {
            if node.inputs.contains(&edge.table) {
                edge.table = format!("{}/{}", pipeline.name, edge.table);
            } else if !steps.iter().any(|known| known.step == step && known.input == edge.table) {
                // A table that rows are looked up in.
                steps.push(Edge {
                    pipeline: pipeline.name.clone(),
                    step: step.clone(),
                    kind: node.type_name.clone(),
                    input: edge.table.clone(),
                    output: place.output.clone(),
                    input_column: None,
                    output_column: None,
                    dependency: None,
                    expression: None,
                });
            }
            columns.push(place.edge(edge));
        }
    }
    for (step, node) in &pipeline.sinks {
        let place = Place { pipeline, step, kind: "lake", output: node.table.to_string() };
        for input in &node.inputs {
            let Some(schema) = plan.schemas.get(input) else { continue };
            let from = format!("{}/{input}", pipeline.name);
            for field in schema.fields() {
                columns.push(place.edge(ColumnEdge::direct(field.name(), &from, field.name())));
            }
        }
        for source in pipeline.ancestors(&node.inputs) {
            if pipeline.sources[source].gives_messages() {
                for column in [SEQUENCE, INGESTED_AT] {
                    columns.push(place.edge(ColumnEdge::direct(column, &format!("raw.{source}"), column)));
                }
            }
        }
    }
    steps.extend(columns);
    Ok(steps)
}

/// Where arrows of columns lead.
struct Place<'a> {
    pipeline: &'a Pipeline,
    step: &'a str,
    kind: &'a str,
    output: String,
}

impl Place<'_> {
    fn edge(&self, edge: ColumnEdge) -> Edge {
        Edge {
            pipeline: self.pipeline.name.clone(),
            step: self.step.to_owned(),
            kind: self.kind.to_owned(),
            input: edge.table,
            output: self.output.clone(),
            input_column: Some(edge.column),
            output_column: edge.output,
            dependency: Some(edge.dependency),
            expression: edge.expression,
        }
    }
}

/// The columns that a decoder takes from the origin (the topic) of messages.
fn topic_columns<'a>(pipeline: &'a Pipeline, source: &str) -> impl Iterator<Item = String> + 'a {
    let decoder = pipeline.entry("sources", source).and_then(|entry| entry.node.as_table()?.get("decoder"));
    let topic = decoder.and_then(|decoder| Some(decoder.node.as_table()?.get("topic")?.node.to_json()));
    let names = match topic {
        Some(Json::Object(columns)) => columns.keys().cloned().collect(),
        _ => Vec::new(),
    };
    names.into_iter()
}
