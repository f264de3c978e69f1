//! From tallies to the tables of the outcome.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use serde_json::{Map, Value, json};
use twinlake_contracts::{Outcome, Result};

use super::estimate::Estimate;
use super::model::{Line, Station};
use super::sensitivity::Change;
use super::tally::{State, StationTally, Tally};

/// What one changed factor gave: parts an hour more than the line as it is, one figure a replication.
pub(super) struct Gain {
    pub(super) change: Change,
    pub(super) gains: Vec<f64>,
}

/// The tables and the summary. `windows`: a tally a replication or batch.
pub(super) fn report(line: &Line, windows: &[Tally], gains: Vec<Gain>, confidence: f64) -> Result<Outcome> {
    let estimate = |figure: &dyn Fn(&Tally) -> f64| -> Estimate {
        let samples: Vec<f64> = windows.iter().map(figure).collect();
        Estimate::of(&samples, confidence)
    };
    let throughput = estimate(&Tally::throughput_per_h);
    let mut gains: Vec<(Gain, Estimate)> = gains
        .into_iter()
        .map(|gain| {
            let estimate = Estimate::of(&gain.gains, confidence);
            (gain, estimate)
        })
        .collect();
    gains.sort_by(|(one, first), (other, second)| {
        let by_name =
            || (&one.change.element, one.change.factor).cmp(&(&other.change.element, other.change.factor));
        second.mean.total_cmp(&first.mean).then_with(by_name)
    });
    let figures = line_figures(&estimate);
    let mut summary: Map<String, Value> = figures
        .iter()
        .flat_map(|(name, _, estimate)| {
            [
                ((*name).to_owned(), json!(estimate.mean)),
                (format!("{name}_half_width"), json!(estimate.half_width)),
            ]
        })
        .collect();
    summary.insert("windows".to_owned(), json!(windows.len()));
    summary.insert("confidence".to_owned(), json!(confidence));
    if let Some((gain, estimate)) = gains.first() {
        summary.insert("limiting_factor".to_owned(), json!(gain.change.factor));
        summary.insert("limiting_element".to_owned(), json!(gain.change.element));
        summary.insert("limiting_gain_per_h".to_owned(), json!(estimate.mean));
        summary.insert("limiting_gain_half_width".to_owned(), json!(estimate.half_width));
    }
    Ok(Outcome {
        tables: BTreeMap::from([
            ("machines".to_owned(), machine_table(line, &estimate)?),
            ("buffers".to_owned(), buffer_table(line, &estimate)?),
            ("pools".to_owned(), pool_table(line, &estimate)?),
            ("line".to_owned(), line_table(&figures)?),
            ("sensitivity".to_owned(), sensitivity_table(&gains, throughput.mean)?),
        ]),
        summary,
    })
}

type Figure<'a> = dyn Fn(&dyn Fn(&Tally) -> f64) -> Estimate + 'a;

/// Name, unit and estimate of the figures of the whole line.
fn line_figures(estimate: &Figure<'_>) -> [(&'static str, &'static str, Estimate); 6] {
    let parts = |tally: &Tally| tally.left as f64;
    [
        ("throughput_per_h", "parts/h", estimate(&Tally::throughput_per_h)),
        ("work_in_process", "parts", estimate(&|tally| tally.work_area / tally.seconds)),
        ("lead_time_s", "s", estimate(&|tally| ratio(tally.lead_s, parts(tally)))),
        ("arrivals_per_h", "parts/h", estimate(&|tally| tally.arrived as f64 / tally.seconds * 3600.0)),
        ("lost_share", "", estimate(&|tally| ratio(tally.lost as f64, tally.arrived as f64))),
        ("scrap_per_h", "parts/h", estimate(&|tally| tally.scrapped as f64 / tally.seconds * 3600.0)),
    ]
}

fn line_table(figures: &[(&'static str, &'static str, Estimate)]) -> Result<RecordBatch> {
    let column = |value: &dyn Fn(&Estimate) -> f64| floats(figures.iter().map(|(_, _, it)| value(it)));
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("figure", texts(figures.iter().map(|figure| figure.0)), false),
        ("unit", texts(figures.iter().map(|figure| figure.1)), false),
        ("mean", column(&|it| it.mean), true),
        ("standard_error", column(&|it| it.standard_error), true),
        ("low", column(&|it| it.mean - it.half_width), true),
        ("high", column(&|it| it.mean + it.half_width), true),
    ])?)
}

/// Figures of ISO 22400-2 and the shares of time.
fn machine_table(line: &Line, estimate: &Figure<'_>) -> Result<RecordBatch> {
    let column = |figure: &dyn Fn(&StationTally) -> f64| {
        floats((0..line.stations.len()).map(|at| estimate(&|tally| figure(&tally.stations[at])).mean))
    };
    let share = |state: State| column(&move |it| ratio(it.seconds[state as usize], it.seconds.iter().sum()));
    let kind = |station: &Station| if station.transport { "transport" } else { "machine" };
    let half_width =
        floats((0..line.stations.len()).map(|at| estimate(&|tally| oee(&tally.stations[at])).half_width));
    let per_hour = floats(
        (0..line.stations.len())
            .map(|at| estimate(&|tally| tally.stations[at].parts as f64 / tally.seconds * 3600.0).mean),
    );
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("machine", texts(line.stations.iter().map(|station| station.name.as_str())), false),
        ("kind", texts(line.stations.iter().map(kind)), false),
        ("parts_per_h", per_hour, true),
        ("oee", column(&oee), true),
        ("oee_half_width", half_width, true),
        ("availability", column(&availability), true),
        ("performance", column(&performance), true),
        ("quality", column(&quality), true),
        ("processing_share", share(State::Processing), true),
        ("setup_share", share(State::Setup), true),
        ("blocked_share", share(State::Blocked), true),
        ("starved_share", share(State::Starved), true),
        ("waiting_for_operator_share", share(State::WaitingForOperator), true),
        ("down_share", share(State::Down), true),
        ("off_shift_share", share(State::OffShift), true),
        ("rework_share", column(&|it| ratio(it.rework as f64, it.parts as f64)), true),
        ("scrap_share", column(&|it| ratio(it.scrap as f64, it.parts as f64)), true),
    ])?)
}

/// Actual production time by planned busy time.
fn availability(it: &StationTally) -> f64 {
    let planned: f64 = it.seconds.iter().sum::<f64>() - it.seconds[State::OffShift as usize];
    ratio(it.seconds[State::Processing as usize], planned)
}

/// Planned run time of what was produced by actual production time.
fn performance(it: &StationTally) -> f64 {
    ratio(it.planned_s, it.seconds[State::Processing as usize])
}

/// Good quantity by produced quantity.
fn quality(it: &StationTally) -> f64 {
    ratio(it.good as f64, it.parts as f64)
}

/// 0 for a machine that was planned and never worked, whose performance and quality nobody knows.
fn oee(it: &StationTally) -> f64 {
    match availability(it) {
        0.0 => 0.0,
        availability => availability * performance(it) * quality(it),
    }
}

fn buffer_table(line: &Line, estimate: &Figure<'_>) -> Result<RecordBatch> {
    let column = |figure: &dyn Fn(&Tally, usize) -> f64| {
        floats((0..line.buffers.len()).map(|at| estimate(&|tally| figure(tally, at)).mean))
    };
    let half_width = floats(
        (0..line.buffers.len())
            .map(|at| estimate(&|tally| tally.buffers[at].area / tally.seconds).half_width),
    );
    let capacity: Int64Array =
        line.buffers.iter().map(|buffer| buffer.capacity.map(|it| it as i64)).collect();
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("buffer", texts(line.buffers.iter().map(|buffer| buffer.name.as_str())), false),
        ("capacity", Arc::new(capacity) as ArrayRef, true),
        ("mean_level", column(&|tally, at| tally.buffers[at].area / tally.seconds), true),
        ("mean_level_half_width", half_width, true),
        ("full_share", column(&|tally, at| tally.buffers[at].full_s / tally.seconds), true),
        ("wait_s", column(&|tally, at| ratio(tally.buffers[at].area, tally.buffers[at].parts as f64)), true),
        ("parts_per_h", column(&|tally, at| tally.buffers[at].parts as f64 / tally.seconds * 3600.0), true),
        ("most", column(&|tally, at| tally.buffers[at].most as f64), true),
    ])?)
}

fn pool_table(line: &Line, estimate: &Figure<'_>) -> Result<RecordBatch> {
    let busy = (0..line.pools.len()).map(|at| estimate(&|tally| tally.pool_busy_s[at] / tally.seconds).mean);
    let busy: Vec<f64> = busy.collect();
    let share = busy.iter().zip(&line.pools).map(|(busy, pool)| busy / pool.count as f64);
    let counts: Int64Array = line.pools.iter().map(|pool| Some(pool.count as i64)).collect();
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("pool", texts(line.pools.iter().map(|pool| pool.name.as_str())), false),
        ("count", Arc::new(counts) as ArrayRef, false),
        ("busy_share", floats(share), true),
        ("mean_busy", floats(busy.iter().copied()), true),
    ])?)
}

fn sensitivity_table(gains: &[(Gain, Estimate)], throughput: f64) -> Result<RecordBatch> {
    let changes = || gains.iter().map(|(gain, _)| &gain.change);
    let surely = gains.iter().map(|(_, it)| Some(it.mean - it.half_width > 0.0)).collect::<BooleanArray>();
    let ranks: Int64Array = (1..=gains.len() as i64).map(Some).collect();
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("rank", Arc::new(ranks) as ArrayRef, false),
        ("element", texts(changes().map(|change| change.element.as_str())), false),
        ("factor", texts(changes().map(|change| change.factor)), false),
        ("unit", texts(changes().map(|change| change.unit)), false),
        ("value", floats(changes().map(|change| change.from)), true),
        ("changed_value", floats(changes().map(|change| change.to)), true),
        ("gain_per_h", floats(gains.iter().map(|(_, it)| it.mean)), true),
        ("gain_half_width", floats(gains.iter().map(|(_, it)| it.half_width)), true),
        ("gain_share", floats(gains.iter().map(|(_, it)| ratio(it.mean, throughput))), true),
        ("significant", Arc::new(surely) as ArrayRef, false),
    ])?)
}

fn texts<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

/// A figure that does not exist (nothing was made, one window only) is null.
fn floats(values: impl Iterator<Item = f64>) -> ArrayRef {
    Arc::new(values.map(|value| value.is_finite().then_some(value)).collect::<Float64Array>())
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { f64::NAN }
}
