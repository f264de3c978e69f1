//! From a table or a column up to its sources or down to what is made of it, and the picture of the way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value as Json, json};
use twinlake_contracts::{Error, Result};

use crate::lineage::LineageEdge;

/// Which way to follow the arrows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To the sources.
    #[default]
    Up,
    /// To what is made of it.
    Down,
}

/// A table or step, and one of its columns when columns are followed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// `schema.table`, `pipeline/step`, a file or an address.
    pub dataset: String,
    /// The column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
}

/// The way from a place.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Where it begins.
    pub start: Place,
    /// Which way it goes.
    pub direction: Direction,
    /// The arrows on the way, nearest first; each with its distance from the start.
    pub hops: Vec<(usize, LineageEdge)>,
}

impl Place {
    fn shown(&self) -> String {
        match &self.column {
            Some(column) => format!("{}.{column}", self.dataset),
            None => self.dataset.clone(),
        }
    }
}

/// The ends of an arrow, as seen from the start: nearer, farther. With columns, an arrow without an output column belongs
/// to all columns of its output.
fn ends(edge: &LineageEdge, direction: Direction, columns: bool) -> Option<(Place, Place)> {
    let place = |dataset: &str, column: &Option<String>| Place {
        dataset: dataset.to_owned(),
        column: column.clone(),
    };
    if columns != edge.input_column.is_some() {
        return None;
    }
    let (input, output) = (place(&edge.input, &edge.input_column), place(&edge.output, &edge.output_column));
    Some(match direction {
        Direction::Up => (output, input),
        Direction::Down => (input, output),
    })
}

/// Follows the arrows from a table or, with a column, from that column. What decides over rows (`filter`, `join`,
/// `aggregate` of groups) is told where it is met, and followed no further.
pub fn trace(
    edges: &[LineageEdge],
    dataset: &str,
    column: Option<&str>,
    direction: Direction,
) -> Result<Trace> {
    let columns = column.is_some();
    let mut from: BTreeMap<Place, Vec<(&LineageEdge, Place)>> = BTreeMap::new();
    let mut known: BTreeSet<Place> = BTreeSet::new();
    for edge in edges {
        let Some((nearer, farther)) = ends(edge, direction, columns) else { continue };
        known.extend([nearer.clone(), farther.clone()]);
        from.entry(nearer).or_default().push((edge, farther));
    }
    let start = Place { dataset: dataset.to_owned(), column: column.map(str::to_owned) };
    if !known.contains(&start) {
        return Err(unknown(edges, &start, &known));
    }
    let mut hops = Vec::new();
    let mut seen = BTreeSet::from([start.clone()]);
    let mut taken: BTreeSet<&LineageEdge> = BTreeSet::new();
    let mut waiting = VecDeque::from([(start.clone(), 1)]);
    while let Some((place, depth)) = waiting.pop_front() {
        let mut next: Vec<&(&LineageEdge, Place)> = from.get(&place).into_iter().flatten().collect();
        let whole = Place { dataset: place.dataset.clone(), column: None };
        if columns && direction == Direction::Up {
            next.extend(from.get(&whole).into_iter().flatten());
        }
        for (edge, farther) in next {
            if taken.insert(edge) {
                hops.push((depth, (*edge).clone()));
            }
            let decides = columns && edge.output_column.is_none();
            if !decides && seen.insert(farther.clone()) {
                waiting.push_back((farther.clone(), depth + 1));
            }
        }
    }
    Ok(Trace { start, direction, hops })
}

fn unknown(edges: &[LineageEdge], start: &Place, known: &BTreeSet<Place>) -> Error {
    let datasets: BTreeSet<&str> =
        edges.iter().flat_map(|edge| [edge.input.as_str(), edge.output.as_str()]).collect();
    if edges.is_empty() {
        return Error::not_found("table with lineage", start.shown(), []);
    }
    match &start.column {
        Some(column) if datasets.contains(start.dataset.as_str()) => {
            let names = known.iter().filter(|place| place.dataset == start.dataset);
            Error::not_found(
                "column with lineage",
                column.clone(),
                names.filter_map(|place| place.column.as_deref()),
            )
        }
        _ => Error::not_found("table with lineage", start.dataset.clone(), datasets.iter().copied()),
    }
}

impl Trace {
    /// The sources (or, downwards, the ends): places from which no arrow goes on. What only decides over rows is left out.
    pub fn ends(&self) -> BTreeSet<Place> {
        let columns = self.start.column.is_some();
        let values = self.hops.iter().filter(|(_, edge)| !columns || edge.output_column.is_some());
        let pairs: Vec<(Place, Place)> =
            values.filter_map(|(_, edge)| ends(edge, self.direction, columns)).collect();
        let nearer: BTreeSet<&Place> = pairs.iter().map(|(nearer, _)| nearer).collect();
        pairs.iter().map(|(_, farther)| farther).filter(|place| !nearer.contains(place)).cloned().collect()
    }

    /// For people: an arrow a line, indented by its distance from the start.
    pub fn text(&self) -> String {
        let mut out = format!("{}\n", self.start.shown());
        let mut written = BTreeSet::new();
        self.below(&self.start, 1, &mut written, &mut out);
        if self.hops.is_empty() {
            out.push_str(match self.direction {
                Direction::Up => "  nothing is above it\n",
                Direction::Down => "  nothing is made of it\n",
            });
        }
        out
    }

    fn below(&self, place: &Place, depth: usize, written: &mut BTreeSet<Place>, out: &mut String) {
        if !written.insert(place.clone()) {
            return;
        }
        let columns = self.start.column.is_some();
        let arrow = if self.direction == Direction::Up { "<-" } else { "->" };
        for (_, edge) in &self.hops {
            let Some((nearer, farther)) = ends(edge, self.direction, columns) else { continue };
            let decides = columns && edge.output_column.is_none();
            let here =
                nearer == *place || (decides && nearer.dataset == place.dataset && nearer.column.is_none());
            if !here {
                continue;
            }
            let how = edge.dependency.as_deref().map(|word| format!(" {word}")).unwrap_or_default();
            let what = match &edge.expression {
                Some(expression) => format!(": {expression}"),
                None => String::new(),
            };
            let by = format!("[{} {}{how}{what}]", edge.kind, edge.step);
            let _ = writeln!(out, "{}{arrow} {} {by}", "  ".repeat(depth), farther.shown());
            if !decides {
                self.below(&farther, depth + 1, written, out);
            }
        }
    }

    /// The arrows as JSON: `start`, `direction`, `edges` with `depth`.
    pub fn json(&self) -> Json {
        let edges: Vec<Json> = self
            .hops
            .iter()
            .map(|(depth, edge)| {
                let mut value = json!(edge);
                value["depth"] = json!(depth);
                value
            })
            .collect();
        json!({ "start": self.start, "direction": self.direction, "edges": edges, "ends": self.ends() })
    }

    /// A Mermaid flow chart; arrows of values are drawn through, those that decide over rows are dotted.
    pub fn mermaid(&self) -> String {
        let columns = self.start.column.is_some();
        let mut numbers: BTreeMap<Place, usize> = BTreeMap::new();
        let mut out = "flowchart LR\n".to_owned();
        let mut arrows = String::new();
        let mut number = |place: &Place, out: &mut String| -> usize {
            if let Some(known) = numbers.get(place) {
                return *known;
            }
            let next = numbers.len();
            numbers.insert(place.clone(), next);
            let label = place.shown().replace('"', "#quot;");
            let label = if place.column.is_none() && columns { format!("{label} (rows)") } else { label };
            let (open, close) = if label.contains('/') { ("[", "]") } else { ("[(", ")]") };
            let _ = writeln!(out, "  n{next}{open}\"{label}\"{close}");
            next
        };
        number(&self.start, &mut out);
        for (_, edge) in &self.hops {
            let input = Place { dataset: edge.input.clone(), column: edge.input_column.clone() };
            let output = Place { dataset: edge.output.clone(), column: edge.output_column.clone() };
            let (from, to) = (number(&input, &mut out), number(&output, &mut out));
            let dotted = columns && edge.output_column.is_none();
            let label = edge.dependency.as_deref().filter(|word| *word != "direct");
            let _ = match (label, dotted) {
                (Some(label), true) => writeln!(arrows, "  n{from} -. {label} .-> n{to}"),
                (Some(label), false) => writeln!(arrows, "  n{from} -- {label} --> n{to}"),
                (None, _) => writeln!(arrows, "  n{from} --> n{to}"),
            };
        }
        out + &arrows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(input: &str, output: &str, dependency: &str) -> LineageEdge {
        let split = |text: &str| match text.split_once(':') {
            Some((dataset, "*")) => (dataset.to_owned(), None),
            Some((dataset, column)) => (dataset.to_owned(), Some(column.to_owned())),
            None => (text.to_owned(), None),
        };
        let ((input, input_column), (output, output_column)) = (split(input), split(output));
        LineageEdge {
            pipeline: "p".into(),
            step: "s".into(),
            kind: "sql".into(),
            input,
            output,
            dependency: input_column.is_some().then(|| dependency.to_owned()),
            input_column,
            output_column,
            expression: None,
        }
    }

    fn edges() -> Vec<LineageEdge> {
        vec![
            edge("raw.a", "p/a", ""),
            edge("p/a", "t.b", ""),
            edge("t.b", "twin.c", ""),
            edge("raw.a:payload", "p/a:x", "computed"),
            edge("raw.a:payload", "p/a:k", "computed"),
            edge("p/a:x", "t.b:speed", "direct"),
            edge("p/a:k", "t.b:*", "filter"),
            edge("t.b:speed", "twin.c:speed", "direct"),
        ]
    }

    #[test]
    fn a_column_leads_to_its_sources_and_back() {
        let up = trace(&edges(), "twin.c", Some("speed"), Direction::Up).unwrap();
        let ends: Vec<String> = up.ends().iter().map(Place::shown).collect();
        assert_eq!(ends, ["raw.a.payload"]);
        assert_eq!(
            up.text(),
            "twin.c.speed\n  <- t.b.speed [sql s direct]\n    <- p/a.x [sql s direct]\n      <- raw.a.payload [sql s computed]\n    <- p/a.k [sql s filter]\n"
        );
        assert!(up.mermaid().contains("-. filter .->"), "{}", up.mermaid());
        let down = trace(&edges(), "raw.a", Some("payload"), Direction::Down).unwrap();
        assert!(down.text().contains("-> twin.c.speed"), "{}", down.text());
        let tables = trace(&edges(), "twin.c", None, Direction::Up).unwrap();
        assert_eq!(tables.hops.iter().map(|(depth, _)| *depth).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(tables.json()["ends"][0]["dataset"], "raw.a");
    }

    #[test]
    fn a_slip_of_the_keyboard_is_met_with_the_nearest_name() {
        let error = trace(&edges(), "twin.d", None, Direction::Up).unwrap_err().to_string();
        assert!(error.contains("did you mean 'twin.c'?"), "{error}");
        let error = trace(&edges(), "twin.c", Some("sped"), Direction::Up).unwrap_err().to_string();
        assert!(error.contains("did you mean 'speed'?"), "{error}");
    }

    #[test]
    fn a_circle_ends() {
        let circle = [edge("a:x", "b:x", "direct"), edge("b:x", "a:x", "direct")];
        let trace = trace(&circle, "a", Some("x"), Direction::Up).unwrap();
        assert_eq!(trace.hops.len(), 2);
        assert_eq!(trace.text().lines().count(), 3);
    }
}
