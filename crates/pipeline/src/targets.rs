//! The tables that a pipeline's messages feed.

use twinlake_contracts::{TableName, TableSpec, WriteMode};

use crate::plan::Plan;
use crate::window::{raw_schema, rejects_schema};

/// The key of `meta.rejects` among a pipeline's targets.
pub(crate) const REJECTS: &str = "rejects";

/// The key of a source's raw messages among a pipeline's targets.
pub(crate) fn raw_key(source: &str) -> String {
    format!("raw.{source}")
}

/// The key of a sink among a pipeline's targets.
pub(crate) fn sink_key(sink: &str) -> String {
    format!("sink.{sink}")
}

impl Plan {
    /// The tables that messages feed: key, writer's name, table.
    pub(crate) fn message_tables(&self) -> Vec<(String, String, TableSpec)> {
        let pipeline = &self.pipeline;
        let sinks = self.tables.iter().filter(|(sink, _)| self.mode(sink) == WriteMode::Append);
        let sinks = sinks.map(|(sink, spec)| (sink_key(sink), sink.clone(), spec.clone()));
        let raw = pipeline.sources.iter().filter(|(_, node)| node.gives_messages()).map(|(source, _)| {
            let name = TableName { schema: "raw".into(), table: source.clone() };
            let description = format!("All messages of the source '{source}', as they arrived");
            (raw_key(source), format!("raw.{source}"), TableSpec { name, schema: raw_schema(), description })
        });
        let name = TableName { schema: "meta".into(), table: "rejects".into() };
        let description = "What could not become a row, with its payload and the reason".to_owned();
        let rejects = TableSpec { name, schema: rejects_schema(), description };
        sinks
            .chain(raw)
            .chain([(REJECTS.to_owned(), "rejects".to_owned(), rejects)])
            .map(|(key, writer, spec)| (key, format!("{}/{writer}", pipeline.name), spec))
            .collect()
    }
}
