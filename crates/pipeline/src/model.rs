//! What a pipeline file says, checked for everything that needs no SQL engine: keys, types, names, the shape of the graph.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use twinlake_contracts::{Decoder, Error, Reader, TableName, WriteMode, parse_us, suggest};

use crate::cases::Case;
use crate::components::{Components, build, join};
use crate::diagnostics::Diagnostics;
use crate::document::{Document, Entry, Table, Value, unknown_key_help};
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
    table: TableName,
    /// How rows meet the rows that are there. Default: `append` for messages, `replace` for files.
    mode: Option<WriteMode>,
    /// A sentence for people: it becomes the table's description.
    #[serde(default)]
    description: String,
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

const KEYS: [&str; 7] = ["name", "description", "settings", "sources", "transforms", "sinks", "tests"];

impl Pipeline {
    /// Reads a pipeline file's text. `path` is where it lies: relative paths in it are relative to its folder.
    /// `${NAME}` and `${NAME:-default}` in strings are environment variables.
    ///
    /// The pipeline is `None` when there are errors.
    pub fn parse(text: &str, path: Option<&Path>, components: &Arc<Components>) -> (Option<Self>, Diagnostics) {
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
            .and_then(|document| Parser { document, components, found: &mut found }.pipeline());
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

struct Parser<'a> {
    document: Document,
    components: &'a Arc<Components>,
    found: &'a mut Diagnostics,
}

impl Parser<'_> {
    fn pipeline(mut self) -> Option<Pipeline> {
        let root = self.document.root.clone();
        for (key, entry) in &root.0 {
            if !KEYS.contains(&key.as_str()) {
                let error = Error::config(format!("unknown key '{key}'"));
                let help = unknown_key_help(key, KEYS.iter().copied());
                self.error(error.at(self.document.place(&entry.key)).with_help(help));
            }
        }
        let name = self.name(&root);
        let description = self.text(&root, "description").unwrap_or_default();
        let settings = self.settings(&root);
        let sources = self.section(&root, "sources", Self::source);
        let transforms = self.section(&root, "transforms", Self::transform);
        let sinks = self.section(&root, "sinks", Self::sink);
        let tests = self.tests(&root);
        if sources.is_empty() && root.get("sources").is_none() {
            let error = Error::config("the pipeline has no source").at(self.document.place(&(0..1)));
            self.error(error.with_help("add [sources.NAME] with type, settings and decoder"));
        }
        let pipeline = Pipeline {
            name: name.unwrap_or_default(),
            description,
            settings,
            sources,
            transforms,
            sinks,
            tests,
            document: self.document,
            components: Arc::clone(self.components),
        };
        check_graph(&pipeline, self.found);
        check_tests(&pipeline, self.found);
        Some(pipeline)
    }

    fn error(&mut self, error: Error) {
        self.found.errors.push(error);
    }

    fn name(&mut self, root: &Table) -> Option<String> {
        let Some(entry) = root.get("name") else {
            let error = Error::config("the key 'name' is missing").at(self.document.place(&(0..1)));
            self.error(error.with_help("name = \"my-pipeline\": lower-case words joined by '-'"));
            return None;
        };
        let name = entry.node.as_str().filter(|name| {
            name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c))
        });
        if name.is_none() {
            let error = Error::config("the name is not made of lower-case words");
            let place = self.document.place(&entry.node.span);
            self.error(error.at(place).with_help("write it like helsinki-vehicles: it also names the log"));
        }
        name.map(str::to_owned)
    }

    fn text(&mut self, table: &Table, key: &str) -> Option<String> {
        let entry = table.get(key)?;
        let text = entry.node.as_str().map(str::to_owned);
        if text.is_none() {
            let error = Error::config(format!("'{key}' is a string, not {}", entry.node.kind()));
            let place = self.document.place(&entry.node.span);
            self.error(error.at(place));
        }
        text
    }

    fn settings(&mut self, root: &Table) -> Settings {
        let Some(entry) = root.get("settings") else { return Settings::default() };
        let settings: Settings = match serde_json::from_value(entry.node.to_json()) {
            Ok(settings) => settings,
            Err(error) => {
                let error = self.document.locate(Error::config(error.to_string()), entry);
                self.error(error);
                return Settings::default();
            }
        };
        for (key, zero) in [
            ("micro_batch_messages", settings.micro_batch_messages == 0),
            ("max_backlog_messages", settings.max_backlog_messages == 0),
            ("max_uncommitted_rows", settings.max_uncommitted_rows == 0),
            ("commit_interval_ms", settings.commit_interval_ms == 0),
        ] {
            if zero {
                let error = Error::config(format!("'{key}' must be above 0"));
                let error = self.document.locate(error, entry);
                self.error(error);
            }
        }
        settings
    }

    /// One of the tables `[sources]`, `[transforms]`, `[sinks]`.
    fn section<T>(
        &mut self,
        root: &Table,
        section: &str,
        read: fn(&mut Self, &str, &Entry, &Table) -> Option<T>,
    ) -> IndexMap<String, T> {
        let Some(entry) = root.get(section) else { return IndexMap::new() };
        let Some(table) = entry.node.as_table() else {
            let error = Error::config(format!("'{section}' is a table, not {}", entry.node.kind()));
            let place = self.document.place(&entry.node.span);
            self.error(error.at(place).with_help(format!("write [{section}.NAME]")));
            return IndexMap::new();
        };
        let mut nodes = IndexMap::new();
        for (name, entry) in &table.0 {
            let word = name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if !word {
                let error = Error::config(format!("'{name}' is not a name"));
                let place = self.document.place(&entry.key);
                self.error(error.at(place).with_help("lower-case letters, digits and '_': it is used in SQL"));
            }
            let Some(own) = entry.node.as_table() else {
                let error = Error::config(format!("'{section}.{name}' is a table, not {}", entry.node.kind()));
                let place = self.document.place(&entry.node.span);
                self.error(error.at(place));
                continue;
            };
            if let Some(node) = read(self, name, entry, own) {
                nodes.insert(name.clone(), node);
            }
        }
        nodes
    }

    fn source(&mut self, _name: &str, entry: &Entry, table: &Table) -> Option<SourceNode> {
        let description = self.text(table, "description").unwrap_or_default();
        if table.get("reader").is_some() {
            return self.file(entry, table).map(|kind| SourceNode { description, kind });
        }
        let structure = ["decoder", "description"];
        let source =
            build(&self.components.sources, &self.document, entry, &structure, &mut self.found.errors);
        let Some(decoder_entry) = table.get("decoder") else {
            let known: Vec<&str> = self.components.decoders.docs().map(|doc| doc.type_name).collect();
            let error = Error::config("the key 'decoder' is missing").at(self.document.place(&entry.key));
            self.error(error.with_help(format!("decoder = {{ type = \"…\" }}; known types: {}", known.join(", "))));
            return None;
        };
        let decoder =
            build(&self.components.decoders, &self.document, decoder_entry, &[], &mut self.found.errors);
        let ((type_name, settings, _), (decoder_type, _, decoder)) = (source?, decoder?);
        let kind =
            SourceKind::Messages { type_name, settings, decoder_type, decoder: Arc::from(decoder) };
        Some(SourceNode { description, kind })
    }

    fn file(&mut self, entry: &Entry, table: &Table) -> Option<SourceKind> {
        const KEYS: [&str; 4] = ["path", "reader", "description", "known_at"];
        for (key, own) in &table.0 {
            if !KEYS.contains(&key.as_str()) {
                let error = Error::config(format!("unknown key '{key}' of a source with a reader"));
                let place = self.document.place(&own.key);
                self.error(error.at(place).with_help(unknown_key_help(key, KEYS.iter().copied())));
            }
        }
        let reader_entry = table.get("reader")?;
        let reader =
            build(&self.components.readers, &self.document, reader_entry, &[], &mut self.found.errors);
        let known_at_us = self.text(table, "known_at").and_then(|text| {
            let instant = parse_us(&text);
            if instant.is_none() {
                let error = Error::config(format!("'{text}' is not a time stamp"));
                let error = self.document.locate(error, entry);
                self.error(error.with_help("write it as 2018-10-09T04:32:53Z"));
            }
            instant
        });
        if table.get("path").is_none() {
            let error = Error::config("the key 'path' is missing").at(self.document.place(&entry.key));
            self.error(error.with_help("path = \"data/file\", relative to this file"));
        }
        let path = self.text(table, "path")?;
        let (reader_type, settings, reader) = reader?;
        let path = PathBuf::from(join(&self.document, &path));
        Some(SourceKind::File { path, reader_type, settings, reader: Arc::from(reader), known_at_us })
    }

    fn transform(&mut self, _name: &str, entry: &Entry, table: &Table) -> Option<TransformNode> {
        let inputs = self.inputs(entry, table);
        let built =
            build(&self.components.transforms, &self.document, entry, &["inputs"], &mut self.found.errors);
        let (type_name, _, builder) = built?;
        Some(TransformNode { type_name, inputs: inputs?, builder })
    }

    fn sink(&mut self, _name: &str, entry: &Entry, table: &Table) -> Option<SinkNode> {
        let inputs = self.inputs(entry, table);
        match table.get("type").map(|entry| (entry.node.as_str(), entry)) {
            Some((Some("lake"), _)) => {}
            Some((_, type_entry)) => {
                let error = Error::config("unknown sink type").at(self.document.place(&type_entry.node.span));
                self.error(error.with_help("type = \"lake\""));
            }
            None => {
                let error = Error::config("the key 'type' of the sink is missing");
                let place = self.document.place(&entry.key);
                self.error(error.at(place).with_help("type = \"lake\""));
            }
        }
        let settings = table.to_json(&["type", "inputs"]);
        let sink: LakeSink = match serde_json::from_value(settings) {
            Ok(sink) => sink,
            Err(error) => {
                let error = self.document.locate(Error::config(error.to_string()), entry);
                self.error(error);
                return None;
            }
        };
        if ["meta", "raw", "twin", "information_schema"].contains(&sink.table.schema.as_str()) {
            let error = Error::config(format!("the schema '{}' belongs to Twinlake", sink.table.schema));
            let span = table.get("table").map_or(entry.key.clone(), |entry| entry.node.span.clone());
            let place = self.document.place(&span);
            self.error(error.at(place).with_help("use a schema of your own, for example traffic"));
        }
        Some(SinkNode {
            inputs: inputs?,
            table: sink.table,
            mode: sink.mode.unwrap_or_default(),
            description: sink.description,
        })
    }

    fn inputs(&mut self, entry: &Entry, table: &Table) -> Option<Vec<String>> {
        let Some(inputs) = table.get("inputs") else {
            let error = Error::config("the key 'inputs' is missing").at(self.document.place(&entry.key));
            self.error(error.with_help("inputs = [\"name of a source or transform\"]"));
            return None;
        };
        let names = match &inputs.node.value {
            Value::Array(items) if !items.is_empty() => {
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
            }
            _ => None,
        };
        if names.is_none() {
            let error = Error::config("'inputs' is not a list of names");
            let place = self.document.place(&inputs.node.span);
            self.error(error.at(place).with_help("inputs = [\"name of a source or transform\"]"));
        }
        names
    }

    fn tests(&mut self, root: &Table) -> Vec<Case> {
        let Some(entry) = root.get("tests") else { return Vec::new() };
        let Value::Array(items) = &entry.node.value else {
            let error = Error::config("'tests' is a list of tables").at(self.document.place(&entry.key));
            self.error(error.with_help("write [[tests]]"));
            return Vec::new();
        };
        let mut cases = Vec::new();
        for item in items {
            let own = Entry { key: item.span.clone(), node: item.clone() };
            match serde_json::from_value::<Case>(item.to_json()) {
                Ok(mut case) => {
                    case.line = self.document.place(&item.span).line;
                    cases.push(case);
                }
                Err(error) => {
                    let error = self.document.locate(Error::config(error.to_string()), &own);
                    self.error(error);
                }
            }
        }
        cases
    }
}

/// Names that do not exist, cycles, steps that nothing reads, tables named twice, modes that do not fit.
fn check_graph(pipeline: &Pipeline, found: &mut Diagnostics) {
    let document = &pipeline.document;
    // Also names of steps with errors of their own are names: only the true mistake is reported.
    let names_in = |section: &str| -> Vec<String> {
        let table = document.root.get(section).and_then(|entry| entry.node.as_table());
        table.map(|table| table.0.keys().cloned().collect()).unwrap_or_default()
    };
    let (sources, transforms) = (names_in("sources"), names_in("transforms"));
    let mut read: BTreeSet<String> = BTreeSet::new();
    for section in ["transforms", "sinks"] {
        for name in names_in(section) {
            let Some(entry) = pipeline.entry(section, &name) else { continue };
            let Some(inputs) = entry.node.as_table().and_then(|table| table.get("inputs")) else { continue };
            let Value::Array(items) = &inputs.node.value else { continue };
            let mut own = BTreeSet::new();
            for item in items {
                let Some(input) = item.as_str() else { continue };
                read.insert(input.to_owned());
                let known = || sources.iter().chain(&transforms).map(String::as_str).filter(|n| *n != name);
                if !sources.iter().chain(&transforms).any(|known| known == input) {
                    let help = suggest(input, known()).map_or_else(
                        || format!("sources and transforms: {}", known().collect::<Vec<_>>().join(", ")),
                        |near| format!("did you mean '{near}'?"),
                    );
                    let error = Error::config(format!("no source or transform is called '{input}'"));
                    found.errors.push(error.at(document.place(&item.span)).with_help(help));
                } else if !own.insert(input) {
                    let error = Error::config(format!("'{input}' stands twice in 'inputs'"));
                    found.errors.push(error.at(document.place(&item.span)));
                }
            }
        }
    }
    for name in transforms.iter().filter(|name| sources.contains(name)) {
        if let Some(entry) = pipeline.entry("transforms", name) {
            let error = Error::config(format!("a source is called '{name}' too"));
            found.errors.push(error.at(document.place(&entry.key)).with_help("give each a name of its own"));
        }
    }
    for (section, names) in [("sources", &sources), ("transforms", &transforms)] {
        for name in names.iter().filter(|name| !read.contains(*name)) {
            if let Some(entry) = pipeline.entry(section, name) {
                let warning = Error::config(format!("nothing reads '{name}'"));
                let help = "name it in the inputs of a transform or sink, or remove it";
                found.warnings.push(warning.at(document.place(&entry.key)).with_help(help));
            }
        }
    }
    check_cycles(pipeline, found);
    check_sinks(pipeline, found);
}

fn check_cycles(pipeline: &Pipeline, found: &mut Diagnostics) {
    let inner = |name: &String| pipeline.transforms.contains_key(name);
    for (start, node) in &pipeline.transforms {
        // The way from each transform up; a transform that meets itself lies on a cycle, told once at its first name.
        let mut way: Vec<Vec<String>> =
            node.inputs.iter().filter(|i| inner(i)).map(|i| vec![start.clone(), i.clone()]).collect();
        let mut seen = BTreeSet::new();
        while let Some(path) = way.pop() {
            let Some(last) = path.last() else { continue };
            if last == start {
                let first = path.iter().min_by_key(|name| pipeline.transforms.get_index_of(*name));
                if first == Some(start)
                    && let Some(entry) = pipeline.entry("transforms", start)
                {
                    let shown: Vec<&str> = path.iter().rev().map(String::as_str).collect();
                    let error = Error::config(format!("the transforms form a cycle: {}", shown.join(" → ")));
                    let span = entry.node.as_table().and_then(|t| t.get("inputs")).map(|i| i.node.span.clone());
                    let place = pipeline.document.place(&span.unwrap_or_else(|| entry.key.clone()));
                    found.errors.push(error.at(place).with_help("rows flow one way: from sources to sinks"));
                }
                break;
            }
            if seen.insert(last.clone()) {
                let next = pipeline.transforms[last].inputs.iter().filter(|i| inner(i));
                way.extend(next.map(|i| path.iter().cloned().chain([i.clone()]).collect()));
            }
        }
    }
}

fn check_sinks(pipeline: &Pipeline, found: &mut Diagnostics) {
    let document = &pipeline.document;
    let mut tables: BTreeMap<&TableName, &str> = BTreeMap::new();
    for (name, sink) in &pipeline.sinks {
        let Some(entry) = pipeline.entry("sinks", name) else { continue };
        let at = |key: &str| {
            let own = entry.node.as_table().and_then(|table| table.get(key));
            document.place(&own.map_or(entry.key.clone(), |own| own.node.span.clone()))
        };
        if let Some(other) = tables.insert(&sink.table, name) {
            let error = Error::config(format!("the sink '{other}' writes '{}' too", sink.table));
            found.errors.push(error.at(at("table")).with_help("one sink may have several inputs"));
        }
        let sources = pipeline.ancestors(&sink.inputs);
        let messages = sources.iter().filter(|s| pipeline.sources[**s].gives_messages()).count();
        if messages > 0 && messages < sources.len() {
            let error = Error::config("the sink takes both messages and a file's rows");
            let help = "messages are added, a file's rows replace each other: use two tables";
            found.errors.push(error.at(at("inputs")).with_help(help));
        }
        let stated = entry.node.as_table().and_then(|table| table.get("mode"));
        if messages > 0 && sink.mode == WriteMode::Replace {
            let error = Error::config("rows of messages cannot replace each other");
            let help = "use mode = \"append\"; a twin shows only the newest state";
            found.errors.push(error.at(at("mode")).with_help(help));
        } else if messages == 0 && !sources.is_empty() && sink.mode == WriteMode::Append && stated.is_some() {
            let error = Error::config("rows of a file cannot be appended: each run would add them again");
            found.errors.push(error.at(at("mode")).with_help("use mode = \"replace\""));
        }
    }
}

/// Tests that name what does not exist.
fn check_tests(pipeline: &Pipeline, found: &mut Diagnostics) {
    let Some(Value::Array(items)) = pipeline.document.root.get("tests").map(|entry| &entry.node.value) else {
        return;
    };
    let section = |name: &str| {
        let table = pipeline.document.root.get(name).and_then(|entry| entry.node.as_table());
        table.map(|table| table.0.keys().map(String::as_str).collect::<Vec<_>>()).unwrap_or_default()
    };
    let (sources, transforms, sinks) = (section("sources"), section("transforms"), section("sinks"));
    let steps: Vec<&str> = sources.iter().chain(&transforms).chain(&sinks).copied().collect();
    for item in items {
        for (list, key, known) in [("inputs", "source", &sources), ("outputs", "from", &steps)] {
            let Some(Value::Array(parts)) =
                item.as_table().and_then(|table| table.get(list)).map(|entry| &entry.node.value)
            else {
                continue;
            };
            for part in parts {
                let Some(entry) = part.as_table().and_then(|table| table.get(key)) else { continue };
                let Some(name) = entry.node.as_str() else { continue };
                let qualified = match name.split_once('.') {
                    Some(("sources", rest)) if list == "outputs" => sources.contains(&rest),
                    Some(("transforms", rest)) if list == "outputs" => transforms.contains(&rest),
                    Some(("sinks", rest)) if list == "outputs" => sinks.contains(&rest),
                    _ => false,
                };
                if !qualified && !known.contains(&name) {
                    let kind = if list == "inputs" { "source" } else { "source, transform or sink" };
                    let help = unknown_key_help(name, known.iter().copied());
                    let error = Error::config(format!("no {kind} is called '{name}'"));
                    let place = pipeline.document.place(&entry.node.span);
                    found.errors.push(error.at(place).with_help(help));
                }
            }
        }
    }
}
