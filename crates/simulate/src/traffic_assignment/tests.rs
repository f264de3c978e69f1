//! The operator on networks whose answer is known by hand, on random networks against its laws, and on bad input.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};
use serde_json::{Value, json};

use super::*;

/// Columns of a links table as plain vectors, to be bent by a test before it runs.
#[derive(Clone, Default)]
pub(super) struct Rows {
    pub(super) id: Vec<i64>,
    pub(super) from: Vec<i64>,
    pub(super) to: Vec<i64>,
    pub(super) capacity: Vec<f64>,
    pub(super) length: Vec<f64>,
    pub(super) time: Vec<f64>,
    pub(super) b: Vec<f64>,
    pub(super) power: Vec<f64>,
    pub(super) toll: Vec<Option<f64>>,
    pub(super) closed: Vec<Option<bool>>,
    pub(super) demand: Vec<(i64, i64, f64)>,
    pub(super) nodes: Option<Vec<(i64, bool)>>,
}

impl Rows {
    pub(super) fn link(mut self, from: i64, to: i64, time: f64, b: f64, power: f64, capacity: f64) -> Self {
        self.id.push(self.id.len() as i64 + 1);
        self.from.push(from);
        self.to.push(to);
        self.time.push(time);
        self.b.push(b);
        self.power.push(power);
        self.capacity.push(capacity);
        self.length.push(100.0);
        self.toll.push(None);
        self.closed.push(None);
        self
    }

    /// Cost `fixed + slope · flow`.
    pub(super) fn linear(self, from: i64, to: i64, fixed: f64, slope: f64) -> Self {
        self.link(from, to, fixed, slope / fixed, 1.0, 1.0)
    }

    pub(super) fn trips(mut self, origin: i64, destination: i64, flow: f64) -> Self {
        self.demand.push((origin, destination, flow));
        self
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let float = |values: &[f64]| Arc::new(Float64Array::from(values.to_vec())) as ArrayRef;
        let integer = |values: &[i64]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
        let links = RecordBatch::try_from_iter([
            ("link_id", integer(&self.id)),
            ("from_node", integer(&self.from)),
            ("to_node", integer(&self.to)),
            ("capacity_vph", float(&self.capacity)),
            ("length_m", float(&self.length)),
            ("free_flow_time_s", float(&self.time)),
            ("b", float(&self.b)),
            ("power", float(&self.power)),
            ("toll", Arc::new(Float64Array::from(self.toll.clone())) as ArrayRef),
            ("closed", Arc::new(BooleanArray::from(self.closed.clone())) as ArrayRef),
        ])
        .unwrap();
        let column =
            |of: fn(&(i64, i64, f64)) -> i64| integer(&self.demand.iter().map(of).collect::<Vec<_>>());
        let demand = RecordBatch::try_from_iter([
            ("origin", column(|row| row.0)),
            ("destination", column(|row| row.1)),
            ("flow_vph", float(&self.demand.iter().map(|row| row.2).collect::<Vec<_>>())),
        ])
        .unwrap();
        let mut tables = BTreeMap::from([("links".to_owned(), links), ("demand".to_owned(), demand)]);
        if let Some(nodes) = &self.nodes {
            let ids: Vec<i64> = nodes.iter().map(|node| node.0).collect();
            let through: BooleanArray = nodes.iter().map(|node| Some(node.1)).collect();
            let nodes = RecordBatch::try_from_iter([
                ("node_id", integer(&ids)),
                ("through", Arc::new(through) as ArrayRef),
            ]);
            tables.insert("nodes".to_owned(), nodes.unwrap());
        }
        Snapshot { tables }
    }

    fn run(&self, set: &[(&str, Value)]) -> Outcome {
        run(&self.snapshot(), set).unwrap()
    }

    fn refused(&self) -> String {
        run(&self.snapshot(), &[]).unwrap_err().to_string()
    }
}

pub(super) const STATIC: Horizon = Horizon { from_us: 0, to_us: 0 };

pub(super) fn run(city: &Snapshot, set: &[(&str, Value)]) -> Result<Outcome> {
    let parameters = set.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    TrafficAssignment.run(city, STATIC, 0, &parameters, &|_, _| true)
}

pub(super) fn figure(outcome: &Outcome, name: &str) -> f64 {
    outcome.summary[name].as_f64().unwrap()
}

pub(super) fn column(outcome: &Outcome, name: &str) -> Vec<f64> {
    outcome.tables["links"][name].as_primitive::<Float64Type>().values().to_vec()
}

pub(super) fn near(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= tolerance * expected.abs().max(1.0), "{found} for {expected}");
    }
}

/// The network of Braess (1968): links 1→3, 1→4, 3→2, 3→4, 4→2; six trips from 1 to 2.
fn braess() -> Rows {
    Rows::default()
        .linear(1, 3, 1e-8, 10.0)
        .linear(1, 4, 50.0, 1.0)
        .linear(3, 2, 50.0, 1.0)
        .linear(3, 4, 10.0, 1.0)
        .linear(4, 2, 1e-8, 10.0)
        .trips(1, 2, 6.0)
}

#[test]
fn finds_the_equilibrium_of_braess() {
    let outcome = braess().run(&[("relative_gap", json!(1e-12))]);
    near(&column(&outcome, "flow_vph"), &[4.0, 2.0, 2.0, 2.0, 4.0], 1e-6);
    near(&column(&outcome, "cost_s"), &[40.0, 52.0, 52.0, 12.0, 40.0], 1e-6);
    near(&[figure(&outcome, "objective")], &[386.000_000_08], 1e-12);
    near(&[figure(&outcome, "total_system_travel_time")], &[552.0], 1e-7);
    assert_eq!(outcome.summary["converged"], json!(true));
}

#[test]
fn closing_a_link_of_braess_makes_everybody_quicker() {
    let mut rows = braess();
    rows.closed[3] = Some(true);
    let outcome = rows.run(&[("relative_gap", json!(1e-12))]);
    near(&column(&outcome, "flow_vph"), &[3.0, 3.0, 3.0, 0.0, 3.0], 1e-6);
    near(&[figure(&outcome, "total_system_travel_time")], &[498.0], 1e-7);
    assert_eq!(outcome.summary["closed_links"], json!(1));
    let links = &outcome.tables["links"];
    assert!(links["closed"].as_boolean().value(3) && !links["closed"].as_boolean().value(2));
    assert!(links["cost_s"].is_null(3) && links["volume_capacity_ratio"].is_null(3));
}

#[test]
fn two_routes_share_the_trips_as_algebra_says() {
    // 10 + v/100 = 12 + (1000 − v)/50  →  v = 2200/3; the routes are parallel links.
    let rows = Rows::default().linear(1, 2, 10.0, 0.01).linear(1, 2, 12.0, 0.02).trips(1, 2, 1000.0);
    let share = 2200.0 / 3.0;
    let outcome = rows.run(&[("relative_gap", json!(1e-12))]);
    near(&column(&outcome, "flow_vph"), &[share, 1000.0 - share], 1e-6);
    let each = 10.0 + share / 100.0;
    near(&column(&outcome, "cost_s"), &[each, each], 1e-9);
    // a toll of 4 at weight 0.5 on the first: 12 + v/100 = 12 + (1000 − v)/50; the time is without the toll
    let mut tolled = rows.clone();
    tolled.toll[0] = Some(4.0);
    let outcome = tolled.run(&[("relative_gap", json!("1e-12")), ("toll_weight", json!(0.5))]);
    near(&column(&outcome, "flow_vph"), &[2000.0 / 3.0, 1000.0 / 3.0], 1e-6);
    let time = column(&outcome, "travel_time_s");
    near(&time, &[10.0 + 20.0 / 3.0, 12.0 + 20.0 / 3.0], 1e-6);
    // twice the length at weight 0.02 does the same as the toll
    let mut long = rows;
    long.length = vec![200.0, 100.0];
    let outcome = long.run(&[("relative_gap", json!(1e-12)), ("distance_weight", json!(0.02))]);
    near(&column(&outcome, "flow_vph"), &[2000.0 / 3.0, 1000.0 / 3.0], 1e-6);
}

#[test]
fn system_optimum_of_pigou_costs_three_quarters() {
    let rows = Rows::default().link(1, 2, 1.0, 0.0, 4.0, 1.0).linear(1, 2, 1e-12, 1.0).trips(1, 2, 1.0);
    let user = rows.run(&[("relative_gap", json!(1e-12))]);
    near(&column(&user, "flow_vph"), &[0.0, 1.0], 1e-6);
    near(&[figure(&user, "total_system_travel_time")], &[1.0], 1e-9);
    let system = rows.run(&[("relative_gap", json!(1e-12)), ("objective", json!("system_optimum"))]);
    near(&column(&system, "flow_vph"), &[0.5, 0.5], 1e-6);
    near(&[figure(&system, "total_system_travel_time"), figure(&system, "objective")], &[0.75, 0.75], 1e-9);
    assert_eq!(system.summary["equilibrium"], json!("system_optimum"));
}

#[test]
fn through_traffic_keeps_off_centroids() {
    // 1 → 2 → 3 is short, but 2 is a centroid; 1 → 4 → 3 is long. Trips from and to 2 may use its links.
    let mut rows = Rows::default()
        .linear(1, 2, 1.0, 0.01)
        .linear(2, 3, 1.0, 0.01)
        .linear(1, 4, 50.0, 0.01)
        .linear(4, 3, 50.0, 0.01)
        .trips(1, 3, 10.0)
        .trips(1, 2, 5.0)
        .trips(2, 3, 7.0);
    rows.nodes = Some(vec![(1, false), (2, false), (3, false), (4, true), (9, true)]);
    near(&column(&rows.run(&[]), "flow_vph"), &[5.0, 7.0, 10.0, 10.0], 1e-12);
    rows.nodes = None;
    near(&column(&rows.run(&[]), "flow_vph"), &[15.0, 17.0, 0.0, 0.0], 1e-12);
}

#[test]
fn demand_without_a_path_is_reported_and_the_rest_assigned() {
    // 3 is a dead end, 5 has no way in; 4 is reached through 2.
    let mut rows = Rows::default()
        .linear(1, 2, 1.0, 0.01)
        .linear(2, 4, 1.0, 0.01)
        .linear(2, 3, 1.0, 0.01)
        .linear(5, 1, 1.0, 0.01)
        .trips(1, 4, 10.0)
        .trips(3, 4, 3.0)
        .trips(1, 5, 2.0)
        .trips(4, 4, 8.0)
        .trips(1, 4, 1.0)
        .trips(2, 5, 0.0);
    let outcome = rows.run(&[]);
    near(&column(&outcome, "flow_vph"), &[11.0, 11.0, 0.0, 0.0], 1e-12);
    let pairs = |outcome: &Outcome| -> Vec<(i64, i64, f64)> {
        let table = &outcome.tables["unassigned"];
        let whole = |name: &str| table[name].as_primitive::<Int64Type>().values().to_vec();
        let flow = table["flow_vph"].as_primitive::<Float64Type>().values().to_vec();
        whole("origin")
            .into_iter()
            .zip(whole("destination"))
            .zip(flow)
            .map(|((from, to), flow)| (from, to, flow))
            .collect()
    };
    assert_eq!(pairs(&outcome), [(1, 5, 2.0), (3, 4, 3.0)]);
    for (name, value) in [
        ("demand_assigned", 11.0),
        ("demand_unassigned", 5.0),
        ("demand_intrazonal", 8.0),
        ("unassigned_pairs", 2.0),
    ] {
        assert_eq!(figure(&outcome, name), value, "{name}");
    }
    // a closed link cuts 4 off, everything closed cuts all off
    rows.closed[1] = Some(true);
    assert_eq!(pairs(&rows.run(&[])), [(1, 4, 11.0), (1, 5, 2.0), (3, 4, 3.0)]);
    rows.closed = vec![Some(true); 4];
    let outcome = rows.run(&[]);
    assert_eq!(figure(&outcome, "demand_assigned"), 0.0);
    assert_eq!(figure(&outcome, "demand_unassigned"), 16.0);
    assert_eq!(outcome.summary["converged"], json!(true));
    // no trips at all
    rows.demand.clear();
    assert_eq!(figure(&rows.run(&[]), "relative_gap"), 0.0);
}

#[test]
fn links_that_cost_nothing_or_the_same_at_every_flow_do_no_harm() {
    // A ring of links without cost (1 ⇄ 2, 2 ⇄ 3), then constant, square-root and steep links to 4.
    let rows = Rows::default()
        .link(1, 2, 0.0, 0.15, 4.0, 100.0)
        .link(2, 1, 0.0, 0.15, 4.0, 100.0)
        .link(2, 3, 0.0, 0.0, 0.0, 0.0)
        .link(3, 2, 0.0, 0.0, 0.0, 0.0)
        .link(1, 4, 10.0, 0.5, 0.0, 1.0)
        .link(2, 4, 10.0, 0.5, 0.5, 100.0)
        .link(3, 4, 10.0, 0.15, 20.0, 100.0)
        .link(4, 4, 0.0, 0.0, 0.0, 1.0)
        .trips(1, 4, 300.0)
        .trips(2, 4, 50.0)
        .trips(3, 1, 10.0);
    let outcome = rows.run(&[("relative_gap", json!(1e-10))]);
    assert_eq!(outcome.summary["converged"], json!(true));
    let (flow, cost) = (column(&outcome, "flow_vph"), column(&outcome, "cost_s"));
    // the square-root link costs 15 at 100 trips, the steep one where 0.15 (v/100)^20 = 0.5, the constant one always
    let steep = 100.0 * (0.5_f64 / 0.15).powf(0.05);
    near(&flow[4..7], &[350.0 - 100.0 - steep, 100.0, steep], 1e-6);
    near(&cost[4..7], &[15.0; 3], 1e-6);
    assert_eq!(flow[7], 0.0);
    assert!(outcome.tables["links"]["volume_capacity_ratio"].is_null(2), "a capacity of 0 has no ratio");
}

#[test]
fn default_function_stands_in_for_missing_columns() {
    let rows = Rows::default().link(1, 2, 10.0, 0.15, 4.0, 100.0).trips(1, 2, 100.0);
    let mut city = rows.snapshot();
    let kept = ["link_id", "from_node", "to_node", "capacity_vph", "length_m", "free_flow_time_s"];
    let links = &city.tables["links"];
    let bare: Vec<(&str, ArrayRef)> = kept.iter().map(|name| (*name, links[*name].clone())).collect();
    city.tables.insert("links".to_owned(), RecordBatch::try_from_iter(bare).unwrap());
    near(&column(&run(&city, &[]).unwrap(), "cost_s"), &[11.5], 1e-12);
    near(&column(&run(&city, &[("b", json!(0.3))]).unwrap(), "cost_s"), &[13.0], 1e-12);
}

/// Numbers that look random and are the same everywhere (Marsaglia 2003, xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn part(&mut self) -> f64 {
        self.below(1 << 40) as f64 / (1_u64 << 40) as f64
    }
}

/// A network with parallel links, links of no cost, constant links, centroids, closed links and dead ends.
pub(super) fn random_network(seed: u64) -> Rows {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let nodes = 4 + random.below(25);
    let mut rows = Rows::default();
    for _ in 0..nodes * (2 + random.below(3)) {
        let (from, to) = (random.below(nodes) as i64 + 100, random.below(nodes) as i64 + 100);
        let time = if random.below(8) == 0 { 0.0 } else { 1.0 + 20.0 * random.part() };
        let b = if random.below(6) == 0 { 0.0 } else { 0.05 + random.part() };
        let power = [0.0, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0, 5.3][random.below(8) as usize];
        rows = rows.link(from, to, time, b, power, 50.0 + 500.0 * random.part());
        if random.below(15) == 0 {
            rows.closed[rows.id.len() - 1] = Some(true);
        }
    }
    for _ in 0..3 * nodes {
        let (from, to) = (random.below(nodes) as i64 + 100, random.below(nodes) as i64 + 100);
        rows = rows.trips(from, to, random.below(100) as f64 + random.part());
    }
    rows.nodes = Some((100..100 + nodes as i64).map(|node| (node, random.below(5) > 0)).collect());
    rows
}

/// Cost of the cheapest path from `origin` to every node, by Bellman and Ford: shares nothing with the operator.
pub(super) fn cheapest(rows: &Rows, cost: &[Option<f64>], origin: i64) -> BTreeMap<i64, f64> {
    let through: BTreeMap<i64, bool> = rows.nodes.clone().unwrap().into_iter().collect();
    let mut best = BTreeMap::from([(origin, 0.0)]);
    for _ in 0..through.len() {
        for (row, cost) in cost.iter().enumerate() {
            let (from, to) = (rows.from[row], rows.to[row]);
            if let (Some(cost), Some(&here)) = (cost, best.get(&from))
                && (from == origin || through[&from])
                && best.get(&to).is_none_or(|&there| here + cost < there)
            {
                best.insert(to, here + cost);
            }
        }
    }
    best
}

#[test]
pub(super) fn random_networks_keep_the_laws_of_equilibrium() {
    for seed in 1..=300 {
        let rows = random_network(seed);
        let outcome = rows.run(&[("relative_gap", json!(1e-10)), ("max_iterations", json!(300))]);
        assert_eq!(outcome.summary["converged"], json!(true), "seed {seed}: {:?}", outcome.summary);
        let links = &outcome.tables["links"];
        let flow = column(&outcome, "flow_vph");
        let cost: Vec<Option<f64>> = links["cost_s"].as_primitive::<Float64Type>().iter().collect();
        let mut balance: BTreeMap<i64, f64> = BTreeMap::new();
        for row in 0..flow.len() {
            assert!(flow[row] >= 0.0 && (flow[row] == 0.0 || cost[row].is_some()), "seed {seed} row {row}");
            *balance.entry(rows.from[row]).or_default() -= flow[row];
            *balance.entry(rows.to[row]).or_default() += flow[row];
        }
        let (mut assigned, mut unassigned, mut at_cheapest) = (0.0, 0.0, 0.0);
        for &(from, to, trips) in rows.demand.iter().filter(|(from, to, _)| from != to) {
            match cheapest(&rows, &cost, from).get(&to) {
                Some(cost) => {
                    assigned += trips;
                    at_cheapest += trips * cost;
                    *balance.entry(from).or_default() += trips;
                    *balance.entry(to).or_default() -= trips;
                }
                None => unassigned += trips,
            }
        }
        near(&[figure(&outcome, "demand_assigned")], &[assigned], 1e-12);
        near(&[figure(&outcome, "demand_unassigned")], &[unassigned], 1e-12);
        for (node, left) in balance {
            assert!(left.abs() <= 1e-10 * assigned.max(1.0), "seed {seed}: {left} trips lost at node {node}");
        }
        assert!(figure(&outcome, "conservation_residual") <= 1e-10);
        let total: f64 = flow.iter().zip(&cost).map(|(flow, cost)| flow * cost.unwrap_or(0.0)).sum();
        assert!(total - at_cheapest <= 2e-10 * total, "seed {seed}: {total} against {at_cheapest}");
    }
}

#[test]
fn same_bytes_on_any_number_of_threads_and_in_any_order_of_the_demand() {
    let rows = random_network(77);
    let first = rows.run(&[]);
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let again = pool.install(|| rows.run(&[]));
        assert_eq!(again.tables, first.tables);
        assert_eq!(Value::from(again.summary), Value::from(first.summary.clone()));
    }
    let mut turned = rows.clone();
    turned.demand.sort_by_key(|row| (row.0, row.1));
    let mut once = turned.clone();
    once.demand.reverse();
    // the sum of the rows of one pair may round differently; without such pairs nothing may
    once.demand.dedup_by_key(|row| (row.0, row.1));
    let mut twice = once.clone();
    twice.demand.reverse();
    assert_eq!(once.run(&[]).tables, twice.run(&[]).tables);
}

#[test]
fn capacity_and_demand_in_proportion_leave_costs_alone() {
    let rows = random_network(5);
    let mut double = rows.clone();
    double.capacity.iter_mut().for_each(|capacity| *capacity *= 2.0);
    double.demand.iter_mut().for_each(|row| row.2 *= 2.0);
    let (one, two) = (rows.run(&[]), double.run(&[]));
    near(&[2.0 * figure(&one, "objective")], &[figure(&two, "objective")], 1e-12);
}

#[test]
fn progress_is_told_and_can_stop_the_run() {
    let city = random_network(9).snapshot();
    let seen = std::sync::Mutex::new(Vec::new());
    let set = Parameters::from([("relative_gap".to_owned(), json!(1e-10))]);
    TrafficAssignment
        .run(&city, STATIC, 0, &set, &|fraction, word| {
            seen.lock().unwrap().push((fraction, word.to_owned()));
            true
        })
        .unwrap();
    let seen = seen.into_inner().unwrap();
    assert!(!seen.is_empty() && seen.iter().all(|(fraction, _)| (0.0..=1.0).contains(fraction)));
    assert!(seen[0].1.starts_with("first routes, origin 1 of "), "{}", seen[0].1);
    assert!(seen.iter().any(|(_, word)| word.starts_with("iteration 1, relative gap")));
    let error = TrafficAssignment.run(&city, STATIC, 0, &set, &|_, _| false).unwrap_err();
    assert!(error.to_string().contains("stopped on request"), "{error}");
}

#[test]
fn a_run_that_ends_early_says_so() {
    let outcome = random_network(9).run(&[("relative_gap", json!(1e-14)), ("max_iterations", json!(1))]);
    assert_eq!(outcome.summary["converged"], json!(false));
    assert_eq!(outcome.summary["iterations"], json!(1));
    assert!(figure(&outcome, "relative_gap") > 1e-14);
}

#[test]
fn bad_parameters_are_refused_by_name() {
    let city = braess().snapshot();
    for (name, value, said) in [
        ("relativ_gap", json!(1e-6), "did you mean 'relative_gap'"),
        ("relative_gap", json!(0), "parameter relative_gap = 0 must be"),
        ("relative_gap", json!("small"), "must be a number above 0"),
        ("max_iterations", json!(2.5), "must be a whole number"),
        ("max_iterations", json!(-1), "must be a whole number"),
        ("toll_weight", json!("inf"), "must be a finite number"),
        ("toll_weight", json!(null), "must be a finite number"),
        ("objective", json!("least_time"), "write one of: user_equilibrium, system_optimum"),
        ("b", json!(-1), "not negative"),
    ] {
        let shown = run(&city, &[(name, value)]).unwrap_err().to_string();
        assert!(shown.contains(said), "{shown}");
    }
}

#[test]
fn bad_links_are_refused_by_name() {
    let refuse = |bend: &dyn Fn(&mut Rows), said: &str| {
        let mut rows = braess();
        bend(&mut rows);
        let shown = rows.refused();
        assert!(shown.contains(said), "{shown}");
        assert!(matches!(run(&rows.snapshot(), &[]), Err(Error::Config(_))));
    };
    refuse(
        &|rows| rows.capacity[1] = -3.0,
        "link 2 (row 2 of 'links') has capacity_vph -3, which must not be",
    );
    refuse(&|rows| rows.capacity[1] = 0.0, "link 2 (row 2 of 'links') has capacity_vph 0");
    refuse(&|rows| rows.capacity[1] = 1e-310, "link 2 (row 2 of 'links') has a cost too large");
    refuse(&|rows| rows.capacity[4] = f64::NAN, "link 5 (row 5 of 'links') has capacity_vph NaN");
    refuse(&|rows| rows.time[0] = f64::INFINITY, "link 1 (row 1 of 'links') has free_flow_time_s inf");
    refuse(&|rows| rows.time[0] = -1.0, "free_flow_time_s -1");
    refuse(&|rows| rows.power[2] = -1.0, "link 3 (row 3 of 'links') has power -1");
    refuse(&|rows| rows.power[2] = 1e5, "cost too large");
    refuse(&|rows| (rows.time[2], rows.b[2]) = (1e308, 0.0), "cost too large");
    refuse(
        &|rows| (rows.time, rows.b) = (vec![2e307; 5], vec![0.0; 5]),
        "link 2 (row 2 of 'links') has a cost too",
    );
    refuse(&|rows| rows.b[2] = f64::NAN, "has b NaN");
    refuse(&|rows| rows.toll[2] = Some(f64::NAN), "has toll NaN");
    refuse(&|rows| rows.id[2] = 1, "link 1 is there twice");
    refuse(&|rows| rows.demand[0].2 = -6.0, "row 1 of 'demand' (from 1 to 2) has flow_vph -6");
    refuse(&|rows| rows.demand[0].2 = f64::NAN, "flow_vph NaN");
    refuse(&|rows| rows.demand[0].0 = 77, "row 1 of 'demand' (from 77 to 2) names node 77");
    refuse(
        &|rows| rows.nodes = Some(vec![(1, true), (2, true), (3, true)]),
        "link 2 (row 2 of 'links') names node 4",
    );
    refuse(&|rows| rows.nodes = Some(vec![(1, true), (1, true)]), "node 1 is there twice");
    refuse(&|rows| *rows = Rows::default(), "the network is empty");

    // what a closed link says is not asked, and a negative weighted toll is only wrong below zero
    let mut rows = braess();
    (rows.capacity[3], rows.closed[3]) = (f64::NAN, Some(true));
    near(&[figure(&rows.run(&[]), "total_system_travel_time")], &[498.0], 1e-5);
    rows.toll[1] = Some(60.0);
    let shown = run(&rows.snapshot(), &[("toll_weight", json!(-1))]).unwrap_err().to_string();
    assert!(shown.contains("link 2 (row 2 of 'links') has the negative cost -10"), "{shown}");

    let mut city = braess().snapshot();
    city.tables.remove("demand");
    assert!(run(&city, &[]).unwrap_err().to_string().contains("needs a table 'demand'"));
}
