//! The JSON Schema of pipeline files, for editors: made from the very structs that the settings are read into.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value as Json, json};
use twinlake_contracts::Registry;

use crate::cases::Case;
use crate::components::Components;
use crate::model::{LakeSink, Settings};

/// The schema of a pipeline file (JSON Schema 2020-12) with all components given.
pub fn pipeline_schema(components: &Components) -> Json {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let inputs = json!({
        "type": "array", "items": { "type": "string" }, "minItems": 1,
        "description": "The names of the sources and transforms whose rows come in.",
    });
    let described = json!({ "type": "string", "description": "A sentence for people." });
    let decoder = one_of(&components.decoders, &mut generator, &Map::new(), &[]);
    let reader = one_of(&components.readers, &mut generator, &Map::new(), &[]);
    let with_decoder = object(json!({
        "decoder": { "$ref": "#/$defs/decoder" },
        "description": described,
    }));
    let sources = one_of(&components.sources, &mut generator, &with_decoder, &["decoder"]);
    let file = json!({
        "type": "object",
        "description": "A file that is read as a whole.",
        "properties": {
            "path": { "type": "string", "description": "Where the file lies, relative to the pipeline file." },
            "reader": { "$ref": "#/$defs/reader" },
            "known_at": { "type": "string", "description": "When the content became known (RFC 3339); default: the time of the run." },
            "description": described,
        },
        "required": ["path", "reader"],
        "additionalProperties": false,
    });
    let transform =
        one_of(&components.transforms, &mut generator, &object(json!({ "inputs": inputs })), &["inputs"]);
    let mut sink = LakeSink::json_schema(&mut generator).to_value();
    extend(&mut sink, "lake", &object(json!({ "inputs": inputs })), &["inputs"]);
    let settings = generator.subschema_for::<Settings>();
    let case = generator.subschema_for::<Case>();
    let mut definitions: Map<String, Json> = generator.take_definitions(true);
    definitions.insert("decoder".into(), decoder);
    definitions.insert("reader".into(), reader);
    definitions.insert("source".into(), json!({ "oneOf": [sources, file] }));
    definitions.insert("transform".into(), transform);
    definitions.insert("sink".into(), sink);
    let named = |what: &str, of: &str| {
        json!({
            "type": "object",
            "description": what,
            "propertyNames": { "pattern": "^[a-z][a-z0-9_]*$" },
            "additionalProperties": { "$ref": format!("#/$defs/{of}") },
        })
    };
    definitions.sort_keys();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Twinlake pipeline",
        "type": "object",
        "properties": {
            "name": { "type": "string", "pattern": "^[a-z][a-z0-9_-]*$", "description": "The pipeline's name; it also names its log." },
            "description": described,
            "settings": settings,
            "sources": named("Where rows come from.", "source"),
            "transforms": named("What happens to rows.", "transform"),
            "sinks": named("Where rows go.", "sink"),
            "tests": { "type": "array", "items": case, "description": "Tests, run by `twinlake test`." },
        },
        "required": ["name", "sources"],
        "additionalProperties": false,
        "$defs": definitions,
    })
}

/// The schema as the committed file has it.
pub fn pipeline_schema_text(components: &Components) -> String {
    let mut text = serde_json::to_string_pretty(&pipeline_schema(components)).unwrap_or_default();
    text.push('\n');
    text
}

fn object(value: Json) -> Map<String, Json> {
    match value {
        Json::Object(map) => map,
        _ => Map::new(),
    }
}

/// One of the components of a registry, told apart by `type`.
fn one_of<P: ?Sized + 'static>(
    registry: &Registry<P>,
    generator: &mut SchemaGenerator,
    structure: &Map<String, Json>,
    required: &[&str],
) -> Json {
    let alternatives = registry.docs().map(|doc| {
        let mut schema = Schema::to_value((doc.schema)(generator));
        extend(&mut schema, doc.type_name, structure, required);
        schema
    });
    json!({ "oneOf": alternatives.collect::<Vec<_>>() })
}

/// Adds `type` and the keys that belong to the pipeline's structure to a component's schema.
fn extend(schema: &mut Json, type_name: &str, structure: &Map<String, Json>, required: &[&str]) {
    if !schema.is_object() {
        *schema = json!({ "type": "object" });
    }
    let Json::Object(schema) = schema else { return };
    schema.shift_remove("$schema");
    schema.insert("type".into(), json!("object"));
    let own = schema.entry("properties").or_insert_with(|| json!({}));
    let mut properties = object(json!({ "type": { "const": type_name } }));
    properties.extend(structure.clone());
    if let Json::Object(own) = own {
        properties.extend(std::mem::take(own));
        *own = properties;
    }
    let list = schema.entry("required").or_insert_with(|| json!([]));
    if let Json::Array(list) = list {
        for key in ["type"].iter().chain(required).rev() {
            list.insert(0, json!(key));
        }
    }
}
