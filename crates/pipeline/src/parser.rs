//! From a document to a pipeline: keys, types and settings, section by section.

use std::path::PathBuf;
use std::sync::Arc;

use indexmap::IndexMap;
use twinlake_contracts::{Error, parse_us};

use crate::cases::Case;
use crate::components::{Components, build, join};
use crate::diagnostics::Diagnostics;
use crate::document::{Document, Entry, Table, Value, unknown_key_help};
use crate::graph_check::{check_graph, check_tests};
use crate::model::{LakeSink, Pipeline, Settings, SinkNode, SourceKind, SourceNode, TransformNode};

const KEYS: [&str; 7] = ["name", "description", "settings", "sources", "transforms", "sinks", "tests"];

/// Reads a document's sections; every mistake goes to `found`.
pub(crate) fn read(document: Document, components: &Arc<Components>, found: &mut Diagnostics) -> Pipeline {
    let pipeline = Parser { document, components, found }.pipeline();
    check_graph(&pipeline, found);
    check_tests(&pipeline, found);
    pipeline
}

struct Parser<'a> {
    document: Document,
    components: &'a Arc<Components>,
    found: &'a mut Diagnostics,
}

impl Parser<'_> {
    fn pipeline(mut self) -> Pipeline {
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
        Pipeline {
            name: name.unwrap_or_default(),
            description,
            settings,
            sources,
            transforms,
            sinks,
            tests,
            document: self.document,
            components: Arc::clone(self.components),
        }
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
        if name == Some("direct") {
            let error = Error::config("the name 'direct' is taken by the rows that come in over HTTP");
            let place = self.document.place(&entry.node.span);
            self.error(error.at(place).with_help("give the pipeline another name"));
            return None;
        }
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
                self.error(
                    error.at(place).with_help("lower-case letters, digits and '_': it is used in SQL"),
                );
            }
            let Some(own) = entry.node.as_table() else {
                let error =
                    Error::config(format!("'{section}.{name}' is a table, not {}", entry.node.kind()));
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
            self.error(
                error.with_help(format!("decoder = {{ type = \"…\" }}; known types: {}", known.join(", "))),
            );
            return None;
        };
        let decoder =
            build(&self.components.decoders, &self.document, decoder_entry, &[], &mut self.found.errors);
        let ((type_name, settings, _), (decoder_type, _, decoder)) = (source?, decoder?);
        let kind = SourceKind::Messages { type_name, settings, decoder_type, decoder: Arc::from(decoder) };
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
