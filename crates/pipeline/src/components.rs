//! The components that pipelines are made of, and the check of their settings against their JSON Schema.

use schemars::SchemaGenerator;
use serde_json::Value as Json;
use twinlake_contracts::{ComponentDoc, Decoder, Error, Reader, Registry, Source};

use crate::document::{Document, Entry, unknown_key_help};
use crate::transforms::{TransformBuilder, transforms};

/// Everything that a pipeline file may name as `type`.
pub struct Components {
    /// Where messages come from.
    pub sources: Registry<dyn Source>,
    /// What reads messages.
    pub decoders: Registry<dyn Decoder>,
    /// What reads large files.
    pub readers: Registry<dyn Reader>,
    /// What happens to rows.
    pub transforms: Registry<dyn TransformBuilder>,
}

impl Components {
    /// The components given, with the transforms of this crate.
    pub fn new(
        sources: Registry<dyn Source>,
        decoders: Registry<dyn Decoder>,
        readers: Registry<dyn Reader>,
    ) -> Self {
        Self { sources, decoders, readers, transforms: transforms() }
    }
}

/// Builds the component of an entry: its `type`, its settings without the keys in `structure`. Unknown and missing
/// keys are all reported, each at its place; paths are put beside the file.
pub(crate) fn build<P: ?Sized + 'static>(
    registry: &Registry<P>,
    document: &Document,
    entry: &Entry,
    structure: &[&str],
    errors: &mut Vec<Error>,
) -> Option<(String, Json, Box<P>)> {
    let kind = registry.kind();
    let Some(table) = entry.node.as_table() else {
        errors.push(
            Error::config(format!("a {kind} is a table, not {}", entry.node.kind()))
                .at(document.place(&entry.node.span)),
        );
        return None;
    };
    let Some(type_entry) = table.get("type") else {
        let known: Vec<&str> = registry.docs().map(|doc| doc.type_name).collect();
        errors.push(
            Error::config(format!("the key 'type' of the {kind} is missing"))
                .at(document.place(&entry.key))
                .with_help(format!("known types: {}", known.join(", "))),
        );
        return None;
    };
    let Some(type_name) = type_entry.node.as_str() else {
        errors.push(
            Error::config(format!("'type' is a string, not {}", type_entry.node.kind()))
                .at(document.place(&type_entry.node.span)),
        );
        return None;
    };
    let before = errors.len();
    let mut without = vec!["type"];
    without.extend(structure);
    if let Some(doc) = registry.docs().find(|doc| doc.type_name == type_name) {
        without.extend(check_keys(doc, document, entry, structure, errors));
    }
    let mut settings = table.to_json(&without);
    beside(&mut settings, document);
    match registry.build(type_name, settings.clone()) {
        Ok(product) if errors.len() == before => Some((type_name.to_owned(), settings, product)),
        Ok(_) => None,
        Err(error) => {
            // An unknown or missing key is reported above; serde would say it again.
            let text = error.to_string();
            let said = text.starts_with("unknown field `") || text.starts_with("missing field `");
            if errors.len() == before || !said {
                errors.push(document.locate(error, entry));
            }
            None
        }
    }
}

/// Compares the keys with the schema's properties; returns the unknown ones.
fn check_keys<'a>(
    doc: &ComponentDoc,
    document: &Document,
    entry: &'a Entry,
    structure: &[&str],
    errors: &mut Vec<Error>,
) -> Vec<&'a str> {
    let mut unknown = Vec::new();
    let Some(table) = entry.node.as_table() else { return unknown };
    let schema = (doc.schema)(&mut SchemaGenerator::default());
    let Some(properties) = schema.get("properties").and_then(Json::as_object) else { return unknown };
    let closed = schema.get("additionalProperties") == Some(&Json::Bool(false));
    let known = properties.keys().map(String::as_str).chain(structure.iter().copied()).chain(["type"]);
    for (key, value) in &table.0 {
        if closed && !known.clone().any(|name| name == key) {
            unknown.push(key.as_str());
            errors.push(
                Error::config(format!("unknown key '{key}'"))
                    .at(document.place(&value.key))
                    .with_help(unknown_key_help(key, known.clone())),
            );
        }
    }
    let required = schema.get("required").and_then(Json::as_array).into_iter().flatten();
    for key in required.filter_map(Json::as_str) {
        if table.get(key).is_none() {
            let meaning = properties
                .get(key)
                .and_then(|property| property.get("description"))
                .and_then(Json::as_str)
                .and_then(|text| text.split("\n\n").next());
            let error = Error::config(format!("the key '{key}' is missing")).at(document.place(&entry.key));
            errors.push(match meaning {
                Some(meaning) => error.with_help(format!("{key}: {}", meaning.replace('\n', " "))),
                None => error,
            });
        }
    }
    unknown
}

/// The settings that name files, wherever they stand.
fn names_a_file(key: &str, table: &serde_json::Map<String, Json>) -> bool {
    matches!(key, "path" | "paths" | "ca" | "certificate" | "client_authority")
        || key.ends_with("_path")
        || key.ends_with("_file")
        || (key == "key" && table.contains_key("certificate"))
}

/// Relative paths are relative to the file: the settings that name files (`path`, `paths`, `…_path`, `…_file`, TLS
/// certificates and keys) are joined to its folder.
pub(crate) fn beside(settings: &mut Json, document: &Document) {
    let Json::Object(entries) = settings else { return };
    let keys: Vec<String> = entries.keys().filter(|key| names_a_file(key, entries)).cloned().collect();
    for (key, value) in entries.iter_mut() {
        match value {
            Json::Object(_) => beside(value, document),
            Json::String(path) if keys.contains(key) => *path = join(document, path),
            Json::Array(paths) if keys.contains(key) => {
                for path in paths {
                    if let Json::String(path) = path {
                        *path = join(document, path);
                    }
                }
            }
            _ => {}
        }
    }
}

/// A path as seen from the folder of the file.
pub(crate) fn join(document: &Document, path: &str) -> String {
    match document.path.as_ref().and_then(|file| file.parent()) {
        Some(folder) if !path.contains("://") => folder.join(path).display().to_string(),
        _ => path.to_owned(),
    }
}
