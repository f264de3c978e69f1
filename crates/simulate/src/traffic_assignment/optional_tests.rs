//! Elastic demand and classes of users: networks solved by algebra, and the conditions of optimality on random networks and on
//! Sioux Falls, checked from the tables alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{Float64Type, Int64Type};
use serde_json::{Value, json};
use twinlake_contracts::{Outcome, Snapshot};

use super::published_optima::{city, folder};
use super::tests::{Rows, cheapest, column, figure, near, random_network, run};

/// The settings with a relative gap of 1e-12.
fn tight(set: &[(&'static str, Value)]) -> Vec<(&'static str, Value)> {
    [&[("relative_gap", json!(1e-12))], set].concat()
}

fn numbers(outcome: &Outcome, table: &str, name: &str) -> Vec<f64> {
    outcome.tables[table][name].as_primitive::<Float64Type>().values().to_vec()
}

fn with_column(mut city: Snapshot, table: &str, name: &str, values: ArrayRef) -> Snapshot {
    let batch = &city.tables[table];
    let mut columns: Vec<(String, ArrayRef)> = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        columns.push((field.name().clone(), column.clone()));
    }
    columns.push((name.to_owned(), values));
    city.tables.insert(table.to_owned(), RecordBatch::try_from_iter(columns).unwrap());
    city
}

/// Name, passenger-car equivalents, toll weight, distance weight, share.
type Class = (&'static str, f64, f64, f64, f64);

fn with_classes(mut city: Snapshot, classes: &[Class]) -> Snapshot {
    let float =
        |of: fn(&Class) -> f64| Arc::new(Float64Array::from_iter_values(classes.iter().map(of))) as ArrayRef;
    let table = RecordBatch::try_from_iter([
        ("class", Arc::new(StringArray::from_iter_values(classes.iter().map(|class| class.0))) as ArrayRef),
        ("pce", float(|class| class.1)),
        ("toll_weight", float(|class| class.2)),
        ("distance_weight", float(|class| class.3)),
        ("share", float(|class| class.4)),
    ]);
    city.tables.insert("classes".to_owned(), table.unwrap());
    city
}

/// 10 + v/100 and 12 + v/50, side by side, a thousand trips.
fn two_routes() -> Rows {
    Rows::default().linear(1, 2, 10.0, 0.01).linear(1, 2, 12.0, 0.02).trips(1, 2, 1000.0)
}

#[test]
fn linear_demand_on_two_routes_is_what_algebra_says() {
    // v1 + v2 = 100 (u − 10) + 50 (u − 12) = 150 u − 1600; D = 1000 (1 − 0.5 (u/20 − 1)) = 1500 − 25 u; so u = 124/7.
    let reference = Arc::new(Float64Array::from(vec![20.0])) as ArrayRef;
    let city = with_column(two_routes().snapshot(), "demand", "reference_cost_s", reference);
    let outcome = run(&city, &tight(&[("demand_function", json!("linear"))])).unwrap();
    let cost = 124.0 / 7.0;
    near(&numbers(&outcome, "demand", "cost_s"), &[cost], 1e-9);
    near(&numbers(&outcome, "demand", "flow_vph"), &[1500.0 - 25.0 * cost], 1e-9);
    // at free flow the cost is 10
    near(&numbers(&outcome, "demand", "forgone_vph"), &[25.0 * (cost - 10.0)], 1e-9);
    near(&column(&outcome, "flow_vph"), &[100.0 * (cost - 10.0), 50.0 * (cost - 12.0)], 1e-9);
    near(&[figure(&outcome, "demand_assigned")], &[1500.0 - 25.0 * cost], 1e-9);
    // ∫ of the links, and of the trips' worth from the cost at free flow on: 10 e + e²/50
    let (one, two) = (100.0 * (cost - 10.0), 50.0 * (cost - 12.0));
    let forgone = 25.0 * (cost - 10.0);
    let least = 10.0 * one
        + one * one / 200.0
        + 12.0 * two
        + two * two / 100.0
        + 10.0 * forgone
        + forgone * forgone / 50.0;
    near(&[figure(&outcome, "objective")], &[least], 1e-9);
    assert_eq!(outcome.summary["converged"], json!(true));
}

#[test]
fn demand_that_nobody_can_pay_for_is_not_made() {
    // D = 1000 (1 − (u/4 − 1)) is 0 from u = 8 on, and the road costs 10 when empty.
    let reference = Arc::new(Float64Array::from(vec![4.0])) as ArrayRef;
    let city = with_column(two_routes().snapshot(), "demand", "reference_cost_s", reference);
    let set = [("demand_function", json!("linear")), ("elasticity", json!(1.0))];
    let outcome = run(&city, &tight(&set)).unwrap();
    assert_eq!(column(&outcome, "flow_vph"), [0.0, 0.0]);
    assert_eq!(numbers(&outcome, "demand", "flow_vph"), [0.0]);
    assert_eq!(outcome.summary["converged"], json!(true));
}

#[test]
fn half_of_the_trips_are_made_where_the_elasticity_is_chosen_for_it() {
    // On the road 10 + v/100 with 1000 trips at the cost of free flow, x = v/1000 solves x = exp(−ε x), so x = 1/2 where
    // ε = 2 ln 2; and x = (1 + x)^(−ε), so x = 1/2 where ε = ln 2 / ln 1.5; and x = 1 − ε x, so x = 1/2 where ε = 1.
    let road = Rows::default().linear(1, 2, 10.0, 0.01).trips(1, 2, 1000.0);
    for (form, elasticity) in
        [("exponential", 2.0 * 2.0_f64.ln()), ("power", 2.0_f64.ln() / 1.5_f64.ln()), ("linear", 1.0)]
    {
        let set = [("demand_function", json!(form)), ("elasticity", json!(elasticity))];
        let outcome = run(&road.snapshot(), &tight(&set)).unwrap();
        near(&column(&outcome, "flow_vph"), &[500.0], 1e-8);
        near(&numbers(&outcome, "demand", "cost_s"), &[15.0], 1e-9);
        near(&[figure(&outcome, "demand_forgone")], &[500.0], 1e-8);
    }
    // At a system optimum the trip pays what it costs all: 10 + v/50 = 30 − v/50 at v = 500 of D = 1500 − 50 u.
    let set = [
        ("demand_function", json!("linear")),
        ("elasticity", json!(0.5)),
        ("objective", json!("system_optimum")),
    ];
    let outcome = run(&road.snapshot(), &tight(&set)).unwrap();
    near(&column(&outcome, "flow_vph"), &[500.0], 1e-8);
    near(&numbers(&outcome, "demand", "cost_s"), &[20.0], 1e-9);
    near(&column(&outcome, "cost_s"), &[15.0], 1e-9);
}

/// 10 + v/100 free, and 8 + v/100 with a toll of 6.
fn free_and_tolled() -> Snapshot {
    let mut rows = Rows::default().linear(1, 2, 10.0, 0.01).linear(1, 2, 8.0, 0.01);
    rows.toll[1] = Some(6.0);
    rows = rows.trips(1, 2, 900.0).trips(1, 2, 100.0);
    let whose = Arc::new(StringArray::from(vec!["car", "truck"])) as ArrayRef;
    with_column(rows.snapshot(), "demand", "class", whose)
}

#[test]
fn classes_share_two_roads_as_algebra_says() {
    // Trucks count twice and do not mind the toll: all 100 take the tolled road. Of the cars y join them where
    // 10 + (900 − y)/100 = 8 + 6 + (200 + y)/100, so y = 150.
    let city = with_classes(free_and_tolled(), &[("car", 1.0, 1.0, 0.0, 1.0), ("truck", 2.0, 0.0, 0.0, 1.0)]);
    let outcome = run(&city, &tight(&[])).unwrap();
    near(&numbers(&outcome, "class_links", "flow_vph"), &[750.0, 150.0, 0.0, 100.0], 1e-8);
    near(&numbers(&outcome, "class_links", "cost_s"), &[17.5, 17.5, 17.5, 11.5], 1e-9);
    near(&column(&outcome, "flow_vph"), &[750.0, 250.0], 1e-8);
    near(&column(&outcome, "travel_time_s"), &[17.5, 11.5], 1e-9);
    near(&column(&outcome, "volume_capacity_ratio"), &[750.0, 350.0], 1e-8);
    near(&[figure(&outcome, "demand_assigned")], &[1000.0], 1e-12);
    near(&[figure(&outcome, "total_system_travel_time")], &[750.0 * 17.5 + 250.0 * 11.5], 1e-8);
    near(&[figure(&outcome, "total_generalized_cost")], &[900.0 * 17.5 + 100.0 * 11.5], 1e-8);
    // Beckmann's integrals of all, and the toll of the cars
    let (free, tolled) = (750.0, 350.0);
    let least = 10.0 * free + free * free / 200.0 + 8.0 * tolled + tolled * tolled / 200.0 + 6.0 * 150.0;
    near(&[figure(&outcome, "objective")], &[least], 1e-10);
    let classes = outcome.tables["class_links"]["class"].as_string::<i32>();
    assert_eq!((classes.value(0), classes.value(3)), ("car", "truck"));

    // the same by distance: 300 m more at 0.02 is 6
    let mut city = city;
    let length = Arc::new(Float64Array::from(vec![100.0, 400.0])) as ArrayRef;
    let links = &city.tables["links"];
    let columns: Vec<(String, ArrayRef)> = links
        .schema()
        .fields()
        .iter()
        .zip(links.columns())
        .map(|(field, column)| {
            (field.name().clone(), if field.name() == "length_m" { length.clone() } else { column.clone() })
        })
        .collect();
    city.tables.insert("links".to_owned(), RecordBatch::try_from_iter(columns).unwrap());
    let city = with_classes(city, &[("car", 1.0, 0.0, 0.02, 1.0), ("truck", 2.0, 0.0, 0.0, 1.0)]);
    let outcome = run(&city, &tight(&[])).unwrap();
    near(&numbers(&outcome, "class_links", "flow_vph"), &[750.0, 150.0, 0.0, 100.0], 1e-8);
}

#[test]
fn one_class_by_name_is_everybody() {
    let rows = random_network(21);
    let plain = run(&rows.snapshot(), &[]).unwrap();
    let named = run(&with_classes(rows.snapshot(), &[("all", 1.0, 0.0, 0.0, 1.0)]), &[]).unwrap();
    assert_eq!(plain.tables["links"], named.tables["links"]);
    assert_eq!(plain.summary["objective"], named.summary["objective"]);
}

/// Holds a solution to what defines it: the trips of each class are those of the demand function at the cost of the cheapest route, all
/// who travel have a cheapest route (the sum of what is paid is the sum over trips of the least cost), and nobody is lost at a node.
/// Searches by Bellman and Ford on the result's own costs; shares nothing with the operator.
fn keeps_the_laws(
    name: &str,
    rows: &Rows,
    classes: &[Class],
    outcome: &Outcome,
    demand: impl Fn(f64, f64, f64) -> f64,
) {
    let flow = numbers(outcome, "class_links", "flow_vph");
    let cost: Vec<Option<f64>> =
        outcome.tables["class_links"]["cost_s"].as_primitive::<Float64Type>().iter().collect();
    let table = &outcome.tables["demand"];
    let whole = |name: &str| table[name].as_primitive::<Int64Type>().values().to_vec();
    let (origin, destination, made) =
        (whole("origin"), whole("destination"), numbers(outcome, "demand", "flow_vph"));
    let whose = table["class"].as_string::<i32>();
    let links = rows.id.len();
    for (at, (class, pce, toll, distance, share)) in classes.iter().enumerate() {
        let (flow, cost) = (&flow[at * links..(at + 1) * links], &cost[at * links..(at + 1) * links]);
        let free: Vec<Option<f64>> = (0..links)
            .map(|row| {
                let always = if rows.power[row] == 0.0 { 1.0 + rows.b[row] } else { 1.0 };
                let over = toll * rows.toll[row].unwrap_or(0.0) + distance * rows.length[row];
                (rows.closed[row] != Some(true)).then_some(rows.time[row] * always + over)
            })
            .collect();
        let mut trips: BTreeMap<(i64, i64), f64> = BTreeMap::new();
        for &(from, to, flow) in rows.demand.iter().filter(|(from, to, flow)| from != to && *flow > 0.0) {
            *trips.entry((from, to)).or_default() += flow * share;
        }
        let mut balance: BTreeMap<i64, f64> = BTreeMap::new();
        let (mut at_cheapest, mut all, mut pairs) = (0.0, 0.0, 0);
        for row in (0..made.len()).filter(|row| whose.value(*row) == *class) {
            let pair = (origin[row], destination[row]);
            let least = cheapest(rows, &free, pair.0)[&pair.1];
            let now = cheapest(rows, cost, pair.0)[&pair.1];
            let expected = if least > 0.0 { demand(trips[&pair], least, now) } else { trips[&pair] };
            let scale = trips[&pair];
            assert!(
                (made[row] - expected).abs() <= 2e-5 * scale,
                "{name} {class} {pair:?}: {} trips made for {expected} of {scale} at {now} ({least} free)",
                made[row]
            );
            *balance.entry(pair.0).or_default() += made[row];
            *balance.entry(pair.1).or_default() -= made[row];
            at_cheapest += made[row] * now;
            all += made[row];
            pairs += 1;
        }
        let connected =
            trips.keys().filter(|(from, to)| cheapest(rows, &free, *from).contains_key(to)).count();
        assert_eq!(pairs, connected, "{name} {class}");
        let mut paid = 0.0;
        for row in 0..links {
            *balance.entry(rows.from[row]).or_default() -= flow[row];
            *balance.entry(rows.to[row]).or_default() += flow[row];
            paid += flow[row] * cost[row].unwrap_or(0.0);
        }
        for (node, left) in balance {
            assert!(left.abs() <= 1e-9 * all.max(1.0), "{name} {class}: {left} vehicles lost at node {node}");
        }
        assert!(
            paid - at_cheapest <= 1e-8 * paid.max(1.0),
            "{name} {class}: {paid} paid for {at_cheapest}; pce {pce}"
        );
    }
}

const CLASSES: [Class; 2] = [("car", 1.0, 0.5, 0.001, 0.8), ("truck", 2.5, 0.1, 0.004, 0.3)];

fn exponential(elasticity: f64) -> impl Fn(f64, f64, f64) -> f64 {
    move |trips, reference, cost| trips * (-elasticity * (cost / reference - 1.0)).exp()
}

#[test]
fn random_networks_with_classes_keep_the_laws_of_elastic_demand() {
    for seed in 1..=60 {
        let mut rows = random_network(seed);
        rows.toll.iter_mut().step_by(3).for_each(|toll| *toll = Some(4.0));
        let set = [
            ("relative_gap", json!(1e-11)),
            ("max_iterations", json!(500)),
            ("demand_function", json!("exponential")),
            ("elasticity", json!(0.4)),
        ];
        let outcome = run(&with_classes(rows.snapshot(), &CLASSES), &set).unwrap();
        assert_eq!(outcome.summary["converged"], json!(true), "seed {seed}: {:?}", outcome.summary);
        keeps_the_laws(&format!("seed {seed}"), &rows, &CLASSES, &outcome, exponential(0.4));
    }
}

#[test]
fn sioux_falls_with_classes_keeps_the_laws_of_elastic_demand() {
    let Some(folder) = folder() else { return };
    let city = city(&folder, "SiouxFalls", "SiouxFalls");
    let (links, trips) = (&city.tables["links"], &city.tables["demand"]);
    let whole = |batch: &RecordBatch, name: &str| batch[name].as_primitive::<Int64Type>().values().to_vec();
    let number =
        |batch: &RecordBatch, name: &str| batch[name].as_primitive::<Float64Type>().values().to_vec();
    let flows = number(trips, "flow_vph");
    let rows = Rows {
        id: whole(links, "link_id"),
        from: whole(links, "from_node"),
        to: whole(links, "to_node"),
        length: number(links, "length_m"),
        time: number(links, "free_flow_time_s"),
        b: number(links, "b"),
        power: number(links, "power"),
        toll: vec![None; links.num_rows()],
        closed: vec![None; links.num_rows()],
        demand: whole(trips, "origin")
            .into_iter()
            .zip(whole(trips, "destination"))
            .zip(flows)
            .map(|((from, to), flow)| (from, to, flow))
            .collect(),
        nodes: Some((1..=24).map(|node| (node, true)).collect()),
        ..Rows::default()
    };
    let set = [
        ("relative_gap", json!(1e-12)),
        ("demand_function", json!("exponential")),
        ("elasticity", json!(0.3)),
    ];
    let classes = [("car", 1.0, 0.0, 0.0, 0.9), ("truck", 2.0, 0.0, 0.1, 0.1)];
    let outcome = run(&with_classes(city, &classes), &set).unwrap();
    assert_eq!(outcome.summary["converged"], json!(true), "{:?}", outcome.summary);
    let (made, forgone) = (figure(&outcome, "demand_assigned"), figure(&outcome, "demand_forgone"));
    assert!((made + forgone - 360_600.0).abs() < 1e-6 && forgone > 1e4, "{made} made, {forgone} forgone");
    keeps_the_laws("Sioux Falls", &rows, &classes, &outcome, exponential(0.3));
}

#[test]
fn bad_classes_and_demand_functions_are_refused_by_name() {
    let said = |city: Snapshot, set: &[(&str, Value)]| run(&city, set).unwrap_err().to_string();
    let refuse = |shown: String, wanted: &str| assert!(shown.contains(wanted), "{shown}");
    let good = ("car", 1.0, 1.0, 0.0, 1.0);
    refuse(
        said(with_classes(free_and_tolled(), &[good]), &[]),
        "row 2 of 'demand' (from 1 to 2) is of class 'truck'",
    );
    refuse(said(with_classes(free_and_tolled(), &[good, good]), &[]), "class 'car' is there twice");
    refuse(
        said(with_classes(free_and_tolled(), &[("car", 0.0, 1.0, 0.0, 1.0)]), &[]),
        "class 'car' (row 1 of 'classes') has pce",
    );
    refuse(said(with_classes(free_and_tolled(), &[("car", 1.0, 1.0, 0.0, -1.0)]), &[]), "has share");
    refuse(said(with_classes(free_and_tolled(), &[]), &[]), "has no row");
    let dear =
        with_classes(free_and_tolled(), &[("car", 1.0, -3.0, 0.0, 1.0), ("truck", 1.0, 0.0, 0.0, 1.0)]);
    refuse(
        said(dear, &[]),
        "link 2 (row 2 of 'links') has the negative cost -10 at free flow, with its toll and length weighted for class 'car'",
    );
    let city = || two_routes().snapshot();
    refuse(
        said(city(), &[("demand_function", json!("logit"))]),
        "write one of: fixed, linear, exponential, power",
    );
    refuse(said(city(), &[("elasticity", json!(0))]), "parameter elasticity = 0 must be");
    let reference = |cost: f64| {
        with_column(
            city(),
            "demand",
            "reference_cost_s",
            Arc::new(Float64Array::from(vec![cost])) as ArrayRef,
        )
    };
    refuse(said(reference(-1.0), &[]), "has reference_cost_s");
    let steep = Rows::default().link(1, 2, 10.0, 0.15, 30.0, 1.0).trips(1, 2, 1000.0).snapshot();
    let steep = with_column(
        steep,
        "demand",
        "reference_cost_s",
        Arc::new(Float64Array::from(vec![20.0])) as ArrayRef,
    );
    let many = [("demand_function", json!("exponential")), ("elasticity", json!(50.0))];
    refuse(said(steep, &many), "link 1 (row 1 of 'links') has a cost too large");
    let power = [("demand_function", json!("power")), ("elasticity", json!(20.0))];
    refuse(said(reference(1e6), &power), "from 1 to 2 there would be");
}
