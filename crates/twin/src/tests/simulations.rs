//! Runs: computed once, landed once, shown in their scenario.

use serde_json::json;

use super::{City, ask};
use crate::{RunStatus, SimulationRequest};

fn request(scenario: Option<&str>) -> SimulationRequest {
    SimulationRequest {
        operator: "traffic_assignment".to_owned(),
        scenario: scenario.map(str::to_owned),
        seed: 1,
        ..SimulationRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_equal_run_is_answered_from_its_table() {
    let city = City::new().await;
    city.build_town().await;
    let sql = "SELECT * FROM simulate('traffic_assignment', scenario => 'closed', seed => 1) ORDER BY road_segment_id";
    city.rows(&format!("EXPLAIN {sql}")).await;
    assert_eq!(city.ask("SELECT count(*) FROM meta.runs").await, ["0"], "explaining a run does not make it");
    let first = city.rows(sql).await;
    assert_eq!(first.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 8);
    assert_eq!(city.rows(sql).await, first);
    let simulations = city.twins.simulations();
    let run_id = simulations.submit(request(Some("closed"))).await.unwrap();
    let run = simulations.wait(&run_id).await.unwrap();
    assert!(matches!(run.status, RunStatus::Succeeded) && run.reused, "{run:?}");
    assert_eq!(run.summary["converged"], json!(true));
    assert_eq!(run.summary["demand_unassigned"], json!(0.0));
    assert!(run.inputs.contains_key("map.road_link") && run.inputs.contains_key("map.building"), "{run:?}");
    let recorded = "SELECT run_id, name, status, scenario, seed, \"rows\" FROM meta.runs";
    assert_eq!(
        city.ask(recorded).await,
        [format!("{run_id} | traffic_assignment | succeeded | closed | 1 | 8")]
    );
    // Another seed is another run, and so is another parameter.
    let other = simulations.submit(SimulationRequest { seed: 2, ..request(Some("closed")) }).await.unwrap();
    assert_ne!(other, run_id);
    simulations.wait(&other).await.unwrap();
    // A process that starts anew finds the run in the lake.
    let (_engine, twins) = city.reopened();
    let again = twins.simulations().submit(request(Some("closed"))).await.unwrap();
    assert_eq!(again, run_id);
    let found = twins.simulations().wait(&again).await.unwrap();
    assert!(found.reused && found.rows == 8 && found.parameters == run.parameters, "{found:?}");
    assert_eq!(city.ask("SELECT count(*) FROM meta.runs").await, ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_twice_at_once_a_run_is_computed_once() {
    let city = City::new().await;
    city.build_town().await;
    let simulations = city.twins.simulations();
    let (one, two) = tokio::join!(simulations.submit(request(None)), simulations.submit(request(None)));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one, two);
    simulations.wait(&one).await.unwrap();
    assert_eq!(city.ask("SELECT count(*) FROM meta.runs").await, ["1"]);
    assert_eq!(city.ask("SELECT count(*) FROM simulation.link_flow").await, ["8"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_future_is_read_like_the_past() {
    let city = City::new().await;
    city.build_town().await;
    city.rows("SELECT * FROM simulate('traffic_assignment')").await;
    city.rows("SELECT * FROM simulate('traffic_assignment', scenario => 'closed')").await;
    let session = city.session();
    let sql = "SELECT name, min(origin), min(scenario), sum(flow_vph) > 0, count(travel_time_s) FROM twin.road_segment GROUP BY name ORDER BY 1";
    assert_eq!(
        ask(&session, sql).await,
        ["Bridge | simulated |  | true | 2", "Detour | simulated |  | true | 6"]
    );
    session.sql("SET twin.scenario = 'closed'").await.unwrap();
    session.sql("SET twin.as_of = '2018-10-09T05:30:00Z'").await.unwrap();
    assert_eq!(
        ask(&session, sql).await,
        ["Bridge | simulated | closed | false | 0", "Detour | simulated | closed | true | 6"]
    );
    session.sql("SET twin.as_of = '2018-10-09T04:32:59Z'").await.unwrap();
    assert_eq!(
        ask(&session, sql).await,
        ["Bridge | simulated |  | true | 2", "Detour | simulated |  | true | 6"],
        "before its fork a scenario is the city as it is"
    );
    // A scenario that was not simulated does not borrow the flows of the open street.
    city.twins.add_scenario("other.toml", &super::CLOSED.replace("\"closed\"", "\"other\"")).unwrap();
    let other = "SELECT count(flow_vph) FROM twin_at('road_segment', NULL, scenario => 'other')";
    assert_eq!(city.ask(other).await, ["0"]);
    // Each run is a part of the history.
    let history = "SELECT origin, count(*) FROM twin_at('road_segment_history', NULL) GROUP BY 1 ORDER BY 1";
    assert_eq!(city.ask(history).await, ["observed | 8", "simulated | 8"]);
    assert_eq!(city.ask("SELECT count(*) FROM twin.road_segment_history").await, ["16"]);
    assert_eq!(city.ask("SELECT count(*) FROM twin.road_segment").await, ["8"]);
    let diff = city.twins.scenario_diff_sql("traffic_assignment", "closed", 3).unwrap();
    let most = city.ask(&format!("SELECT name, scenario_flow_vph, change < 0 FROM ({diff})")).await;
    assert_eq!(most.len(), 3);
    assert_eq!(most[0], "Bridge | 0.0 | true");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_city_gives_the_same_run_on_every_machine() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let city = City::new().await;
        city.build_town().await;
        let rows = city
            .rows("SELECT * EXCLUDE (known_time) FROM simulate('traffic_assignment', scenario => 'closed') ORDER BY road_segment_id")
            .await;
        runs.push(rows);
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_says_why_and_is_recorded() {
    let city = City::new().await;
    let simulations = city.twins.simulations();
    let shown = simulations.submit(request(None)).await.unwrap_err().to_string();
    assert!(shown.contains("map.road_node"), "{shown}");
    city.build_town().await;
    let bad =
        SimulationRequest { parameters: [("relative_gap".to_owned(), json!(-1.0))].into(), ..request(None) };
    let run_id = simulations.submit(bad).await.unwrap();
    let shown = simulations.wait(&run_id).await.unwrap_err().to_string();
    assert!(shown.contains("relative_gap"), "{shown}");
    assert_eq!(city.ask("SELECT status FROM meta.runs").await, ["failed"]);
    let elsewhere = SimulationRequest { as_of_us: Some(5), ..request(Some("closed")) };
    let shown = simulations.submit(elsewhere).await.unwrap_err().to_string();
    assert!(shown.contains("forks at another instant"), "{shown}");
    let missing = simulations.status("traffic-assignment-0").await.unwrap_err().to_string();
    assert!(missing.contains("run 'traffic-assignment-0' not found"), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_run_that_died_before_its_record_are_taken_not_doubled() {
    let city = City::new().await;
    city.build_town().await;
    let run_id = city.twins.simulations().submit(request(None)).await.unwrap();
    city.twins.simulations().wait(&run_id).await.unwrap();
    let rows = city.twins.simulations().result(&run_id).await.unwrap();
    let rows = arrow::compute::concat_batches(&rows[0].schema(), &rows).unwrap();
    // The same city, where a process died between the two commits.
    let other = City::new().await;
    other.build_town().await;
    other.write("simulation.link_flow", &format!("simulation/{run_id}"), rows, Some(1)).await;
    assert_eq!(other.twins.simulations().submit(request(None)).await.unwrap(), run_id);
    let run = other.twins.simulations().wait(&run_id).await.unwrap();
    assert_eq!(run.rows, 8);
    assert_eq!(other.ask("SELECT count(*) FROM simulation.link_flow").await, ["8"]);
    assert_eq!(other.ask("SELECT run_id FROM meta.runs").await, [run_id]);
}
