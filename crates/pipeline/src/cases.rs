//! `[[tests]]`: a pipeline's tests in its own language, run with the real decoder, SQL engine and transforms.
//!
//! ```toml
//! [[tests]]
//! name = "a null position is no row"
//! inputs = [{ source = "hfp", messages = [{ origin = "/hfp/v1/…", payload = '{"VP": {…}}' }] }]
//! outputs = [{ from = "vehicle_position", rows = [{ vehicle_id = "18/640" }], rejects = ["missing_value"] }]
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use twinlake_contracts::{
    Batch, Checkpoint, Error, LoggedMessage, Message, Position, Result, SqlEngine, parse_us,
};

use crate::cell::{self, equal};
use crate::components::beside;
use crate::files::read_batches;
use crate::flow::{Flow, Output, Refused};
use crate::model::SourceKind;
use crate::normalise::normalise;
use crate::plan::Plan;
use crate::window::{self, Processed};

type Row = Map<String, Json>;

/// A test: what goes in, and what must come out.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What the test shows, in words.
    pub name: String,
    /// What goes in. A source with a reader that is not named here reads its file.
    #[serde(default)]
    pub inputs: Vec<CaseInput>,
    /// What must come out.
    pub outputs: Vec<CaseOutput>,
    /// The line of the test in its file.
    #[serde(skip)]
    pub line: usize,
}

/// What goes into one source: messages, rows, or another source's messages.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CaseInput {
    /// The source's name.
    pub source: String,
    /// Messages, in order.
    pub messages: Option<Vec<CaseMessage>>,
    /// Rows as the source's decoder or reader would give them; a column that is not named is null.
    pub rows: Option<Vec<Row>>,
    /// A bounded source to take the messages from: `{ type = "files", path = "…" }`.
    pub from: Option<Row>,
}

/// A message.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CaseMessage {
    /// The bytes as text; a table stands for itself as JSON.
    pub payload: Json,
    /// The topic or path.
    #[serde(default)]
    pub origin: String,
    /// When it arrived, RFC 3339 (default 1970-01-01T00:00:00Z).
    pub received_at: Option<String>,
}

/// What must come out of a step or sink.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CaseOutput {
    /// The name of a sink, transform or source; `sinks.NAME`, `transforms.NAME` where two have the same name (a sink
    /// goes before).
    pub from: String,
    /// All rows, in order. Only the columns that are named are compared; `{ null = true }` stands for a null.
    pub rows: Option<Vec<Row>>,
    /// Rows that must be among those that come out.
    pub contains: Option<Vec<Row>>,
    /// How many rows.
    pub count: Option<usize>,
    /// The rejects of this step; of a sink: of the whole way to it. The reasons in the order of the messages, or a
    /// table with the number of each reason.
    pub rejects: Option<ExpectedRejects>,
}

/// Reasons in order, or how many of each.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ExpectedRejects {
    /// The reasons in the order of the messages.
    Reasons(Vec<String>),
    /// How many of each reason.
    Counts(IndexMap<String, usize>),
}

/// What a test found.
#[derive(Debug, Clone)]
pub struct CaseResult {
    /// The test's name.
    pub name: String,
    /// Its line in the file.
    pub line: usize,
    /// Differences, each a text of several lines; empty when the test passed.
    pub failures: Vec<String>,
}

impl CaseResult {
    /// Whether everything came out as expected.
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

/// Runs all tests of a pipeline, each with fresh operators.
pub async fn run_tests(plan: &Arc<Plan>, engine: &Arc<dyn SqlEngine>) -> Vec<CaseResult> {
    let mut results = Vec::new();
    for case in &plan.pipeline.tests {
        let failures = match run(plan, engine, case).await {
            Ok(failures) => failures,
            Err(error) => vec![error.to_string()],
        };
        results.push(CaseResult { name: case.name.clone(), line: case.line, failures });
    }
    results
}

/// Everything that came out of a test.
#[derive(Default)]
struct Outcome {
    steps: BTreeMap<String, Vec<Batch>>,
    sinks: BTreeMap<String, Vec<Row>>,
    refused: Vec<Refused>,
}

impl Outcome {
    fn add(&mut self, processed: Processed) {
        for (sink, rows) in processed.sinks {
            let rows = (0..rows.num_rows()).map(|at| cell::row(&rows, at));
            self.sinks.entry(sink).or_default().extend(rows);
        }
        self.refused.extend(processed.refused);
        for (step, batches) in processed.tapped {
            self.steps.entry(step).or_default().extend(batches);
        }
    }
}

async fn run(plan: &Arc<Plan>, engine: &Arc<dyn SqlEngine>, case: &Case) -> Result<Vec<String>> {
    let mut flow = Flow::new(plan, engine).await?;
    flow.tap(plan.schemas.keys().cloned());
    let mut outcome = Outcome::default();
    let mut sequence = 0;
    let mut output = Output::default();
    for input in &case.inputs {
        if let Some(rows) = &input.rows {
            let schema = plan.schemas.get(&input.source).ok_or_else(|| {
                Error::not_found("source", &input.source, plan.schemas.keys().map(String::as_str))
            })?;
            let batch = Batch { rows: cell::batch(schema, rows)?, sequences: None };
            flow.push(&input.source, batch, &mut output).await?;
        }
        let mut messages = Vec::new();
        for (ordinal, message) in (1..).zip(input.messages.iter().flatten()) {
            messages.push(message.build(ordinal)?);
        }
        if let Some(from) = &input.from {
            messages.extend(read_source(plan, from).await?);
        }
        for chunk in messages.chunks(plan.pipeline.settings.micro_batch_messages) {
            let logged = chunk.iter().map(|message| {
                sequence += 1;
                LoggedMessage { sequence, source: input.source.as_str().into(), message: message.clone() }
            });
            let logged = logged.collect();
            outcome.add(window::process(plan, &mut flow, logged).await?);
        }
    }
    for (name, source) in &plan.pipeline.sources {
        let SourceKind::File { path, reader, .. } = &source.kind else { continue };
        if case.inputs.iter().any(|input| input.source == *name) || !needed(plan, case, name) {
            continue;
        }
        let mut batches = read_batches(reader, path);
        while let Some(batch) = batches.recv().await {
            let (rows, _) = normalise(&batch?, &plan.schemas[name])?;
            flow.push(name, Batch { rows, sequences: None }, &mut output).await?;
        }
    }
    if sequence > 0 {
        // The end of the messages is a message itself, as in a run.
        sequence += 1;
        let message = window::end_of_input(1, flow.held.newest_received_us());
        let end = LoggedMessage { sequence, source: window::END_OF_INPUT.into(), message };
        outcome.add(window::process(plan, &mut flow, vec![end]).await?);
    } else {
        flow.finish(None, &mut output).await?;
    }
    for (sink, batches) in output.sinks {
        let rows =
            batches.iter().flat_map(|batch| (0..batch.rows.num_rows()).map(|at| cell::row(&batch.rows, at)));
        outcome.sinks.entry(sink).or_default().extend(rows);
    }
    outcome.refused.extend(output.refused);
    for (step, batches) in output.tapped {
        outcome.steps.entry(step).or_default().extend(batches);
    }
    let mut failures = Vec::new();
    for expected in &case.outputs {
        check(plan, expected, &outcome, &mut failures);
    }
    Ok(failures)
}

/// Whether a test looks at anything that a source feeds.
fn needed(plan: &Plan, case: &Case, source: &str) -> bool {
    case.outputs.iter().any(|output| {
        let name = output.from.split_once('.').map_or(output.from.as_str(), |(_, name)| name);
        let pipeline = &plan.pipeline;
        let inputs = pipeline.sinks.get(name).map(|sink| &sink.inputs).into_iter();
        let inputs = inputs.chain(pipeline.transforms.get(name).map(|node| &node.inputs));
        name == source || inputs.flat_map(|inputs| pipeline.ancestors(inputs)).any(|above| above == source)
    })
}

impl CaseMessage {
    fn build(&self, ordinal: u64) -> Result<Message> {
        let payload = match &self.payload {
            Json::String(text) => text.clone(),
            other => other.to_string(),
        };
        let received_at_us = match &self.received_at {
            None => 0,
            Some(text) => {
                parse_us(text).ok_or_else(|| Error::config(format!("'{text}' is not a time stamp")))?
            }
        };
        Ok(Message {
            payload: Bytes::from(payload),
            origin: self.origin.as_str().into(),
            position: Position { ordinal, token: String::new() },
            received_at_us,
        })
    }
}

/// All messages of a bounded source.
async fn read_source(plan: &Plan, settings: &Row) -> Result<Vec<Message>> {
    let mut settings = settings.clone();
    let Some(Json::String(type_name)) = settings.shift_remove("type") else {
        return Err(
            Error::config("'from' has no 'type'").with_help("from = { type = \"files\", path = \"…\" }")
        );
    };
    let mut settings = Json::Object(settings);
    beside(&mut settings, &plan.pipeline.document);
    let mut source = plan.pipeline.components.sources.build(&type_name, settings)?;
    if !source.bounded() {
        return Err(Error::config(format!("a source of type '{type_name}' with these settings never ends")));
    }
    let mut stream = source.open(&Checkpoint::default()).await?;
    let mut messages = Vec::new();
    while let Some(message) = stream.next().await {
        messages.push(message?);
    }
    Ok(messages)
}

fn check(plan: &Plan, expected: &CaseOutput, outcome: &Outcome, failures: &mut Vec<String>) {
    let (section, name) = expected.from.split_once('.').unwrap_or(("", &expected.from));
    let is_sink = section == "sinks" || (section.is_empty() && plan.pipeline.sinks.contains_key(name));
    let rows: Vec<Row> = if is_sink {
        outcome.sinks.get(name).cloned().unwrap_or_default()
    } else {
        let batches = outcome.steps.get(name).into_iter().flatten();
        batches.flat_map(|batch| (0..batch.rows.num_rows()).map(|at| cell::row(&batch.rows, at))).collect()
    };
    let matches = |expected: &Row, actual: &Row| {
        expected.iter().all(|(column, value)| actual.get(column).is_some_and(|cell| equal(value, cell)))
    };
    let mut fail = |what: String| failures.push(format!("from '{}': {what}", expected.from));
    if let Some(wanted) = &expected.rows {
        let same = wanted.len() == rows.len() && wanted.iter().zip(&rows).all(|(w, r)| matches(w, r));
        if !same {
            fail(format!(
                "the rows differ (- expected, + came out)\n{}",
                difference(wanted, &rows, &matches)
            ));
        }
    }
    for wanted in expected.contains.iter().flatten() {
        if !rows.iter().any(|row| matches(wanted, row)) {
            let near = rows.iter().max_by_key(|row| {
                wanted.iter().filter(|(k, v)| row.get(*k).is_some_and(|c| equal(v, c))).count()
            });
            let shown = near.map_or_else(
                || "no row came out".to_owned(),
                |row| difference(std::slice::from_ref(wanted), std::slice::from_ref(row), &matches),
            );
            fail(format!("no row is like this one; the nearest:\n{shown}"));
        }
    }
    if let Some(count) = expected.count
        && count != rows.len()
    {
        fail(format!("{} rows came out, {count} were expected", rows.len()));
    }
    if let Some(wanted) = &expected.rejects {
        let mut on_the_way = vec![name];
        if is_sink {
            on_the_way = plan
                .pipeline
                .sinks
                .get(name)
                .map(|sink| plan.pipeline.above(&sink.inputs))
                .unwrap_or_default();
        }
        let mut refused: Vec<&Refused> = outcome
            .refused
            .iter()
            .filter(|refused| on_the_way.contains(&refused.component.as_str()))
            .collect();
        refused.sort_by_key(|refused| refused.sequence);
        if let Some(text) = wanted.difference(&refused) {
            fail(text);
        }
    }
}

impl ExpectedRejects {
    fn difference(&self, refused: &[&Refused]) -> Option<String> {
        let same = match self {
            Self::Reasons(reasons) => {
                reasons.len() == refused.len()
                    && reasons.iter().zip(refused).all(|(r, refused)| **r == *refused.reason)
            }
            Self::Counts(counts) => {
                let mut actual: BTreeMap<&str, usize> = BTreeMap::new();
                for refused in refused {
                    *actual.entry(&refused.reason).or_default() += 1;
                }
                let wanted: BTreeMap<&str, usize> =
                    counts.iter().filter(|(_, n)| **n > 0).map(|(reason, n)| (reason.as_str(), *n)).collect();
                if actual != wanted {
                    return Some(format!("the rejects differ\n  - {wanted:?}\n  + {actual:?}"));
                }
                true
            }
        };
        if same {
            return None;
        }
        let mut text = "the rejects differ (- expected, + came out)".to_owned();
        if let Self::Reasons(reasons) = self {
            for reason in reasons {
                let _ = write!(text, "\n  - {reason}");
            }
        }
        for refused in refused {
            let _ = write!(text, "\n  + {} ({}: {})", refused.reason, refused.component, refused.detail);
        }
        Some(text)
    }
}

/// Expected and actual rows side by side; equal ones once, only the columns that the test names.
fn difference(wanted: &[Row], actual: &[Row], matches: &dyn Fn(&Row, &Row) -> bool) -> String {
    const MOST: usize = 20;
    let mut text = String::new();
    let columns: Vec<&String> = {
        let mut columns: Vec<&String> = wanted.iter().flat_map(Map::keys).collect();
        columns.dedup();
        columns
    };
    let show = |row: &Row| {
        let named = row.iter().filter(|(key, _)| columns.is_empty() || columns.contains(key));
        named.map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join(", ")
    };
    for at in 0..wanted.len().max(actual.len()).min(MOST) {
        match (wanted.get(at), actual.get(at)) {
            (Some(wanted), Some(actual)) if matches(wanted, actual) => {
                let _ = writeln!(text, "    {}", show(actual));
            }
            (wanted, actual) => {
                for (sign, row) in [("-", wanted), ("+", actual)] {
                    if let Some(row) = row {
                        let _ = writeln!(text, "  {sign} {}", show(row));
                    }
                }
            }
        }
    }
    let more = wanted.len().max(actual.len()).saturating_sub(MOST);
    if more > 0 {
        let _ = writeln!(text, "    … and {more} more");
    }
    text.trim_end().to_owned()
}
