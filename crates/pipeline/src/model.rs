//! What a pipeline file says, checked for everything that needs no SQL engine: keys, types, names, the shape of the graph.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use twinlake_contracts::{Decoder, Reader, TableName, WriteMode};

use crate::cases::Case;
use crate::components::Components;
use crate::diagnostics::Diagnostics;
use crate::document::{Document, Entry};
use crate::parser::read;
use crate::transforms::TransformBuilder;

/// How the pipeline runs.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Milliseconds between two commits into the lake (default 1000). Rows are queryable before.
    pub commit_interval_ms: u64,
    /// The most messages that are decoded and transformed together (default 4096).
    pub micro_batch_messages: usize,
    /// The most messages that may lie in the log uncommitted before the sources are slowed down (default 1000000).
    pub max_backlog_messages: u64,
    /// The most rows that are held in memory between two commits; more make the commit come early (default 250000).
    pub max_uncommitted_rows: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            commit_interval_ms: 1_000,
            micro_batch_messages: 4_096,
            max_backlog_messages: 1_000_000,
            max_uncommitted_rows: 250_000,
        }
    }
}

/// A pipeline file whose keys, names and graph are in order.
pub struct Pipeline {
    /// Its name: also the name of its log and the first part of its writers' names.
    pub name: String,
    /// A sentence for people; may be empty.
    pub description: String,
    /// How it runs.
    pub settings: Settings,
    /// Where rows come from, by name.
    pub sources: IndexMap<String, SourceNode>,
    /// What happens to rows, by name.
    pub transforms: IndexMap<String, TransformNode>,
    /// Where rows go, by name.
    pub sinks: IndexMap<String, SinkNode>,
    /// The tests in the file.
    pub tests: Vec<Case>,
    pub(crate) document: Document,
    pub(crate) components: Arc<Components>,
}

/// `[sources.X]`
pub struct SourceNode {
    /// A sentence for people; may be empty.
    pub description: String,
    /// Messages or a file.
    pub kind: SourceKind,
}

/// The two kinds of sources.
pub enum SourceKind {
    /// A stream of messages with its decoder.
    Messages {
        /// The source's type.
        type_name: String,
        /// The source's settings, checked.
        settings: Json,
        /// The decoder's type.
        decoder_type: String,
        /// The decoder.
        decoder: Arc<dyn Decoder>,
    },
    /// A file that is read as a whole.
    File {
        /// Where it lies.
        path: PathBuf,
        /// The reader's type.
        reader_type: String,
        /// The reader's settings, checked.
        settings: Json,
        /// The reader.
        reader: Arc<dyn Reader>,
        /// When its content became known, if the file says so; else the time of the run.
        known_at_us: Option<i64>,
    },
}

/// `[transforms.X]`
pub struct TransformNode {
    /// The transform's type.
    pub type_name: String,
    /// The names of the sources and transforms whose rows it takes.
    pub inputs: Vec<String>,
    /// Builds the transform once the schemas of its inputs are known.
    pub builder: Box<dyn TransformBuilder>,
}

/// `[sinks.X]`
#[derive(Debug, Clone)]
pub struct SinkNode {
    /// The names of the sources and transforms whose rows it takes.
    pub inputs: Vec<String>,
    /// The table.
    pub table: TableName,
    /// How rows meet the rows that are there.
    pub mode: WriteMode,
    /// A sentence for people; may be empty.
    pub description: String,
}

/// The settings of a sink of type `lake`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LakeSink {
    /// `schema.table` in lower-case words, for example `traffic.vehicle_position`.
    pub table: TableName,
    /// How rows meet the rows that are there. Default: `append` for messages, `replace` for files.
    pub mode: Option<WriteMode>,
    /// A sentence for people: it becomes the table's description.
    #[serde(default)]
    pub description: String,
}

impl SourceNode {
    /// Whether it gives messages (and not a file's rows).
    pub fn gives_messages(&self) -> bool {
        matches!(self.kind, SourceKind::Messages { .. })
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Pipeline {
    /// The file's text.
    pub fn text(&self) -> &str {
        &self.document.text
    }

    /// Reads a pipeline file's text. `path` is where it lies: relative paths in it are relative to its folder.
    /// `${NAME}` and `${NAME:-default}` in strings are environment variables.
    ///
    /// The pipeline is `None` when there are errors.
    pub fn parse(
        text: &str,
        path: Option<&Path>,
        components: &Arc<Components>,
    ) -> (Option<Self>, Diagnostics) {
        Self::parse_with(text, path, components, &|name| std::env::var(name).ok())
    }

    /// The same with other variables than the environment's.
    pub fn parse_with(
        text: &str,
        path: Option<&Path>,
        components: &Arc<Components>,
        variables: &dyn Fn(&str) -> Option<String>,
    ) -> (Option<Self>, Diagnostics) {
        let mut found = Diagnostics::default();
        let pipeline = Document::parse(text, path, variables, &mut found.errors)
            .map(|document| read(document, components, &mut found));
        found.sort();
        (pipeline.filter(|_| found.is_ok()), found)
    }

    /// The names of transforms in an order in which inputs come before those who take them.
    pub(crate) fn order(&self) -> Vec<&str> {
        let mut order: Vec<&str> = Vec::new();
        while order.len() < self.transforms.len() {
            let ready: Vec<&str> = self
                .transforms
                .iter()
                .filter(|(name, _)| !order.contains(&name.as_str()))
                .filter(|(_, node)| {
                    node.inputs.iter().all(|i| self.sources.contains_key(i) || order.contains(&i.as_str()))
                })
                .map(|(name, _)| name.as_str())
                .collect();
            if ready.is_empty() {
                break; // a cycle: the check has reported it
            }
            order.extend(ready);
        }
        order
    }

    /// The sources above a step.
    pub(crate) fn ancestors<'a>(&'a self, inputs: &'a [String]) -> BTreeSet<&'a str> {
        self.above(inputs).into_iter().filter(|name| self.sources.contains_key(*name)).collect()
    }

    /// All steps on the way to these inputs, with the inputs themselves.
    pub(crate) fn above<'a>(&'a self, inputs: &'a [String]) -> Vec<&'a str> {
        let mut seen: Vec<&str> = Vec::new();
        let mut waiting: Vec<&str> = inputs.iter().map(String::as_str).collect();
        while let Some(name) = waiting.pop() {
            if !seen.contains(&name) {
                seen.push(name);
                let node = self.transforms.get(name);
                waiting.extend(node.into_iter().flat_map(|node| node.inputs.iter().map(String::as_str)));
            }
        }
        seen
    }

    /// Whether rows of messages (and not of files) reach these inputs.
    pub(crate) fn fed_by_messages(&self, inputs: &[String]) -> bool {
        self.ancestors(inputs).into_iter().any(|name| self.sources[name].gives_messages())
    }

    /// The entry of a step in the file.
    pub(crate) fn entry(&self, section: &str, name: &str) -> Option<&Entry> {
        self.document.root.get(section)?.node.as_table()?.get(name)
    }
}
