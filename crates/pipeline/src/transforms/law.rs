//! The law of every transform over messages, for tests: however the stream is cut into batches, and however often the
//! step is restarted in between, the same rows and rejects come out, and every row that went in comes to an end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::executor::block_on;
use proptest::prelude::*;
use serde_json::{Map, Value as Json};
use twinlake_contracts::{Batch, Rejects, Result, Transform, timestamp_type};

use super::{TransformContext, transforms};
use crate::cell;
use crate::document::Document;
use crate::fakes::{components, engine};

/// Near the last second that 64 bits of microseconds can count.
const END_OF_TIME_S: i64 = 9_223_372_036_854;

/// A row for tests: thing, event time in seconds, value, second value.
pub(super) type Row = (Option<&'static str>, Option<i64>, Option<f64>, Option<f64>);

pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, true),
        Field::new("ts", timestamp_type(), true),
        Field::new("value", DataType::Float64, true),
        Field::new("other", DataType::Float64, true),
    ]))
}

pub(super) fn batch(rows: &[Row]) -> RecordBatch {
    let ids: StringArray = rows.iter().map(|row| row.0).collect();
    let times: TimestampMicrosecondArray = rows.iter().map(|row| row.1.map(|s| s * 1_000_000)).collect();
    let values: Float64Array = rows.iter().map(|row| row.2).collect();
    let others: Float64Array = rows.iter().map(|row| row.3).collect();
    let columns = vec![
        Arc::new(ids) as _,
        Arc::new(times.with_timezone("UTC")) as _,
        Arc::new(values) as _,
        Arc::new(others) as _,
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

/// Rows of one thing: time in seconds, value.
pub(super) fn readings(rows: &[(i64, f64)]) -> RecordBatch {
    let rows: Vec<Row> =
        rows.iter().map(|(time, value)| (Some("a"), Some(*time), Some(*value), None)).collect();
    batch(&rows)
}

/// Streams with everything that happens: nulls, NaN, infinities, disorder, equal times.
pub(super) fn streams() -> impl Strategy<Value = Vec<Row>> {
    let value = || {
        proptest::option::weighted(
            0.95,
            prop_oneof![
                8 => (-4..5i32).prop_map(f64::from),
                2 => -100.0..100.0,
                1 => Just(f64::NAN),
                1 => prop_oneof![Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(-0.0), Just(f64::MAX)],
            ],
        )
    };
    let id = proptest::option::weighted(0.97, prop_oneof![Just("a"), Just("b"), Just("c")]);
    let step = prop_oneof![6 => 0..4i64, 1 => -15..0i64, 1 => 4..40i64];
    let time = proptest::option::weighted(0.97, step);
    proptest::collection::vec((id, time, value(), value(), 0..120u8), 0..60).prop_map(|rows| {
        let mut now = 0;
        let stepped = rows.into_iter().map(|(id, step, value, other, far)| {
            let at = step.map(|step| now + step);
            now = at.unwrap_or(now).max(now);
            // Instants at the ends of time: nothing may overflow.
            let at = at.map(|at| {
                if far == 0 {
                    END_OF_TIME_S
                } else if far == 1 {
                    -END_OF_TIME_S
                } else {
                    at
                }
            });
            (id, at, value, other)
        });
        stepped.collect()
    })
}

/// Where a stream is cut.
pub(super) fn cuts() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(0..9usize, 1..30)
}

pub(super) fn build(settings: &Json, schema: &SchemaRef) -> Result<Box<dyn Transform>> {
    let Json::Object(mut settings) = settings.clone() else { panic!("settings are a table") };
    let Some(Json::String(type_name)) = settings.shift_remove("type") else { panic!("no type") };
    let builder = transforms().build(&type_name, Json::Object(settings))?;
    let context = TransformContext {
        name: "step",
        inputs: vec![("input".to_owned(), Arc::clone(schema))],
        messages: true,
        engine: engine(),
        components: components(),
    };
    block_on(builder.build(&context))
}

/// The error of settings that must not be accepted.
pub(super) fn mistake(settings: &Json) -> String {
    build(settings, &schema())
        .err()
        .map_or_else(|| "no mistake was found".to_owned(), |error| error.to_string())
}

/// What came out.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    /// Rows in order, with the sequence of each.
    pub rows: Vec<(Map<String, Json>, Option<u64>)>,
    /// Sequence, reason and detail, sorted.
    pub rejects: Vec<(Option<u64>, String, String)>,
    pub absorbed: BTreeSet<u64>,
}

impl Outcome {
    /// The cells of a column.
    pub fn column(&self, name: &str) -> Vec<Json> {
        self.rows.iter().map(|(row, _)| row[name].clone()).collect()
    }

    /// Sequence and reason of each reject.
    pub fn reasons(&self) -> Vec<(u64, &str)> {
        self.rejects.iter().map(|(sequence, reason, _)| (sequence.unwrap_or(0), reason.as_str())).collect()
    }
}

struct Run {
    transform: Box<dyn Transform>,
    outcome: Outcome,
    /// How many rows of each message are held back.
    held: BTreeMap<u64, i64>,
}

impl Run {
    fn take(&mut self, batches: Vec<Batch>, rejects: Rejects, given: &[u64]) {
        for batch in batches {
            assert_eq!(batch.rows.schema(), self.transform.output_schema());
            for row in 0..batch.rows.num_rows() {
                let sequence = batch.sequences.as_ref().map(|own| own[row]);
                self.outcome.rows.push((cell::row(&batch.rows, row), sequence));
            }
        }
        for reject in rejects.0 {
            let sequence = given.get(reject.index as usize).copied();
            self.outcome.rejects.push((sequence, reject.reason.to_string(), reject.detail));
        }
        let settlement = self.transform.settle();
        for reject in settlement.refused {
            self.outcome.rejects.push((reject.sequence, reject.reason.to_string(), reject.detail));
        }
        self.outcome.absorbed.extend(settlement.absorbed);
        for sequence in settlement.held {
            *self.held.entry(sequence).or_default() += 1;
        }
        for sequence in settlement.released {
            *self.held.entry(sequence).or_default() -= 1;
        }
        self.held.retain(|_, count| *count != 0);
        assert!(self.held.values().all(|count| *count > 0), "released what was not held: {:?}", self.held);
        assert!(self.held.is_empty() || self.transform.holds_rows(), "what is held comes out at the end");
    }
}

/// Sends rows through a step, cut as `cuts` say, with a restart after each part if `restarts`; message numbers from 1.
pub(super) fn run(settings: &Json, rows: &RecordBatch, cuts: &[usize], restarts: bool) -> Outcome {
    let new = || build(settings, &rows.schema()).unwrap_or_else(|error| panic!("{error}"));
    let mut run = Run { transform: new(), outcome: Outcome::default(), held: BTreeMap::new() };
    let mut start = 0;
    for length in cuts.iter().copied().chain([rows.num_rows()]) {
        let length = length.min(rows.num_rows() - start);
        let sequences: Vec<u64> = (start as u64 + 1..).take(length).collect();
        let batch = Batch { rows: rows.slice(start, length), sequences: Some(sequences.clone()) };
        start += length;
        let mut rejects = Rejects::default();
        let batches = block_on(run.transform.process(0, batch, &mut rejects)).unwrap();
        run.take(batches, rejects, &sequences);
        if restarts {
            let state = run.transform.state().unwrap();
            run.transform = new();
            run.transform.restore(&state).unwrap();
            assert_eq!(run.transform.state().unwrap(), state, "a state that was taken back is the same");
        }
    }
    let mut rejects = Rejects::default();
    let batches = block_on(run.transform.finish(&mut rejects)).unwrap();
    run.take(batches, rejects, &[]);
    assert!(run.held.is_empty(), "after the end nothing is held: {:?}", run.held);
    assert!(!run.transform.holds_rows(), "after the end nothing is held");
    run.outcome.rejects.sort();
    run.outcome
}

/// What comes out of the whole stream, after making sure that cuts and restarts change nothing and that every message
/// comes to an end.
pub(super) fn outcome(settings: &Json, rows: &RecordBatch, cuts: &[usize]) -> Outcome {
    let whole = run(settings, rows, &[], false);
    let show = |outcome: &Outcome| format!("{outcome:#?}"); // NaN is not equal to itself
    assert_eq!(show(&run(settings, rows, cuts, false)), show(&whole), "cut at {cuts:?}");
    assert_eq!(show(&run(settings, rows, cuts, true)), show(&whole), "cut and restarted at {cuts:?}");
    let landed = whole.rows.iter().filter_map(|(_, sequence)| *sequence);
    let refused = whole.rejects.iter().filter_map(|(sequence, ..)| *sequence);
    let ended: BTreeSet<u64> = landed.chain(refused).chain(whole.absorbed.iter().copied()).collect();
    let all: BTreeSet<u64> = (1..=rows.num_rows() as u64).collect();
    assert_eq!(ended, all, "every message comes to an end");
    whole
}

/// The same for a step that passes on or refuses each row: rows and rejects together are the rows that went in.
pub(super) fn row_wise(settings: &Json, rows: &RecordBatch, cuts: &[usize]) -> Outcome {
    let whole = outcome(settings, rows, cuts);
    assert_eq!(whole.rows.len() + whole.rejects.len(), rows.num_rows(), "each row once");
    assert!(whole.absorbed.is_empty());
    whole
}

/// Every example of the reference page is in order, for rows with all the columns that it speaks of.
#[test]
fn the_examples_of_the_reference_page_are_in_order() {
    let column = |name: &str, kind| Field::new(name, kind, true);
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        column("sensor_id", DataType::Utf8),
        column("vehicle_id", DataType::Utf8),
        column("line", DataType::Utf8),
        column("stop_id", DataType::Utf8),
        column("ts", timestamp_type()),
        column("temperature_f", DataType::Float64),
        column("humidity_percent", DataType::Float64),
        column("speed_mps", DataType::Float64),
        column("geom", DataType::Binary),
    ]));
    let page = include_str!("../../../../docs/cleaning.md");
    let mut seen = BTreeSet::new();
    for block in page.split("```toml\n").skip(1) {
        let text = block.split("```").next().unwrap_or_default();
        let mut errors = Vec::new();
        let document = Document::parse(text, None, &|_| None, &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
        let root = document.unwrap().root;
        for entry in root.get("transforms").unwrap().node.as_table().unwrap().0.values() {
            let mut settings = entry.node.as_table().unwrap().to_json(&["inputs"]);
            seen.insert(settings["type"].as_str().unwrap().to_owned());
            if let Some(decoder) = settings.pointer_mut("/table/decoder") {
                // The decoder of this crate's tests has other columns.
                *decoder = serde_json::json!({ "type": "fake" });
                settings["on"] = serde_json::json!({ "stop_id": "id" });
                settings["columns"] = serde_json::json!({ "stop_name": "id" });
                settings["as_of"]["valid_from"] = "ts".into();
            }
            if let Err(error) = build(&settings, &schema) {
                panic!("{text}\n{error}");
            }
        }
    }
    let all: BTreeSet<String> = transforms().docs().map(|doc| doc.type_name.to_owned()).collect();
    assert_eq!(all.difference(&seen).collect::<Vec<_>>(), ["sql"], "each transform has an example");
}
