//! Which table comes from which source, step by step: the rows of `meta.lineage`.

use serde::Serialize;

use crate::model::{Pipeline, SourceKind};

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
}

/// All arrows of a pipeline, in the order of the file.
pub fn lineage(pipeline: &Pipeline) -> Vec<Edge> {
    let name = &pipeline.name;
    let own = |step: &str| format!("{name}/{step}");
    let edge = |step: &str, kind: &str, input: String, output: String| Edge {
        pipeline: name.clone(),
        step: step.to_owned(),
        kind: kind.to_owned(),
        input,
        output,
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
