//! Tables and figures of a run.

use std::collections::BTreeMap;
use std::f64::consts::PI;
use std::iter::repeat_n;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, BooleanBufferBuilder, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use serde_json::json;
use twinlake_contracts::{Horizon, Outcome, Result};

use super::leakage;
use super::model::{L_PER_FT3, Link, LinkKind, M_PER_FT, M3_PER_FT3, Model, Node, Status, Tank};
use super::options::Quality;
use super::period::{Course, Record};
use super::warnings::{Kind, Warning};

/// Made once: small networks are balanced in less time than a schema takes.
static SCHEMAS: LazyLock<Schemas> = LazyLock::new(Schemas::new);

struct Schemas {
    nodes: SchemaRef,
    links: SchemaRef,
    warnings: SchemaRef,
}

impl Schemas {
    fn new() -> Self {
        let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let [text, number, whole] = [DataType::Utf8, DataType::Float64, DataType::Int64];
        let schema = |columns: &[(&str, &DataType, bool)]| -> SchemaRef {
            let field =
                |(name, of, nullable): &(&str, &DataType, bool)| Field::new(*name, (*of).clone(), *nullable);
            Arc::new(Schema::new(columns.iter().map(field).collect::<Fields>()))
        };
        Self {
            nodes: schema(&[
                ("ts", &time, false),
                ("time_s", &whole, false),
                ("node_id", &text, false),
                ("kind", &text, false),
                ("head_m", &number, true),
                ("pressure_m", &number, true),
                ("demand_m3s", &number, false),
                ("quality", &number, true),
            ]),
            links: schema(&[
                ("ts", &time, false),
                ("time_s", &whole, false),
                ("link_id", &text, false),
                ("kind", &text, false),
                ("flow_m3s", &number, false),
                ("velocity_ms", &number, true),
                ("headloss_m", &number, true),
                ("leak_m3s", &number, false),
                ("status", &text, false),
                ("setting", &number, true),
                ("quality", &number, true),
            ]),
            warnings: schema(&[
                ("kind", &text, false),
                ("element_id", &text, true),
                ("from_s", &whole, false),
                ("until_s", &whole, false),
                ("value", &number, true),
            ]),
        }
    }
}

/// Tables of so many rows together are made side by side.
const LONG: usize = 100_000;

fn link_kind(kind: LinkKind) -> &'static str {
    match kind {
        LinkKind::CheckValve => "check_valve",
        LinkKind::Pipe => "pipe",
        LinkKind::Pump => "pump",
        LinkKind::PressureReducing => "prv",
        LinkKind::PressureSustaining => "psv",
        LinkKind::PressureBreaker => "pbv",
        LinkKind::FlowControl => "fcv",
        LinkKind::Throttle => "tcv",
        LinkKind::GeneralPurpose => "gpv",
        LinkKind::Positional => "pcv",
    }
}

fn status_name(status: Status) -> &'static str {
    match status {
        Status::CannotLift => "cannot_lift",
        Status::ClosedForNow => "closed_for_now",
        Status::Closed => "closed",
        Status::Open => "open",
        Status::Active => "active",
        Status::CannotSupplyFlow => "cannot_supply_flow",
        Status::CannotKeepPressure => "cannot_keep_pressure",
    }
}

fn floats(values: impl Iterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(values.collect::<Float64Array>())
}

/// A column of numbers by time and element. Nearly all have a value everywhere: nulls are only kept once there is one.
fn numbers(course: &Course, elements: usize, of: impl Fn(&Record, usize) -> Option<f64>) -> ArrayRef {
    let rows = course.records.len() * elements;
    let mut values = Vec::with_capacity(rows);
    let mut valid: Option<BooleanBufferBuilder> = None;
    for record in &course.records {
        for element in 0..elements {
            let value = of(record, element);
            if value.is_none() && valid.is_none() {
                let mut before = BooleanBufferBuilder::new(rows);
                before.append_n(values.len(), true);
                valid = Some(before);
            }
            if let Some(valid) = &mut valid {
                valid.append(value.is_some());
            }
            values.push(value.unwrap_or(0.0));
        }
    }
    Arc::new(Float64Array::new(values.into(), valid.map(|mut valid| NullBuffer::new(valid.finish()))))
}

/// Names and kinds of nodes and links, in the order of the results.
pub(super) struct Columns {
    node_id: ArrayRef,
    node_kind: ArrayRef,
    link_id: ArrayRef,
    link_kind: ArrayRef,
}

impl Columns {
    pub(super) fn new(nodes: &[Node], junctions: usize, tanks: &[Tank], links: &[Link]) -> Self {
        let of_tank = |tank: &Tank| if tank.is_reservoir() { "reservoir" } else { "tank" };
        Self {
            node_id: words(nodes.iter().map(|node| node.id.as_str())),
            node_kind: words(repeat_n("junction", junctions).chain(tanks.iter().map(of_tank))),
            link_id: words(links.iter().map(|link| link.id.as_str())),
            link_kind: words(links.iter().map(|link| link_kind(link.kind))),
        }
    }
}

/// The quality of nodes or links; without any, nulls.
fn qualities(course: &Course, elements: usize, unit: f64, of: impl Fn(&Record) -> &[f64]) -> ArrayRef {
    if course.records.iter().all(|record| of(record).is_empty()) {
        return new_null_array(&DataType::Float64, course.records.len() * elements);
    }
    numbers(course, elements, |record, element| of(record).get(element).map(|quality| quality * unit))
}

/// A column that is the same at every time.
fn each_time(course: &Course, block: &ArrayRef) -> Result<ArrayRef> {
    together(&vec![Arc::clone(block); course.records.len()])
}

fn together(blocks: &[ArrayRef]) -> Result<ArrayRef> {
    if let [one] = blocks {
        return Ok(Arc::clone(one));
    }
    let blocks: Vec<&dyn Array> = blocks.iter().map(AsRef::as_ref).collect();
    Ok(concat(&blocks)?)
}

fn words<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

/// `ts` and `time_s`, each time for as many rows as there are elements.
fn time_columns(course: &Course, elements: usize, horizon: Horizon) -> [ArrayRef; 2] {
    let column = |of: &dyn Fn(i64) -> i64| {
        let mut values = Vec::with_capacity(course.records.len() * elements);
        for record in &course.records {
            values.extend(repeat_n(of(record.time), elements));
        }
        values
    };
    let stamps = column(&|time| horizon.from_us + time * 1_000_000);
    [
        Arc::new(TimestampMicrosecondArray::from(stamps).with_timezone("UTC")),
        Arc::new(Int64Array::from(column(&|time| time))),
    ]
}

/// What quality is outside for 1 inside.
fn quality_unit(model: &Model) -> f64 {
    if model.options.quality == Quality::Chemical { 1.0 / L_PER_FT3 } else { 1.0 }
}

/// The head of a node, None where nothing determines it.
fn head(record: &Record, node: usize) -> Option<f64> {
    record.joined.get(node).copied().unwrap_or(true).then(|| record.head[node])
}

fn nodes(model: &Model, course: &Course, horizon: Horizon) -> Result<RecordBatch> {
    let count = model.nodes.len();
    let [ts, time] = time_columns(course, count, horizon);
    let pressure = |record: &Record, node: usize| {
        // A reservoir's head is its surface.
        let base = match model.tank(node) {
            Some(tank) if tank.is_reservoir() => record.head[node],
            _ => model.nodes[node].elevation,
        };
        head(record, node).map(|head| (head - base) * M_PER_FT)
    };
    let unit = quality_unit(model);
    let columns = vec![
        ts,
        time,
        each_time(course, &model.columns.node_id)?,
        each_time(course, &model.columns.node_kind)?,
        numbers(course, count, |record, node| head(record, node).map(|head| head * M_PER_FT)),
        numbers(course, count, pressure),
        numbers(course, count, |record, node| Some(record.demand[node] * M3_PER_FT3)),
        qualities(course, count, unit, |record| &record.node_quality),
    ];
    Ok(RecordBatch::try_new(SCHEMAS.nodes.clone(), columns)?)
}

/// A column of what is switched, a block a time; where nothing was switched, that of the time before.
fn switched<T>(
    course: &Course,
    of: impl Fn(&Record) -> &Arc<Vec<T>>,
    block: impl Fn(&[T]) -> ArrayRef,
) -> Result<ArrayRef> {
    let mut blocks: Vec<ArrayRef> = Vec::with_capacity(course.records.len());
    for (at, record) in course.records.iter().enumerate() {
        let same = at > 0 && Arc::ptr_eq(of(record), of(&course.records[at - 1]));
        let block = if same { Arc::clone(&blocks[at - 1]) } else { block(of(record)) };
        blocks.push(block);
    }
    together(&blocks)
}

fn links(model: &Model, course: &Course, horizon: Horizon) -> Result<RecordBatch> {
    let count = model.links.len();
    let [ts, time] = time_columns(course, count, horizon);
    let areas: Vec<f64> = model.links.iter().map(|link| PI * link.diameter * link.diameter / 4.0).collect();
    let velocity = |record: &Record, index: usize| {
        let area = areas[index];
        (area > 0.0).then(|| record.flow[index].abs() / area * M_PER_FT)
    };
    let loss = |record: &Record, index: usize| {
        let link = &model.links[index];
        Some((head(record, link.from)? - head(record, link.to)?) * M_PER_FT)
    };
    let leak = |record: &Record, index: usize| {
        let link = &model.links[index];
        let leaks = link.leak != [0.0; 2];
        Some(if leaks { leakage::link_flow(model, &record.head, link) * M3_PER_FT3 } else { 0.0 })
    };
    let setting = |(link, setting): (&Link, &Option<f64>)| {
        let unit = match link.kind {
            LinkKind::Pipe | LinkKind::CheckValve | LinkKind::GeneralPurpose => return None,
            LinkKind::PressureReducing | LinkKind::PressureSustaining | LinkKind::PressureBreaker => M_PER_FT,
            LinkKind::FlowControl => M3_PER_FT3,
            LinkKind::Pump | LinkKind::Throttle | LinkKind::Positional => 1.0,
        };
        setting.map(|setting| setting * unit)
    };
    let settings = |settings: &[Option<f64>]| floats(model.links.iter().zip(settings).map(setting));
    let statuses = |statuses: &[Status]| words(statuses.iter().map(|status| status_name(*status)));
    let unit = quality_unit(model);
    let columns = vec![
        ts,
        time,
        each_time(course, &model.columns.link_id)?,
        each_time(course, &model.columns.link_kind)?,
        numbers(course, count, |record, link| Some(record.flow[link] * M3_PER_FT3)),
        numbers(course, count, velocity),
        numbers(course, count, loss),
        numbers(course, count, leak),
        switched(course, |record| &record.status, statuses)?,
        switched(course, |record| &record.setting, settings)?,
        qualities(course, count, unit, |record| &record.link_quality),
    ];
    Ok(RecordBatch::try_new(SCHEMAS.links.clone(), columns)?)
}

fn warnings(model: &Model, course: &Course) -> Result<RecordBatch> {
    let all = &course.warnings.all;
    let element = |kind: Kind, element: Option<usize>| match kind {
        Kind::Unbalanced => None,
        Kind::NegativePressure | Kind::Disconnected => element.map(|node| model.nodes[node].id.as_str()),
        _ => element.map(|link| model.links[link].id.as_str()),
    };
    let value = |kind: Kind, value: Option<f64>| match kind {
        Kind::NegativePressure => value.map(|pressure| pressure * M_PER_FT),
        Kind::PumpBeyondCurve => value.map(|flow| flow * M3_PER_FT3),
        _ => value,
    };
    let elements: StringArray = all.iter().map(|warning| element(warning.kind, warning.element)).collect();
    let seconds =
        |of: fn(&Warning) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(all.iter().map(of))) };
    let columns = vec![
        words(all.iter().map(|warning| warning.kind.name())),
        Arc::new(elements),
        seconds(|warning| warning.from),
        seconds(|warning| warning.until),
        floats(all.iter().map(|warning| value(warning.kind, warning.value))),
    ];
    Ok(RecordBatch::try_new(SCHEMAS.warnings.clone(), columns)?)
}

/// The outcome of a run.
pub(super) fn outcome(model: &Model, course: &Course, horizon: Horizon) -> Result<Outcome> {
    // The nodes that a kind of warning names, in the order of the tables.
    let named = |kind: Kind| -> Vec<&str> {
        let of_kind = course.warnings.all.iter().filter(|warning| warning.kind == kind);
        let mut nodes: Vec<usize> = of_kind.filter_map(|warning| warning.element).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.into_iter().map(|node| model.nodes[node].id.as_str()).collect()
    };
    let (negative, disconnected) = (named(Kind::NegativePressure), named(Kind::Disconnected));
    let quality = match &model.options.quality {
        Quality::None => "none",
        Quality::Age => "age",
        Quality::Chemical => "chemical",
        Quality::Trace(_) => "trace",
    };
    let summary = [
        ("converged", json!(course.converged)),
        ("steps", json!(course.steps)),
        ("iterations", json!(course.iterations)),
        ("worst_relative_error", json!(course.worst_error)),
        ("accuracy", json!(model.options.accuracy)),
        ("duration_s", json!(model.options.times.duration)),
        ("stopped_at_s", json!(course.stopped_at)),
        ("nodes", json!(model.nodes.len())),
        ("links", json!(model.links.len())),
        ("warnings", json!(course.warnings.all.len())),
        ("nodes_with_negative_pressure", json!(negative.len())),
        ("negative_pressure_nodes", json!(negative)),
        ("nodes_disconnected", json!(disconnected.len())),
        ("disconnected_nodes", json!(disconnected)),
        ("quality", json!(quality)),
        ("quality_mass_balance", json!(course.mass_balance)),
    ];
    // Long tables are worth a second thread, short ones not its waking up.
    let rows = course.records.len() * (model.nodes.len() + model.links.len());
    let (nodes, links) = if rows > LONG {
        rayon::join(|| nodes(model, course, horizon), || links(model, course, horizon))
    } else {
        (nodes(model, course, horizon), links(model, course, horizon))
    };
    Ok(Outcome {
        tables: BTreeMap::from([
            ("nodes".to_owned(), nodes?),
            ("links".to_owned(), links?),
            ("warnings".to_owned(), warnings(model, course)?),
        ]),
        summary: summary.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    })
}
