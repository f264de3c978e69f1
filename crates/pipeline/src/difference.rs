//! What differs between two texts of a pipeline, and which tables hold rows that the new one would not make.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;

use crate::document::{Node, Value};
use crate::model::{Pipeline, SourceKind};

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepChange {
    /// The new text has it, the old one has not.
    Added,
    /// Both have it, with other settings.
    Changed,
    /// The old text has it, the new one has not.
    Removed,
}

/// What differs between two texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Steps by `section.name`.
    pub steps: BTreeMap<String, StepChange>,
    /// Sinks whose rows the new text would make in another way: a step above them, or their inputs, changed.
    pub stale: BTreeSet<String>,
}

/// Compares what the texts say; comments, spaces and the order of keys say nothing.
pub fn difference(old: &Pipeline, new: &Pipeline) -> Difference {
    let (before, after) = (steps(old), steps(new));
    let mut found = Difference::default();
    for name in before.keys().chain(after.keys()) {
        let change = match (before.get(name), after.get(name)) {
            (None, Some(_)) => StepChange::Added,
            (Some(_), None) => StepChange::Removed,
            (Some(a), Some(b)) if a != b => StepChange::Changed,
            _ => continue,
        };
        found.steps.insert(name.clone(), change);
    }
    let both = new.sinks.keys().filter(|sink| old.sinks.contains_key(*sink));
    found.stale = both.filter(|sink| origin(old, sink) != origin(new, sink)).cloned().collect();
    found
}

/// Whether a step of the pipeline looks rows up in a table: its settings name it.
pub fn looks_up(pipeline: &Pipeline, table: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    steps(pipeline)
        .iter()
        .filter(|(step, _)| step.starts_with("transforms."))
        .any(|(_, text)| text.split(|c| !part(c)).any(|word| word == table))
}

/// Everything that decides which rows a sink gets and where, as text.
fn origin(pipeline: &Pipeline, sink: &str) -> String {
    let Some(node) = pipeline.sinks.get(sink) else { return String::new() };
    let mut text = format!("{} {:?}\n", node.table, node.inputs);
    let mut todo: Vec<&str> = node.inputs.iter().map(String::as_str).collect();
    let mut seen = BTreeSet::new();
    while let Some(step) = todo.pop() {
        if !seen.insert(step) {
            continue;
        }
        if let Some(transform) = pipeline.transforms.get(step) {
            todo.extend(transform.inputs.iter().map(String::as_str));
        }
    }
    let said = steps(pipeline);
    for step in seen {
        if let Some(transform) = said.get(&format!("transforms.{step}")) {
            let _ = writeln!(text, "{step} {transform}");
        }
        // Where messages come from decides nothing: past ones are kept. How they are read does.
        if let Some(source) = pipeline.sources.get(step) {
            let _ = match &source.kind {
                SourceKind::Messages { .. } => {
                    let decoder = pipeline
                        .entry("sources", step)
                        .and_then(|entry| entry.node.as_table()?.get("decoder"));
                    writeln!(
                        text,
                        "{step} {}",
                        decoder.map(|entry| canonical(&entry.node)).unwrap_or_default()
                    )
                }
                SourceKind::File { .. } => {
                    writeln!(
                        text,
                        "{step} {}",
                        said.get(&format!("sources.{step}")).map_or("", String::as_str)
                    )
                }
            };
        }
    }
    text
}

/// What the text says of each step, in a form that does not depend on how it is written.
fn steps(pipeline: &Pipeline) -> BTreeMap<String, String> {
    let mut steps = BTreeMap::new();
    for section in ["sources", "transforms", "sinks"] {
        let Some(entry) = pipeline.document.root.get(section) else { continue };
        let Some(table) = entry.node.as_table() else { continue };
        for (name, entry) in &table.0 {
            steps.insert(format!("{section}.{name}"), canonical(&entry.node));
        }
    }
    if let Some(entry) = pipeline.document.root.get("settings") {
        steps.insert("settings".to_owned(), canonical(&entry.node));
    }
    steps
}

fn canonical(node: &Node) -> String {
    match &node.value {
        Value::String(text) => format!("{text:?}"),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Boolean(value) => value.to_string(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(","))
        }
        Value::Table(table) => {
            // What is said to people changes no row.
            let entries = table.0.iter().filter(|(key, _)| *key != "description");
            let sorted: BTreeMap<&String, String> =
                entries.map(|(key, entry)| (key, canonical(&entry.node))).collect();
            let parts = sorted.iter().map(|(key, value)| format!("{key}:{value}"));
            format!("{{{}}}", parts.collect::<Vec<_>>().join(","))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::components;

    const TEXT: &str = r#"
name = "p"
[sources.a]
type = "fake"
url = "fake://one"
decoder = { type = "fake" }
[transforms.t]
type = "sql"
inputs = ["a"]
query = "SELECT * FROM input WHERE value > 0"
[sinks.raw]
type = "lake"
inputs = ["a"]
table = "x.raw"
[sinks.out]
type = "lake"
inputs = ["t"]
table = "x.out"
"#;

    fn against(change: impl Fn(&str) -> String) -> Difference {
        let parse = |text: &str| {
            let (pipeline, found) = Pipeline::parse(text, None, &components());
            pipeline.unwrap_or_else(|| panic!("{found}"))
        };
        difference(&parse(TEXT), &parse(&change(TEXT)))
    }

    #[test]
    fn a_table_that_a_step_names_is_looked_up() {
        let text = TEXT.replace("FROM input", "FROM input JOIN map.road_link ON true");
        let pipeline = Pipeline::parse(&text, None, &components()).0.unwrap();
        assert!(looks_up(&pipeline, "map.road_link"));
        assert!(!looks_up(&pipeline, "map.road") && !looks_up(&pipeline, "x.out"), "a sink is no lookup");
    }

    #[test]
    fn only_what_decides_rows_makes_a_table_stale() {
        let same = against(|text| {
            let told = text.replace("table = \"x.out\"", "table = \"x.out\"\ndescription = \"told\"");
            format!("# a comment\n{told}")
        });
        assert_eq!(same, Difference::default());
        let moved = against(|text| text.replace("fake://one", "fake://two"));
        assert_eq!((moved.steps.len(), moved.stale.len()), (1, 0), "{moved:?}");
        let query = against(|text| text.replace("value > 0", "value > 0 AND true"));
        assert_eq!(query.steps["transforms.t"], StepChange::Changed);
        assert_eq!(query.stale, BTreeSet::from(["out".to_owned()]));
        let decoder =
            against(|text| text.replace("{ type = \"fake\" }", "{ type = \"fake\", root = \"x\" }"));
        assert_eq!(decoder.stale.len(), 2);
        let elsewhere = against(|text| text.replace("x.out", "x.other"));
        assert_eq!(elsewhere.stale, BTreeSet::from(["out".to_owned()]));
        let fewer = against(|text| text.split("[sinks.out]").next().unwrap().to_owned());
        assert_eq!(fewer.steps["sinks.out"], StepChange::Removed);
        assert!(fewer.stale.is_empty());
    }
}
