//! Everything here against Dijkstra's algorithm (1959) on the links themselves, which knows no hierarchy.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use serde_json::{Value, json};
use twinlake_contracts::{Horizon, Operator, Outcome, Parameters, Result, Snapshot};
use twinlake_formats::tntp;

use super::hierarchy::{Hierarchy, INFINITE, Topology};
use super::labels::{distances, distances_within};
use super::sweep::{LANES, Sweep};
use crate::{Accessibility, Isochrone, Route};

/// A small generator, so that cases repeat.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

fn dijkstra(topology: &Topology, weights: &[u32], from: u32) -> Vec<u32> {
    let mut cost = vec![INFINITE; topology.first_out.len() - 1];
    let mut queue = BinaryHeap::from([Reverse((0_u32, from))]);
    cost[from as usize] = 0;
    while let Some(Reverse((here, node))) = queue.pop() {
        if here > cost[node as usize] {
            continue;
        }
        for arc in topology.first_out[node as usize] as usize..topology.first_out[node as usize + 1] as usize
        {
            let there = here.saturating_add(weights[arc]);
            if weights[arc] < INFINITE && there < cost[topology.head[arc] as usize] {
                cost[topology.head[arc] as usize] = there;
                queue.push(Reverse((there, topology.head[arc])));
            }
        }
    }
    cost
}

/// Any arcs: parallel ones, loops, one-way streets, islands; some with places.
fn random_graph(dice: &mut Dice) -> Topology {
    let nodes = 1 + dice.below(40) as usize;
    let mut arcs: Vec<(u32, u32)> = Vec::new();
    for _ in 0..dice.below(3 * nodes as u64 + 1) {
        let (tail, head) = (dice.below(nodes as u64) as u32, dice.below(nodes as u64) as u32);
        let copies = 1 + usize::from(dice.below(5) == 0);
        arcs.extend(std::iter::repeat_n((tail, head), copies));
        if dice.below(2) == 0 {
            arcs.push((head, tail));
        }
    }
    arcs.sort_unstable();
    let mut first_out = vec![0; nodes + 1];
    for (tail, _) in &arcs {
        first_out[*tail as usize + 1] += 1;
    }
    (0..nodes).for_each(|node| first_out[node + 1] += first_out[node]);
    let places = (dice.below(2) == 0).then(|| {
        let mut line = || (0..nodes).map(|_| dice.below(1000) as f32 / 10.0).collect::<Vec<f32>>();
        (line(), line())
    });
    Topology { first_out, head: arcs.into_iter().map(|(_, head)| head).collect(), places }
}

#[test]
fn distances_ways_and_sweeps_are_those_of_dijkstra_on_random_graphs() {
    let mut dice = Dice(20_261_121);
    let mut reachable = 0;
    for _ in 0..400 {
        let topology = random_graph(&mut dice);
        let nodes = topology.first_out.len() - 1;
        let hierarchy = Arc::new(Hierarchy::build(topology.clone()));
        // Several weights on one hierarchy: zeros, closed arcs, and large ones.
        for round in 0..3 {
            let weights: Vec<u32> = topology
                .head
                .iter()
                .map(|_| match dice.below(8) {
                    0 => 0,
                    1 if round > 0 => INFINITE,
                    2 => 10_000_000 + dice.below(1000) as u32,
                    _ => dice.below(20) as u32,
                })
                .collect();
            let weighted = hierarchy.customize(&weights);
            let all: Vec<Vec<u32>> =
                (0..nodes as u32).map(|from| dijkstra(&topology, &weights, from)).collect();
            for from in 0..nodes as u32 {
                let pairs: Vec<(u32, u32)> = (0..nodes as u32).map(|to| (from, to)).collect();
                let found = distances(&weighted, &pairs);
                for (((_, to), path), distance) in pairs.iter().zip(weighted.paths(&pairs)).zip(found) {
                    let exact = all[from as usize][*to as usize];
                    assert_eq!(distance, exact);
                    assert_eq!(path.is_some(), exact < INFINITE);
                    reachable += u32::from(path.is_some());
                    let Some(path) = path else { continue };
                    assert_eq!((path[0], path[path.len() - 1]), (from, *to));
                    let along: u32 = path
                        .windows(2)
                        .map(|pair| {
                            let arcs = topology.first_out[pair[0] as usize]
                                ..topology.first_out[pair[0] as usize + 1];
                            arcs.map(|arc| arc as usize)
                                .filter(|arc| topology.head[*arc] == pair[1])
                                .map(|arc| weights[arc])
                                .min()
                                .unwrap()
                        })
                        .sum();
                    assert_eq!(along, exact);
                }
            }
            // All pairs at once, in no order.
            let mut pairs: Vec<(u32, u32)> =
                (0..nodes as u32).flat_map(|from| (0..nodes as u32).map(move |to| (from, to))).collect();
            for at in (1..pairs.len()).rev() {
                pairs.swap(at, dice.below(at as u64 + 1) as usize);
            }
            // In memory for all destinations and for a few at a time.
            for room in [1 << 20, 40] {
                for ((from, to), distance) in pairs.iter().zip(distances_within(&weighted, &pairs, room)) {
                    assert_eq!(distance, all[*from as usize][*to as usize]);
                }
            }
            let mut sweep = Sweep::new(&weighted);
            let origins: Vec<u32> = (0..nodes as u32).collect();
            for origins in origins.chunks(LANES) {
                sweep.run(origins, false);
                for (lane, origin) in origins.iter().enumerate() {
                    for node in 0..nodes as u32 {
                        assert_eq!(sweep.distance(node, lane), all[*origin as usize][node as usize]);
                    }
                }
                sweep.run(origins, true);
                for (lane, origin) in origins.iter().enumerate() {
                    for node in 0..nodes as u32 {
                        assert_eq!(sweep.distance(node, lane), all[node as usize][*origin as usize]);
                    }
                }
            }
        }
    }
    assert!(reachable > 100_000, "{reachable}");
}

fn integers(values: Vec<i64>) -> ArrayRef {
    Arc::new(Int64Array::from(values))
}

fn numbers(values: Vec<f64>) -> ArrayRef {
    Arc::new(Float64Array::from(values))
}

/// From, to, seconds; links are numbered from 1.
fn links(rows: &[(i64, i64, f64)]) -> RecordBatch {
    RecordBatch::try_from_iter([
        ("link_id", integers((1..=rows.len() as i64).collect())),
        ("from_node", integers(rows.iter().map(|row| row.0).collect())),
        ("to_node", integers(rows.iter().map(|row| row.1).collect())),
        ("free_flow_time_s", numbers(rows.iter().map(|row| row.2).collect())),
        ("length_m", numbers(rows.iter().map(|row| 10.0 * row.2).collect())),
    ])
    .unwrap()
}

fn pairs(rows: &[(i64, i64)]) -> RecordBatch {
    RecordBatch::try_from_iter([
        ("origin", integers(rows.iter().map(|row| row.0).collect())),
        ("destination", integers(rows.iter().map(|row| row.1).collect())),
    ])
    .unwrap()
}

fn snapshot(tables: &[(&str, RecordBatch)]) -> Snapshot {
    Snapshot { tables: tables.iter().map(|(role, rows)| ((*role).to_owned(), rows.clone())).collect() }
}

fn run(operator: &dyn Operator, city: &Snapshot, set: &[(&str, Value)]) -> Result<Outcome> {
    let set: Parameters = set.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    operator.run(city, Horizon { from_us: 0, to_us: 0 }, 0, &set, &|_, _| true)
}

fn column(outcome: &Outcome, role: &str, name: &str) -> Vec<Option<f64>> {
    let column = &outcome.tables[role][name];
    match column.as_primitive_opt::<Float64Type>() {
        Some(numbers) => numbers.iter().collect(),
        None => column.as_primitive::<Int64Type>().iter().map(|it| it.map(|it| it as f64)).collect(),
    }
}

/// Two ways from 1 to 4: over 2 in 3 s, over 3 in 4 s; node 5 cannot be left, node 6 cannot be reached.
fn town() -> RecordBatch {
    links(&[
        (1, 2, 1.0),
        (2, 4, 2.0),
        (1, 3, 2.0),
        (3, 4, 2.0),
        (4, 5, 0.5),
        (6, 1, 1.0),
        (2, 4, 2.5),
        (2, 2, 1.0),
    ])
}

#[test]
fn routes_with_their_links_by_hour_and_scenario() {
    let demand = pairs(&[(1, 4), (1, 1), (5, 1), (1, 6), (1, 5)]);
    let city = snapshot(&[("links", town()), ("demand", demand.clone())]);
    let outcome = run(&Route, &city, &[("paths", json!(true))]).unwrap();
    assert_eq!(column(&outcome, "routes", "cost"), [Some(3.0), Some(0.0), None, None, Some(3.5)]);
    assert_eq!(column(&outcome, "routes", "length_m"), [Some(30.0), Some(0.0), None, None, Some(35.0)]);
    assert_eq!(column(&outcome, "routes", "links"), [Some(2.0), Some(0.0), None, None, Some(3.0)]);
    assert_eq!(column(&outcome, "paths", "link_id"), [1.0, 2.0, 1.0, 2.0, 5.0].map(Some));
    assert_eq!(column(&outcome, "paths", "cost"), [1.0, 3.0, 1.0, 3.0, 3.5].map(Some));
    assert_eq!(column(&outcome, "paths", "row"), [1.0, 1.0, 5.0, 5.0, 5.0].map(Some));
    assert_eq!(outcome.summary["unreached"], json!(2));

    // At 8 the link from 1 to 2 takes 5 s; a pair may have an hour of its own.
    let times = RecordBatch::try_from_iter([
        ("link_id", integers(vec![1])),
        ("hour", integers(vec![8])),
        ("travel_time_s", numbers(vec![5.0])),
    ])
    .unwrap();
    let demand = RecordBatch::try_from_iter([
        ("origin", integers(vec![1, 1])),
        ("destination", integers(vec![4, 4])),
        ("hour", integers(vec![8, 9])),
    ])
    .unwrap();
    let city = snapshot(&[("links", town()), ("demand", demand), ("link_times", times)]);
    assert_eq!(column(&run(&Route, &city, &[]).unwrap(), "routes", "cost"), [Some(4.0), Some(3.0)]);

    // Closing it does the same in a scenario; the shape of the graph is as before.
    let mut columns: Vec<(String, ArrayRef)> = town()
        .schema()
        .fields()
        .iter()
        .zip(town().columns())
        .map(|(field, column)| (field.name().clone(), Arc::clone(column)))
        .collect();
    columns.push(("closed".to_owned(), Arc::new((0..8).map(|row| Some(row == 0)).collect::<BooleanArray>())));
    let closed = RecordBatch::try_from_iter(columns).unwrap();
    let city = snapshot(&[("links", closed), ("demand", pairs(&[(1, 4), (1, 2)]))]);
    assert_eq!(column(&run(&Route, &city, &[]).unwrap(), "routes", "cost"), [Some(4.0), None]);

    // By length instead of time.
    let city = snapshot(&[("links", town()), ("demand", pairs(&[(1, 4)]))]);
    let outcome = run(&Route, &city, &[("weight", json!("length_m"))]).unwrap();
    assert_eq!(column(&outcome, "routes", "cost"), [Some(30.0)]);
}

#[test]
fn no_way_leads_through_a_node_that_may_not_be_passed() {
    let nodes = RecordBatch::try_from_iter([
        ("node_id", integers(vec![1, 2, 3, 4, 5, 6])),
        ("through", Arc::new(BooleanArray::from(vec![true, false, true, true, true, true])) as ArrayRef),
    ])
    .unwrap();
    let demand = pairs(&[(1, 4), (1, 2), (2, 4), (2, 2), (6, 5)]);
    let city = snapshot(&[("links", town()), ("demand", demand), ("nodes", nodes)]);
    let outcome = run(&Route, &city, &[("paths", json!(true))]).unwrap();
    assert_eq!(column(&outcome, "routes", "cost"), [4.0, 1.0, 2.0, 0.0, 5.5].map(Some));
    let origins = RecordBatch::try_from_iter([("node_id", integers(vec![1, 2]))]).unwrap();
    let mut city = city;
    city.tables.insert("origins".to_owned(), origins);
    let outcome = run(&Isochrone, &city, &[("limits", json!([10]))]).unwrap();
    assert_eq!(column(&outcome, "nodes", "node_id"), [1.0, 2.0, 3.0, 4.0, 5.0, 2.0, 4.0, 5.0].map(Some));
    assert_eq!(column(&outcome, "nodes", "cost"), [0.0, 1.0, 2.0, 4.0, 4.5, 0.0, 2.0, 2.5].map(Some));
}

#[test]
fn isochrones_reach_into_links() {
    let origins = RecordBatch::try_from_iter([("node_id", integers(vec![1]))]).unwrap();
    let city = snapshot(&[("links", town()), ("origins", origins)]);
    let outcome = run(&Isochrone, &city, &[("limits", json!([1, 2.5]))]).unwrap();
    assert_eq!(column(&outcome, "nodes", "node_id"), [1.0, 2.0, 3.0].map(Some));
    assert_eq!(column(&outcome, "nodes", "band"), [1.0, 1.0, 2.5].map(Some));
    let shares: BTreeMap<i64, f64> = column(&outcome, "links", "link_id")
        .into_iter()
        .zip(column(&outcome, "links", "share"))
        .map(|(link, share)| (link.unwrap() as i64, share.unwrap()))
        .collect();
    assert_eq!(shares, BTreeMap::from([(1, 1.0), (2, 0.75), (3, 1.0), (4, 0.25), (7, 0.6)]));
    // Towards 1 there is only node 6.
    let outcome = run(&Isochrone, &city, &[("limits", json!([2])), ("towards", json!(true))]).unwrap();
    assert_eq!(column(&outcome, "nodes", "node_id"), [1.0, 6.0].map(Some));
}

#[test]
fn accessibility_is_the_same_from_origins_and_towards_opportunities() {
    let mut dice = Dice(7);
    let nodes = 400_u64;
    let mut node = |_| 1 + dice.below(nodes) as i64;
    let rows: Vec<(i64, i64, f64)> =
        (0..1600).map(|at| (node(at), node(at), f64::from(1 + at % 37) * 0.731)).collect();
    let shops = integers((0..70).map(&mut node).collect());
    let amounts = numbers((0..70).map(|at| 0.1 + f64::from(at) * 0.37).collect());
    let shops = RecordBatch::try_from_iter([("node_id", shops), ("amount", amounts)]).unwrap();
    // Some nodes may not be passed.
    let ids: Vec<i64> = (1..=nodes as i64).collect();
    let through = ids.iter().map(|id| Some(id % 9 != 0)).collect::<BooleanArray>();
    let all = RecordBatch::try_from_iter([
        ("node_id", integers(ids.clone())),
        ("through", Arc::new(through) as ArrayRef),
    ])
    .unwrap();
    let tables = [("links", links(&rows)), ("nodes", all), ("opportunities", shops)];
    let set = [("limits", json!([5, 20, 60])), ("decay", json!(0.05))];
    let whole = run(&Accessibility, &snapshot(&tables), &set).unwrap();
    let names = ["amount", "count", "nearest_cost"];
    let mut pieces: Vec<Vec<Option<f64>>> = vec![Vec::new(); 3];
    for some in ids.chunks(40) {
        let origins = RecordBatch::try_from_iter([("node_id", integers(some.to_vec()))]).unwrap();
        let mut city = snapshot(&tables);
        city.tables.insert("origins".to_owned(), origins);
        let part = run(&Accessibility, &city, &set).unwrap();
        for (name, piece) in names.iter().zip(&mut pieces) {
            piece.extend(column(&part, "accessibility", name));
        }
    }
    for (name, piece) in names.iter().zip(pieces) {
        assert_eq!(column(&whole, "accessibility", name), piece, "{name}");
        assert!(piece.iter().flatten().any(|value| *value > 1.0), "{name}");
    }
}

#[test]
fn accessibility_counts_what_is_within_reach() {
    let opportunities = RecordBatch::try_from_iter([
        ("node_id", integers(vec![4, 2, 4])),
        ("amount", numbers(vec![10.0, 1.0, 5.0])),
    ])
    .unwrap();
    let origins = RecordBatch::try_from_iter([("node_id", integers(vec![1, 5, 4]))]).unwrap();
    let city = snapshot(&[("links", town()), ("opportunities", opportunities), ("origins", origins)]);
    let outcome = run(&Accessibility, &city, &[("limits", json!([1, 3]))]).unwrap();
    assert_eq!(column(&outcome, "accessibility", "amount"), [1.0, 16.0, 0.0, 0.0, 15.0, 15.0].map(Some));
    assert_eq!(column(&outcome, "accessibility", "count"), [1.0, 3.0, 0.0, 0.0, 2.0, 2.0].map(Some));
    let nearest = column(&outcome, "accessibility", "nearest_cost");
    assert_eq!(nearest, [Some(1.0), Some(1.0), None, None, Some(0.0), Some(0.0)]);
    let outcome = run(&Accessibility, &city, &[("limits", json!([3])), ("decay", json!(0.5))]).unwrap();
    let found = column(&outcome, "accessibility", "amount")[0].unwrap();
    assert!((found - ((-0.5_f64).exp() + 15.0 * (-1.5_f64).exp())).abs() < 1e-12);
}

#[test]
fn mistakes_are_named() {
    let said = |operator: &dyn Operator, city: &Snapshot, set: &[(&str, Value)]| {
        run(operator, city, set).err().unwrap().to_string()
    };
    let city = snapshot(&[("links", town()), ("demand", pairs(&[(1, 9)]))]);
    assert!(said(&Route, &city, &[]).contains("row 1 of 'demand' names node 9"));
    assert!(said(&Route, &city, &[("weight", json!("free_flow_time"))]).contains("free_flow_time_s"));
    assert!(said(&Route, &city, &[("hour", json!(1.5))]).contains("whole number"));
    let negative = snapshot(&[("links", links(&[(1, 2, -1.0)])), ("demand", pairs(&[(1, 2)]))]);
    assert!(said(&Route, &negative, &[]).contains("free_flow_time_s of link 1 (row 1 of 'links') is -1"));
    let city = snapshot(&[("links", town())]);
    assert!(said(&Isochrone, &city, &[]).contains("needs a table 'origins'"));
    let origins = RecordBatch::try_from_iter([("node_id", integers(vec![1]))]).unwrap();
    let city = snapshot(&[("links", town()), ("origins", origins)]);
    assert!(said(&Isochrone, &city, &[("limits", json!([5, 3]))]).contains("ascending"));
}

/// Real networks, if the test data are there: every pair of a sample against Dijkstra, in free flow and re-weighted.
#[test]
fn real_networks() {
    let Some(data) = std::env::var_os("TWINLAKE_TESTDATA") else {
        println!("skipped: TWINLAKE_TESTDATA is not set, so there is no real network to route on");
        return;
    };
    for (name, stem) in
        [("SiouxFalls", "SiouxFalls"), ("Winnipeg", "Winnipeg"), ("Chicago-Sketch", "ChicagoSketch")]
    {
        let file = std::path::Path::new(&data).join(format!("simulation/traffic_ue/{name}/{stem}_net.tntp"));
        let text = std::fs::read_to_string(&file).unwrap();
        let mut city = Snapshot { tables: tntp::read_network(&text, stem).unwrap() };
        let roads = super::roads::Roads::read(&city, "free_flow_time_s").unwrap();
        let weights = roads.arc_weights(None);
        let mut dice = Dice(7);
        let count = roads.nodes().len() as u64;
        let sample: Vec<(u32, u32)> =
            (0..300).map(|_| (dice.below(count) as u32, dice.below(count) as u32)).collect();
        let ids: Vec<(i64, i64)> =
            sample.iter().map(|(from, to)| (roads.node_id(*from), roads.node_id(*to))).collect();
        city.tables.insert("demand".to_owned(), pairs(&ids));
        let outcome = run(&Route, &city, &[("paths", json!(true))]).unwrap();
        let costs = column(&outcome, "routes", "cost");
        for ((from, to), cost) in sample.into_iter().zip(costs) {
            let exact = dijkstra(roads.topology(), &weights, roads.start(from))[to as usize];
            let exact = if from == to { 0 } else { exact };
            assert_eq!(cost, (exact < INFINITE).then(|| f64::from(exact) / 1000.0), "{name}: {from} to {to}");
        }
        let paths = column(&outcome, "paths", "link_id");
        assert!(paths.iter().all(Option::is_some) && outcome.tables["paths"]["link_id"].null_count() == 0);
    }
}
