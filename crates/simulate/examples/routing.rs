//! Benchmark of the operators `route` and `accessibility` on a grid of streets made here.
//!
//! `cargo run --release -p twinlake-simulate --example routing [-- SIDE [FOLDER]]` routes a million pairs on a grid of SIDE x
//! SIDE crossings (default 200) with some streets missing and some one-way, twice: with the order of contraction to be found,
//! and with another set of weights on the hierarchy that is there. With a FOLDER it writes `nodes.csv`, `links.csv` and
//! `pairs.csv` with our costs for the peer, `crates/xtask/src/bench/routing.py`.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::Float64Type;
use serde_json::json;
use twinlake_contracts::{Error, Horizon, Operator, Outcome, Parameters, Result, Snapshot};
use twinlake_simulate::{Accessibility, Route};

const PAIRS: usize = 1_000_000;

fn main() -> Result<()> {
    let side: i64 = match std::env::args().nth(1) {
        Some(text) => {
            text.parse().map_err(|_| Error::config(format!("'{text}' is not a number of crossings")))?
        }
        None => 200,
    };
    let mut dice = Dice(42);
    let nodes = nodes(side)?;
    let count = nodes.num_rows() as u64;
    let links = links(side, &mut dice)?;
    let draw = |dice: &mut Dice| integers((0..PAIRS).map(|_| dice.below(count) as i64).collect());
    let demand = RecordBatch::try_from_iter([("origin", draw(&mut dice)), ("destination", draw(&mut dice))])?;
    let shops = integers((0..count / 100).map(|_| dice.below(count) as i64).collect());
    let shops = RecordBatch::try_from_iter([("node_id", shops)])?;
    println!("{count} nodes, {} links, {PAIRS} pairs", links.num_rows());
    let mut city = Snapshot {
        tables: BTreeMap::from([
            ("nodes".to_owned(), nodes),
            ("links".to_owned(), links),
            ("demand".to_owned(), demand),
            ("opportunities".to_owned(), shops),
        ]),
    };
    let (_, first) = timed(&Route, &city, &[])?;
    let (outcome, again) = timed(&Route, &city, &[("weight", json!("length_m"))])?;
    println!(
        "with the order: {first:.3} s; re-weighted: {again:.3} s, {:.0} pairs a second; {} arcs with shortcuts",
        PAIRS as f64 / again,
        outcome.summary["arcs_with_shortcuts"]
    );
    let (outcome, _) = timed(&Route, &city, &[])?;
    if let Some(folder) = std::env::args().nth(2) {
        write(Path::new(&folder), &city, &outcome)?;
    }
    city.tables.remove("demand");
    let (_, seconds) = timed(&Accessibility, &city, &[("limits", json!([600]))])?;
    println!("accessibility of all nodes: {seconds:.3} s, {:.0} nodes a second", count as f64 / seconds);
    Ok(())
}

fn timed(
    operator: &dyn Operator,
    city: &Snapshot,
    set: &[(&str, serde_json::Value)],
) -> Result<(Outcome, f64)> {
    let set: Parameters = set.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let start = Instant::now();
    let outcome = operator.run(city, Horizon { from_us: 0, to_us: 0 }, 0, &set, &|_, _| true)?;
    Ok((outcome, start.elapsed().as_secs_f64()))
}

/// A small generator, so that the grid is the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

fn integers(values: Vec<i64>) -> ArrayRef {
    Arc::new(Int64Array::from(values))
}

fn numbers(values: Vec<f64>) -> ArrayRef {
    Arc::new(Float64Array::from(values))
}

fn nodes(side: i64) -> Result<RecordBatch> {
    let all = || (0..side * side).map(move |node| (node % side, node / side));
    Ok(RecordBatch::try_from_iter([
        ("node_id", integers((0..side * side).collect())),
        ("longitude", numbers(all().map(|(x, _)| 24.0 + 0.002 * x as f64).collect())),
        ("latitude", numbers(all().map(|(_, y)| 60.0 + 0.001 * y as f64).collect())),
    ])?)
}

/// Every tenth street is a fast one; one in eight pieces is missing, one in six of the others one-way.
fn links(side: i64, dice: &mut Dice) -> Result<RecordBatch> {
    let (mut from, mut to, mut seconds) = (Vec::new(), Vec::new(), Vec::new());
    for y in 0..side {
        for x in 0..side {
            let node = y * side + x;
            for (next, fits, fast) in
                [(node + 1, x + 1 < side, y % 10 == 0), (node + side, y + 1 < side, x % 10 == 0)]
            {
                if !fits || (!fast && dice.below(8) == 0) {
                    continue;
                }
                let time = (if fast { 5.0 } else { 12.0 }) + dice.below(8000) as f64 / 1000.0;
                let ways: &[(i64, i64)] =
                    if dice.below(6) == 0 { &[(node, next)] } else { &[(node, next), (next, node)] };
                for (tail, head) in ways {
                    from.push(*tail);
                    to.push(*head);
                    seconds.push(time);
                }
            }
        }
    }
    Ok(RecordBatch::try_from_iter([
        ("link_id", integers((0..from.len() as i64).collect())),
        ("from_node", integers(from)),
        ("to_node", integers(to)),
        ("length_m", numbers(seconds.iter().map(|time| 110.0 + time).collect())),
        ("free_flow_time_s", numbers(seconds)),
    ])?)
}

fn write(folder: &Path, city: &Snapshot, outcome: &Outcome) -> Result<()> {
    let save = |name: &str, table: &RecordBatch, columns: &[&str]| -> Result<()> {
        let mut text = columns.join(",");
        text.push('\n');
        let columns: Vec<Vec<Option<f64>>> = columns
            .iter()
            .map(|column| {
                let numbers = arrow::compute::cast(&table[*column], &arrow::datatypes::DataType::Float64)?;
                Ok(numbers.as_primitive::<Float64Type>().iter().collect())
            })
            .collect::<Result<_>>()?;
        for row in 0..table.num_rows() {
            let cells: Vec<String> = columns
                .iter()
                .map(|column| column[row].map_or(String::new(), |value| value.to_string()))
                .collect();
            let _ = writeln!(text, "{}", cells.join(","));
        }
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|error| Error::permanent(path.display().to_string(), error))
    };
    save("nodes.csv", &city.tables["nodes"], &["node_id", "longitude", "latitude"])?;
    save("links.csv", &city.tables["links"], &["from_node", "to_node", "free_flow_time_s"])?;
    save("shops.csv", &city.tables["opportunities"], &["node_id"])?;
    save("pairs.csv", &outcome.tables["routes"], &["origin", "destination", "cost"])
}
