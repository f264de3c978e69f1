//! A pipeline as a picture: Mermaid for documents, DOT for Graphviz.

use std::fmt::Write as _;

use crate::model::{Pipeline, SourceKind};

/// What a picture's nodes and arrows are, in the order of the file.
struct Picture {
    /// Identifier, label, shape.
    nodes: Vec<(String, String, Shape)>,
    arrows: Vec<(String, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Source,
    Step,
    Table,
}

impl Pipeline {
    /// The pipeline as a Mermaid flow chart: sources, transforms, tables.
    pub fn mermaid(&self) -> String {
        let picture = self.picture();
        let mut out = "flowchart LR\n".to_owned();
        for (id, label, shape) in &picture.nodes {
            let label = label.replace('"', "#quot;").replace('\n', "<br/>");
            let (open, close) = match shape {
                Shape::Source => ("[/", "/]"),
                Shape::Step => ("[", "]"),
                Shape::Table => ("[(", ")]"),
            };
            let _ = writeln!(out, "  {id}{open}\"{label}\"{close}");
        }
        for (from, to) in &picture.arrows {
            let _ = writeln!(out, "  {from} --> {to}");
        }
        out
    }

    /// The pipeline in Graphviz' DOT language.
    pub fn dot(&self) -> String {
        let picture = self.picture();
        let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let mut out = format!("digraph \"{}\" {{\n  rankdir=LR;\n", quote(&self.name));
        for (id, label, shape) in &picture.nodes {
            let shape = match shape {
                Shape::Source => "parallelogram",
                Shape::Step => "box",
                Shape::Table => "cylinder",
            };
            let _ = writeln!(out, "  {id} [label=\"{}\", shape={shape}];", quote(label));
        }
        for (from, to) in &picture.arrows {
            let _ = writeln!(out, "  {from} -> {to};");
        }
        out.push_str("}\n");
        out
    }

    fn picture(&self) -> Picture {
        let mut picture = Picture { nodes: Vec::new(), arrows: Vec::new() };
        for (name, source) in &self.sources {
            let kind = match &source.kind {
                SourceKind::Messages { type_name, decoder_type, .. } => {
                    format!("{type_name} → {decoder_type}")
                }
                SourceKind::File { reader_type, .. } => reader_type.clone(),
            };
            picture.nodes.push((format!("step_{name}"), format!("{name}\n{kind}"), Shape::Source));
        }
        for (name, node) in &self.transforms {
            picture.nodes.push((format!("step_{name}"), format!("{name}\n{}", node.type_name), Shape::Step));
            picture
                .arrows
                .extend(node.inputs.iter().map(|input| (format!("step_{input}"), format!("step_{name}"))));
        }
        for (name, node) in &self.sinks {
            picture.nodes.push((format!("sink_{name}"), node.table.to_string(), Shape::Table));
            picture
                .arrows
                .extend(node.inputs.iter().map(|input| (format!("step_{input}"), format!("sink_{name}"))));
        }
        if self.sources.values().any(super::model::SourceNode::gives_messages) {
            for (name, _) in self.sources.iter().filter(|(_, source)| source.gives_messages()) {
                picture.nodes.push((format!("raw_{name}"), format!("raw.{name}"), Shape::Table));
                picture.arrows.push((format!("step_{name}"), format!("raw_{name}")));
            }
            picture.nodes.push(("rejects".to_owned(), "meta.rejects".to_owned(), Shape::Table));
            for name in
                self.sources.iter().filter(|(_, source)| source.gives_messages()).map(|(name, _)| name)
            {
                picture.arrows.push((format!("step_{name}"), "rejects".to_owned()));
            }
            for (name, _) in self.transforms.iter().filter(|(_, node)| self.fed_by_messages(&node.inputs)) {
                picture.arrows.push((format!("step_{name}"), "rejects".to_owned()));
            }
        }
        picture
    }
}
