//! Mistakes between steps: names that do not exist, cycles, steps that nothing reads, tables that do not fit.

use std::collections::{BTreeMap, BTreeSet};

use twinlake_contracts::{Error, TableName, WriteMode, suggest};

use crate::diagnostics::Diagnostics;
use crate::document::{Value, unknown_key_help};
use crate::model::Pipeline;

/// Names that do not exist, cycles, steps that nothing reads, tables named twice, modes that do not fit.
pub(crate) fn check_graph(pipeline: &Pipeline, found: &mut Diagnostics) {
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
                    let span =
                        entry.node.as_table().and_then(|t| t.get("inputs")).map(|i| i.node.span.clone());
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
pub(crate) fn check_tests(pipeline: &Pipeline, found: &mut Diagnostics) {
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
