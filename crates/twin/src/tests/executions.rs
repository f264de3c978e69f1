//! Scenarios that say what is run in them: in order, as ensembles, the same on any number of threads.

use std::sync::Arc;

use twinlake_query::{Engine, SessionSettings};

use super::{City, ask, models};
use crate::{Execution, ExecutionStatus, Twins};

/// How many want to travel is uncertain.
const ENSEMBLE: &str = r#"
name = "uncertain"
description = "Nobody knows how many want to travel."
horizon_s = 3600
[fork]
at = "2018-10-09T04:33:00Z"
[[overrides]]
twin = "road_segment"
where = "name = 'Bridge'"
compute = { capacity_vph = "capacity_vph / 2" }
[parameters.traffic_assignment]
relative_gap = 1e-6
[[runs]]
operator = "traffic_assignment"
twin = "road_segment"
seed = 5
[ensemble]
members = 4
seed = 7
[ensemble.sample.traffic_assignment]
demand_trips_vph = { lognormal = { median = 4000.0, sigma = 0.3 } }
"#;

/// What was computed of a scenario, without what says when.
const MEMBERS: &str = "SELECT member, road_segment_id, flow_vph, travel_time_s, volume_capacity_ratio, valid_time, run_id \
                       FROM scenario_ensemble('uncertain', 'road_segment')";

/// The shipped models, and one whose operator takes from the road what the assignment said of it.
fn chained() -> Vec<(String, String)> {
    let taken = "r.free_flow_time_s,";
    let (_, road) = models().into_iter().find(|(file, _)| file == "road_segment.toml").unwrap();
    assert!(road.contains(taken));
    let evening = road
        .replacen("name = \"road_segment\"", "name = \"evening\"", 1)
        .replacen("table = \"simulation.link_flow\"", "table = \"simulation.evening_flow\"", 1)
        .replacen(taken, "coalesce(r.travel_time_s, r.free_flow_time_s) AS free_flow_time_s,", 1);
    models().into_iter().chain([("evening.toml".to_owned(), evening)]).collect()
}

/// Two assignments, the second over the times of the first.
fn chain(trips: f64) -> String {
    format!(
        "name = \"chain\"\ndescription = \"One after the other.\"\n[fork]\nat = \"2018-10-09T04:33:00Z\"\n\
         [[runs]]\noperator = \"traffic_assignment\"\ntwin = \"road_segment\"\nparameters = {{ demand_trips_vph = {trips:?} }}\n\
         [[runs]]\noperator = \"traffic_assignment\"\ntwin = \"evening\"\nparameters = {{ demand_trips_vph = 500.0 }}\n"
    )
}

fn names(execution: &Execution) -> Vec<String> {
    execution.runs.iter().map(|run| run.run_id.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_the_same_however_many_run_at_once() {
    let mut answers = Vec::new();
    for at_once in [1, 5] {
        let city = City::new().await;
        city.build_town().await;
        city.twins.run_members_at_once(at_once);
        city.twins.create_scenario(None, ENSEMBLE).await.unwrap();
        let execution = city.twins.run_scenario("uncertain").await.unwrap();
        let members: Vec<u32> = execution.runs.iter().map(|run| run.member).collect();
        assert_eq!((members, &execution.status), (vec![0, 1, 2, 3, 4], &ExecutionStatus::Succeeded));
        answers.push((names(&execution), city.rows(MEMBERS).await));
        // Again: each run is answered from its table, and the execution is not recorded twice.
        let again = city.twins.run_scenario("uncertain").await.unwrap();
        assert_eq!(names(&again), names(&execution));
        assert!(again.runs.iter().all(|run| run.reused) && execution.runs.iter().all(|run| !run.reused));
        assert_eq!(city.ask("SELECT count(*) FROM meta.runs").await, ["5"]);
        assert_eq!(
            city.ask("SELECT count(*), count(DISTINCT execution_id) FROM meta.scenario_runs").await,
            ["5 | 1"]
        );
        // Provenance: the member, what it drew, and all parameters with it.
        let told = city
            .ask("SELECT scenario, seed <> 5, summary LIKE '%\"member\":%', parameters LIKE '%\"relative_gap\":1e-6%' FROM meta.runs ORDER BY 1")
            .await;
        assert_eq!(told[0], "uncertain | false | false | true");
        assert_eq!(told[4], "uncertain/4 | true | true | true");
        let drawn = "SELECT count(DISTINCT parameters), count(DISTINCT seed) FROM meta.runs";
        assert_eq!(city.ask(drawn).await, ["5 | 5"]);
        // The scenario shows itself, a member the member; they differ in what was drawn and in nothing that was set.
        let flows = |scenario: &str| {
            format!("SELECT sum(flow_vph) FROM twin_at('road_segment', NULL, scenario => '{scenario}')")
        };
        let (own, first) = (city.ask(&flows("uncertain")).await, city.ask(&flows("uncertain/1")).await);
        assert_ne!(own, first);
        assert_eq!(city.ask(&flows("uncertain/0")).await, own);
        assert_eq!(
            city.ask(
                "SELECT sum(flow_vph) FROM scenario_ensemble('uncertain', 'road_segment') WHERE member = 1"
            )
            .await,
            first
        );
        let differs = "SELECT DISTINCT property FROM scenario_diff('uncertain', 'uncertain/1') ORDER BY 1";
        assert_eq!(city.ask(differs).await, ["flow_vph", "travel_time_s", "volume_capacity_ratio"]);
        let spread = "SELECT count(*), count(DISTINCT member), min(q) < max(q) FROM (SELECT road_segment_id, count(*) OVER () AS n, member, \
                      median(flow_vph) OVER (PARTITION BY road_segment_id) AS q FROM scenario_ensemble('uncertain', 'road_segment'))";
        assert_eq!(city.ask(spread).await, ["32 | 4 | true"]);
    }
    assert_eq!(answers[0], answers[1], "one at a time and all at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_see_what_came_before_them_and_nothing_else() {
    let city = City::with(chained(), Vec::new()).await;
    city.build_town().await;
    // Before it is run as a whole, what was run in it by itself is shown.
    let alone = "SELECT count(flow_vph) FROM twin_at('evening', NULL, scenario => 'chain')";
    city.twins.create_scenario(None, &chain(50.0)).await.unwrap();
    assert_eq!(city.ask(alone).await, ["0"]);
    city.rows("SELECT * FROM simulate('traffic_assignment', model => 'evening', scenario => 'chain')").await;
    assert_eq!(city.ask(alone).await, ["8"]);
    let run = |trips: f64| {
        let twins = Arc::clone(&city.twins);
        async move {
            twins.create_scenario(None, &chain(trips)).await.unwrap();
            twins.run_scenario("chain").await.unwrap()
        }
    };
    let busy = run(6000.0).await;
    let models: Vec<&str> = busy.runs.iter().map(|run| run.model.as_str()).collect();
    assert_eq!(models, ["road_segment", "evening"]);
    let evening = "SELECT sum(travel_time_s) FROM twin_at('evening', NULL, scenario => 'chain')";
    let road = "SELECT sum(flow_vph) FROM twin_at('road_segment', NULL, scenario => 'chain')";
    let shown = (city.ask(evening).await, city.ask(road).await);
    // Other times on the first road are another input of the second run.
    let quiet = run(100.0).await;
    assert_ne!(names(&quiet)[1], names(&busy)[1]);
    assert_ne!(city.ask(evening).await, shown.0);
    // Back again: both are answered from their tables, and shown, though they are not the newest.
    let again = run(6000.0).await;
    assert_eq!(names(&again), names(&busy));
    assert!(again.runs.iter().all(|run| run.reused));
    assert_eq!((city.ask(evening).await, city.ask(road).await), shown);
    // What is run beside it does not show in it.
    city.rows(
        "SELECT * FROM simulate('traffic_assignment', model => 'evening', scenario => 'chain', demand_trips_vph => 3000.0)",
    )
    .await;
    assert_eq!((city.ask(evening).await, city.ask(road).await), shown);
    // Replaced, it shows nothing until it is run.
    city.twins.create_scenario(None, &chain(200.0)).await.unwrap();
    assert_eq!(city.ask(evening).await, [""]);
    // A process that begins shows what this one does.
    run(6000.0).await;
    let engine = Engine::new(city.lake.clone());
    let twins = Twins::load(&engine, chained(), Vec::new()).unwrap();
    twins.open_scenarios().await.unwrap();
    let session = engine.session(SessionSettings::default()).unwrap();
    assert_eq!((ask(&session, evening).await, ask(&session, road).await), shown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_change_a_run_is_bit_identical_to_the_base() {
    let city = City::new().await;
    city.build_town().await;
    let same = "name = \"same\"\n[fork]\nat = \"2018-10-09T04:33:00Z\"\n[[runs]]\noperator = \"traffic_assignment\"\n";
    city.twins.create_scenario(None, same).await.unwrap();
    city.twins.run_scenario("same").await.unwrap();
    city.rows("SELECT * FROM simulate('traffic_assignment', as_of => '2018-10-09T04:33:00Z')").await;
    let rows = |tense: &str| {
        format!(
            "SELECT * EXCLUDE (known_time, scenario) FROM twin_at('road_segment', '2018-10-09T04:33:00Z'{tense}) ORDER BY road_segment_id"
        )
    };
    let base = city.rows(&rows("")).await;
    assert_eq!(city.rows(&rows(", scenario => 'same'")).await, base);
    assert!(base.iter().any(|batch| batch.num_rows() > 0));
    assert_eq!(city.ask("SELECT count(*) FROM scenario_diff('observed', 'same')").await, ["0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_run_says_why() {
    let city = City::new().await;
    let refused = |from: &str, to: &str| {
        assert!(ENSEMBLE.contains(from), "{from}");
        city.twins.add_scenario("u.toml", &ENSEMBLE.replacen(from, to, 1)).unwrap_err().to_string()
    };
    for (from, to, shown) in [
        (
            "operator = \"traffic_assignment\"",
            "operator = \"traffic_asignment\"",
            "did you mean 'traffic_assignment'?",
        ),
        (
            "twin = \"road_segment\"\nseed",
            "twin = \"vehicle\"\nseed",
            "'vehicle' is not bound to traffic_assignment",
        ),
        ("relative_gap", "relativ_gap", "did you mean 'relative_gap'?"),
        ("demand_trips_vph", "demand_trips", "has no parameter 'demand_trips'"),
        ("lognormal", "lognormall", "unknown variant"),
        ("median = 4000.0", "median = -1.0", "median -1 must be greater than 0"),
        ("members = 4", "members = 0", "an ensemble has 1 to"),
        ("horizon_s = 3600", "horizon_s = -1", "a horizon of -1 s cannot be"),
        ("[fork]\nat = \"2018-10-09T04:33:00Z\"", "", "a horizon without a fork"),
        (
            "[[runs]]\noperator = \"traffic_assignment\"\ntwin = \"road_segment\"\nseed = 5",
            "",
            "an ensemble without runs",
        ),
        ("name = \"uncertain\"", "", "has no name"),
    ] {
        let error = refused(from, to);
        assert!(error.contains(shown) && error.contains("u.toml"), "{to}: {error}");
    }
    city.twins.add_scenario("u.toml", ENSEMBLE).unwrap();
    for (name, shown) in [
        ("closed", "add [[runs]]"),
        ("uncertain/1", "is a member of a scenario"),
        ("uncertian", "did you mean 'uncertain'?"),
    ] {
        let error = city.twins.run_scenario(name).await.unwrap_err().to_string();
        assert!(error.contains(shown), "{error}");
    }
    // There is no map, so the operator has nothing to run on.
    let error = city.twins.run_scenario("uncertain").await.unwrap_err().to_string();
    assert!(error.contains("run 1 (traffic_assignment) of 'uncertain"), "{error}");
    let error = city.twins.scenario("uncertain/5").unwrap_err().to_string();
    assert!(error.contains("its members are 0 to 4"), "{error}");
    let error = city.twins.execution("uncertain-0").unwrap_err().to_string();
    assert!(error.contains("execution 'uncertain-0' not found"), "{error}");
}
