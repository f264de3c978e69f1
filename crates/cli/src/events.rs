//! OpenLineage events of the runs of this process.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use serde_json::Value as Json;
use twinlake_catalog::LineageEdge;
use twinlake_catalog::open_lineage::{Dataset, EventKind, EventSender, RunEvent, columns_of};
use twinlake_contracts::{Error, TableName};
use twinlake_lake::{Lake, RunRecord};
use twinlake_pipeline::Plan;

use crate::settings::Settings;
use crate::town::Town;

/// Where events go, and under which names.
pub struct Events {
    sender: Arc<EventSender>,
    namespace: String,
    lake: String,
}

/// What the events of a pipeline have in common.
pub struct PipelineEvents {
    events: Arc<Events>,
    lake: Arc<Lake>,
    pipeline: String,
    processing: &'static str,
    inputs: Vec<Dataset>,
    /// Datasets by sink; sources' raw tables have the name of no sink.
    outputs: Vec<(Option<String>, Dataset)>,
}

impl Events {
    /// Starts the way of events, if the settings name an address. Simulations tell their events themselves when they are
    /// recorded.
    pub fn open(settings: &Settings, lake: &Arc<Lake>) -> Result<Option<Arc<Self>>> {
        let Some(url) = &settings.lineage.url else { return Ok(None) };
        let key = std::env::var("OPENLINEAGE_API_KEY").ok();
        let events = Arc::new(Self {
            sender: EventSender::start(url, key)?,
            namespace: settings.lineage.namespace.clone().unwrap_or_else(|| "twinlake".to_owned()),
            lake: lake.location(),
        });
        let told = Arc::clone(&events);
        lake.observe_runs(Arc::new(move |run| {
            if run.kind == "simulation" {
                told.simulation(run);
            }
        }));
        Ok(Some(events))
    }

    /// Waits for what is on its way, not long.
    pub async fn close(&self) {
        self.sender.close().await;
    }

    /// Tables that a record names as JSON: `{"traffic.vehicle_position": 3}`.
    fn tables(&self, text: &str) -> Vec<Dataset> {
        let Ok(Json::Object(named)) = serde_json::from_str(text) else { return Vec::new() };
        let tables = named.keys().filter_map(|name| TableName::parse(name).ok());
        tables.map(|table| Dataset::table(&self.lake, &table)).collect()
    }

    fn simulation(&self, run: &RunRecord) {
        let mut outputs = self.tables(&run.outputs);
        let event = |kind: EventKind, at_us: i64, outputs: Vec<Dataset>| RunEvent {
            kind,
            at_us,
            run_id: run.run_id.clone(),
            namespace: self.namespace.clone(),
            job: match &run.scenario {
                Some(scenario) => format!("{}.{scenario}", run.name),
                None => run.name.clone(),
            },
            processing: "BATCH",
            job_type: "SIMULATION",
            inputs: self.tables(&run.inputs),
            outputs,
            error: (kind == EventKind::Fail).then(|| run.summary.clone()),
        };
        self.sender.send(event(EventKind::Start, run.started_at_us, outputs.clone()).json(&self.lake));
        if let Some(output) = outputs.first_mut() {
            output.statistics =
                Some((run.rows.max(0) as u64, run.cost.bytes_written.unwrap_or(0).max(0) as u64));
        }
        let ended = event(kind_of(&run.status), run.finished_at_us.unwrap_or(run.started_at_us), outputs);
        self.sender.send(ended.json(&self.lake));
    }

    /// What the events of a pipeline will say.
    pub fn pipeline(self: &Arc<Self>, town: &Town, plan: &Plan, edges: &[LineageEdge]) -> PipelineEvents {
        let name = &plan.pipeline.name;
        let own = format!("{name}/");
        let mut inputs: Vec<Dataset> = Vec::new();
        for edge in edges.iter().filter(|edge| edge.input_column.is_none() && !edge.input.starts_with(&own)) {
            let dataset = match TableName::parse(&edge.input) {
                Ok(table) => Dataset::table(&self.lake, &table),
                Err(_) => Dataset::source(&edge.input, &edge.step),
            };
            if !inputs.iter().any(|known| known.namespace == dataset.namespace && known.name == dataset.name)
            {
                inputs.push(dataset);
            }
        }
        let described =
            |table: &TableName, schema: Option<arrow::datatypes::SchemaRef>, description: &str| {
                let definition = town.catalog.definition(table);
                let said = definition.map(|own| own.description.clone()).filter(|text| !text.is_empty());
                Dataset {
                    schema,
                    description: said.unwrap_or_else(|| description.to_owned()),
                    owner: definition.map(|own| own.owner.clone()).unwrap_or_default(),
                    columns: columns_of(edges, &table.to_string()),
                    ..Dataset::table(&self.lake, table)
                }
            };
        let mut outputs: Vec<(Option<String>, Dataset)> = Vec::new();
        for (sink, spec) in &plan.tables {
            outputs.push((
                Some(sink.clone()),
                described(&spec.name, Some(Arc::clone(&spec.schema)), &spec.description),
            ));
        }
        for (source, node) in &plan.pipeline.sources {
            if node.gives_messages() {
                let table = TableName { schema: "raw".to_owned(), table: source.clone() };
                outputs.push((None, described(&table, None, "")));
            }
        }
        let streams = plan.pipeline.sources.values().any(twinlake_pipeline::SourceNode::gives_messages);
        PipelineEvents {
            events: Arc::clone(self),
            lake: Arc::clone(&town.lake),
            pipeline: name.clone(),
            processing: if streams { "STREAMING" } else { "BATCH" },
            inputs,
            outputs,
        }
    }
}

fn kind_of(status: &str) -> EventKind {
    match status {
        "succeeded" => EventKind::Complete,
        "cancelled" => EventKind::Abort,
        _ => EventKind::Fail,
    }
}

impl PipelineEvents {
    fn event(&self, kind: EventKind, run_id: &str, at_us: i64, outputs: Vec<Dataset>, error: Option<String>) {
        let event = RunEvent {
            kind,
            at_us,
            run_id: run_id.to_owned(),
            namespace: self.events.namespace.clone(),
            job: self.pipeline.clone(),
            processing: self.processing,
            job_type: "PIPELINE",
            inputs: self.inputs.clone(),
            outputs,
            error,
        };
        self.events.sender.send(event.json(&self.events.lake));
    }

    /// The run has begun.
    pub fn started(&self, run_id: &str, at_us: i64) {
        let outputs = self.outputs.iter().map(|(_, dataset)| dataset.clone()).collect();
        self.event(EventKind::Start, run_id, at_us, outputs, None);
    }

    /// The run has ended; `rows` are those that each sink took.
    pub fn ended(&self, run: &RunRecord, rows: &BTreeMap<String, u64>, error: Option<&Error>) {
        let outputs = self.outputs.iter().map(|(sink, dataset)| {
            let statistics = sink.as_ref().map(|sink| {
                let bytes = self.lake.bytes_written(&format!("{}/{sink}", self.pipeline));
                (rows.get(sink).copied().unwrap_or(0), bytes)
            });
            Dataset { statistics, ..dataset.clone() }
        });
        let at_us = run.finished_at_us.unwrap_or(run.started_at_us);
        let error = error.map(ToString::to_string);
        self.event(kind_of(&run.status), &run.run_id, at_us, outputs.collect(), error);
    }
}
