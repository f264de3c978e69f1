//! One event of a run as JSON.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use serde_json::{Map, Value as Json, json};
use sha2::{Digest as _, Sha256};
use twinlake_contracts::{Dependency, TableName, format_us};

use crate::catalog::hex;
use crate::lineage::LineageEdge;
use crate::trace::Place;

/// Who makes the events.
const PRODUCER: &str = concat!("urn:twinlake:", env!("CARGO_PKG_VERSION"));
/// The schema of a run's event.
const SCHEMA_URL: &str = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent";

/// What an event says of its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It has begun.
    Start,
    /// It has ended well.
    Complete,
    /// It was told to stop.
    Abort,
    /// It has failed.
    Fail,
}

/// A dataset of an event, with its facets.
#[derive(Debug, Clone, Default)]
pub struct Dataset {
    /// The store: `file`, `s3://bucket`, `mqtt://host:1883`.
    pub namespace: String,
    /// The name in the store.
    pub name: String,
    /// The table that it is in SQL.
    pub table: Option<TableName>,
    /// Its columns.
    pub schema: Option<SchemaRef>,
    /// What it is, in a sentence.
    pub description: String,
    /// Who answers for it.
    pub owner: String,
    /// The address of the store.
    pub source: String,
    /// For each column the columns that it is made of; the empty name stands for all rows.
    pub columns: BTreeMap<String, Vec<(Place, Dependency)>>,
    /// Rows and bytes that the run wrote.
    pub statistics: Option<(u64, u64)>,
}

/// An event of a run.
#[derive(Debug, Clone)]
pub struct RunEvent {
    /// What it says.
    pub kind: EventKind,
    /// When: microseconds since the epoch, UTC.
    pub at_us: i64,
    /// The run, as in `meta.runs`.
    pub run_id: String,
    /// The namespace of jobs.
    pub namespace: String,
    /// The pipeline or operator.
    pub job: String,
    /// `STREAMING` or `BATCH`.
    pub processing: &'static str,
    /// `PIPELINE` or `SIMULATION`.
    pub job_type: &'static str,
    /// What it reads.
    pub inputs: Vec<Dataset>,
    /// What it writes.
    pub outputs: Vec<Dataset>,
    /// Why it failed.
    pub error: Option<String>,
}

/// A facet with the keys that each must have.
fn facet(schema: &str, mut body: Json) -> Json {
    body["_producer"] = PRODUCER.into();
    body["_schemaURL"] = format!("https://openlineage.io/spec/facets/{schema}").into();
    body
}

/// A run's identifier as a UUID: the same run has the same one in all its events (version 8 of RFC 9562, from SHA-256).
pub(super) fn uuid(run_id: &str) -> String {
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&Sha256::digest(run_id.as_bytes())[..16]);
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let text = hex(&bytes);
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

impl EventKind {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "START",
            Self::Complete => "COMPLETE",
            Self::Abort => "ABORT",
            Self::Fail => "FAIL",
        }
    }
}

fn transformation(dependency: Dependency) -> Json {
    let (kind, subtype) = match dependency {
        Dependency::Direct => ("DIRECT", "IDENTITY"),
        Dependency::Computed => ("DIRECT", "TRANSFORMATION"),
        Dependency::Aggregate => ("DIRECT", "AGGREGATION"),
        Dependency::Filter => ("INDIRECT", "FILTER"),
        Dependency::Join => ("INDIRECT", "JOIN"),
    };
    json!({ "type": kind, "subtype": subtype, "description": "", "masking": false })
}

impl Dataset {
    /// A table of a lake. `lake` is the lake's address: `file:///path/` or `s3://bucket/path/`.
    pub fn table(lake: &str, table: &TableName) -> Self {
        let (namespace, path) = store_of(lake);
        Self {
            namespace,
            name: format!("{path}/{}/{}", table.schema, table.table),
            table: Some(table.clone()),
            source: lake.to_owned(),
            ..Self::default()
        }
    }

    /// A source as `meta.lineage` names it: `mqtt:mqtts://host`, `mqtt_broker:127.0.0.1:1883`, or a file's path. `step` names
    /// what is read of an address.
    pub fn source(text: &str, step: &str) -> Self {
        let (kind, rest) = text.split_once(':').unwrap_or(("", text));
        if kind.is_empty() || kind.contains(['/', '.']) {
            let path =
                std::path::absolute(text).map_or_else(|_| text.to_owned(), |path| path.display().to_string());
            return Self {
                namespace: "file".to_owned(),
                name: path,
                source: "file:///".to_owned(),
                ..Self::default()
            };
        }
        let address = if rest.contains("://") { rest.to_owned() } else { format!("{kind}://{rest}") };
        Self { namespace: address.clone(), name: step.to_owned(), source: address, ..Self::default() }
    }

    fn json(&self, lake: &str, is_output: bool) -> Json {
        let mut facets = Map::new();
        let mut add = |name: &str, schema: &str, body: Json| {
            facets.insert(name.to_owned(), facet(schema, body));
        };
        if let Some(schema) = &self.schema {
            let fields: Vec<Json> = schema
                .fields()
                .iter()
                .map(|field| json!({ "name": field.name(), "type": field.data_type().to_string() }))
                .collect();
            add("schema", "1-1-1/SchemaDatasetFacet.json", json!({ "fields": fields }));
        }
        if !self.source.is_empty() {
            add(
                "dataSource",
                "1-0-1/DatasourceDatasetFacet.json",
                json!({ "name": self.namespace, "uri": self.source }),
            );
        }
        if let Some(table) = &self.table {
            let symlink = json!({ "namespace": "twinlake", "name": table.to_string(), "type": "TABLE" });
            add("symlinks", "1-0-1/SymlinksDatasetFacet.json", json!({ "identifiers": [symlink] }));
        }
        if !self.description.is_empty() {
            add(
                "documentation",
                "1-0-1/DocumentationDatasetFacet.json",
                json!({ "description": self.description }),
            );
        }
        if !self.owner.is_empty() {
            add(
                "ownership",
                "1-0-1/OwnershipDatasetFacet.json",
                json!({ "owners": [{ "name": self.owner }] }),
            );
        }
        if !self.columns.is_empty() {
            let input = |(place, dependency): &(Place, Dependency)| {
                let dataset = named(lake, &place.dataset);
                json!({
                    "namespace": dataset.namespace, "name": dataset.name,
                    "field": place.column.clone().unwrap_or_default(),
                    "transformations": [transformation(*dependency)],
                })
            };
            let inputs = |list: &Vec<(Place, Dependency)>| list.iter().map(input).collect::<Vec<_>>();
            let fields: Map<String, Json> = self
                .columns
                .iter()
                .filter(|(column, _)| !column.is_empty())
                .map(|(column, list)| (column.clone(), json!({ "inputFields": inputs(list) })))
                .collect();
            let rows = self.columns.get("").map(inputs).unwrap_or_default();
            add(
                "columnLineage",
                "1-2-0/ColumnLineageDatasetFacet.json",
                json!({ "fields": fields, "dataset": rows }),
            );
        }
        let mut dataset = json!({ "namespace": self.namespace, "name": self.name, "facets": facets });
        if let (Some((rows, bytes)), true) = (self.statistics, is_output) {
            let body = json!({ "rowCount": rows, "size": bytes });
            dataset["outputFacets"] =
                json!({ "outputStatistics": facet("1-0-2/OutputStatisticsOutputDatasetFacet.json", body) });
        }
        dataset
    }
}

/// A dataset as `meta.lineage` names it: a table of the lake, or a source.
fn named(lake: &str, name: &str) -> Dataset {
    match TableName::parse(name) {
        Ok(table) => Dataset::table(lake, &table),
        Err(_) => Dataset::source(name, name),
    }
}

/// The namespace and the path of an address, as OpenLineage names stores.
fn store_of(address: &str) -> (String, String) {
    let (scheme, rest) = address.split_once("://").unwrap_or(("file", address));
    if scheme == "file" {
        return ("file".to_owned(), format!("/{}", rest.trim_matches('/')));
    }
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    (format!("{scheme}://{host}"), path.trim_matches('/').to_owned())
}

impl RunEvent {
    /// The event as the specification has it. `lake` is the lake's address.
    pub fn json(&self, lake: &str) -> Json {
        let mut run_facets = json!({
            "processing_engine": facet("1-1-1/ProcessingEngineRunFacet.json", json!({
                "name": "twinlake", "version": env!("CARGO_PKG_VERSION"),
            })),
        });
        if let Some(error) = &self.error {
            let body = json!({ "message": error, "programmingLanguage": "Rust" });
            run_facets["errorMessage"] = facet("1-0-1/ErrorMessageRunFacet.json", body);
        }
        let job_type = json!({
            "processingType": self.processing, "integration": "TWINLAKE", "jobType": self.job_type,
        });
        let datasets = |list: &[Dataset], is_output: bool| -> Vec<Json> {
            list.iter().map(|dataset| dataset.json(lake, is_output)).collect()
        };
        json!({
            "eventType": self.kind.name(),
            "eventTime": format_us(self.at_us),
            "producer": PRODUCER,
            "schemaURL": SCHEMA_URL,
            "run": { "runId": uuid(&self.run_id), "facets": run_facets },
            "job": {
                "namespace": self.namespace, "name": self.job,
                "facets": { "jobType": facet("2-0-3/JobTypeJobFacet.json", job_type) },
            },
            "inputs": datasets(&self.inputs, false),
            "outputs": datasets(&self.outputs, true),
        })
    }
}

/// For each column of a table the columns outside the pipeline that it is made of, with the loosest dependency on the way;
/// under the empty name what decides over its rows.
pub fn columns_of(edges: &[LineageEdge], table: &str) -> BTreeMap<String, Vec<(Place, Dependency)>> {
    let mut all = BTreeMap::new();
    let names: Vec<&String> = edges
        .iter()
        .filter(|edge| edge.output == table)
        .filter_map(|edge| edge.output_column.as_ref())
        .collect();
    let mut rows: BTreeMap<Place, Dependency> = BTreeMap::new();
    for name in names {
        let start = Place { dataset: table.to_owned(), column: Some(name.clone()) };
        let mut found: BTreeMap<Place, Dependency> = BTreeMap::new();
        let mut waiting = vec![(start.clone(), Dependency::Direct, false)];
        let mut seen = BTreeMap::new();
        while let Some((place, so_far, decides)) = waiting.pop() {
            // Again only when it was reached by a looser way.
            let way = (place.clone(), decides);
            if seen.get(&way).is_some_and(|known| *known >= so_far) {
                continue;
            }
            seen.insert(way, so_far);
            let mut ends = true;
            for edge in
                edges.iter().filter(|edge| edge.output == place.dataset && edge.input_column.is_some())
            {
                let of_rows = edge.output_column.is_none();
                if !of_rows && edge.output_column != place.column {
                    continue;
                }
                ends &= of_rows;
                let own =
                    edge.dependency.as_deref().and_then(Dependency::parse).unwrap_or(Dependency::Computed);
                let next = Place { dataset: edge.input.clone(), column: edge.input_column.clone() };
                let dependency = if of_rows || decides {
                    own.max(Dependency::Filter).max(so_far)
                } else {
                    own.max(so_far)
                };
                waiting.push((next, dependency, of_rows || decides));
            }
            if ends && place != start {
                let into = if decides { &mut rows } else { &mut found };
                into.entry(place).and_modify(|known| *known = (*known).max(so_far)).or_insert(so_far);
            }
        }
        all.insert(name.clone(), found.into_iter().collect());
    }
    if !rows.is_empty() {
        all.insert(String::new(), rows.into_iter().collect());
    }
    all
}
