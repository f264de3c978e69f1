//! Scenarios: the fork, the overrides, and nothing else.

use super::{CLOSED, City, FORK_US, Reading, ask};

const AT_FORK: &str = "'2018-10-09T04:33:00Z'";

#[tokio::test]
async fn a_scenario_without_overrides_is_the_city_at_the_fork() {
    let city = City::new().await;
    city.build_town().await;
    let vehicle = |ts, speed| Reading {
        vehicle: "a",
        ts: Some(ts),
        known: Some(ts),
        speed,
        mode: "bus",
        ..Reading::default()
    };
    city.drive(&[vehicle(FORK_US - 1, 1.0), vehicle(FORK_US + 1, 2.0)], Some(1)).await;
    for simulated in [false, true] {
        if simulated {
            city.rows("SELECT * FROM simulate('traffic_assignment')").await;
        }
        for (model, key) in [("vehicle", "vehicle_id"), ("road_segment", "road_segment_id")] {
            let base =
                city.rows(&format!("SELECT * FROM twin_at('{model}', {AT_FORK}) ORDER BY {key}")).await;
            for instant in [AT_FORK, "'2018-10-09T05:30:00Z'", "NULL"] {
                let sql = format!(
                    "SELECT * FROM twin_at('{model}', {instant}, scenario => 'unchanged') ORDER BY {key}"
                );
                assert_eq!(city.rows(&sql).await, base, "{sql}");
            }
            assert!(base.iter().any(|batch| batch.num_rows() > 0));
        }
    }
    assert_eq!(city.ask("SELECT speed_mps FROM twin.vehicle").await, ["2.0"], "the city itself went on");
}

#[tokio::test]
async fn overrides_hold_from_the_fork_on_and_touch_nothing_else() {
    let city = City::new().await;
    city.build_town().await;
    let session = city.session();
    session.sql("SET twin.scenario = 'closed'").await.unwrap();
    let sql =
        "SELECT name, closed, origin, scenario, count(*) FROM twin.road_segment GROUP BY ALL ORDER BY 1";
    let sql = sql.replace("GROUP BY ALL", "GROUP BY name, closed, origin, scenario");
    let with = ["Bridge | true | simulated | closed | 2", "Detour | false | observed |  | 6"];
    let without = ["Bridge | false | observed |  | 2", "Detour | false | observed |  | 6"];
    assert_eq!(ask(&session, &sql).await, with);
    session.sql("SET twin.as_of = '2018-10-09T04:32:59Z'").await.unwrap();
    assert_eq!(ask(&session, &sql).await, without);
    session.sql("SET twin.as_of = '2018-10-09T05:30:00Z'").await.unwrap();
    assert_eq!(ask(&session, &sql).await, with);
    session.sql("RESET twin.scenario").await.unwrap();
    assert_eq!(ask(&session, &sql).await, without);
    let closed =
        "SELECT valid_time FROM twin_at('road_segment', NULL, scenario => 'closed') WHERE closed LIMIT 1";
    assert_eq!(city.ask(closed).await, ["2018-10-09T04:33:00Z"]);
}

#[tokio::test]
async fn values_are_computed_from_the_old_ones_in_the_order_given() {
    let city = City::new().await;
    city.build_town().await;
    let text = r#"
name = "slow"
description = "Half the capacity everywhere, and a quarter on the bridge."
[[overrides]]
twin = "road_segment"
compute = { capacity_vph = "capacity_vph / 2" }
[[overrides]]
twin = "road_segment"
where = "name = 'Bridge'"
compute = { capacity_vph = "capacity_vph / 2" }
set = { lanes = 3 }
"#;
    city.twins.add_scenario("slow.toml", text).unwrap();
    let sql = "SELECT DISTINCT name, capacity_vph, lanes FROM twin_at('road_segment', NULL, scenario => 'slow') ORDER BY 1";
    assert_eq!(city.ask(sql).await, ["Bridge | 450.0 | 3.0", "Detour | 900.0 | 1.0"]);
}

#[tokio::test]
async fn sql_that_cannot_hold_is_refused_when_the_scenario_is_read() {
    let city = City::new().await;
    for (condition, shown) in
        [("nam = 'Bridge'", "nam"), ("name +", "name +"), ("st_nothing(geom)", "st_nothing")]
    {
        let text = CLOSED.replace("name = 'Bridge'", condition);
        let error = city.twins.add_scenario("bad.toml", &text).unwrap_err().to_string();
        assert!(error.contains(shown) && error.contains("closed"), "{condition}: {error}");
        assert!(error.contains("bad.toml:8:"), "{condition}: {error}");
    }
}

#[tokio::test]
async fn models_are_held_against_each_other_and_the_place_is_shown() {
    let city = City::new().await;
    for (from, to, shown) in [
        ("twin = \"road_segment\"", "twin = \"road_segmant\"", "did you mean 'road_segment'?"),
        ("mode IN ('bus', 'tram')", "moode IN ('bus', 'tram')", "moode"),
    ] {
        let mut models = super::models();
        assert!(models[0].1.contains(from));
        models[0].1 = models[0].1.replace(from, to);
        let error = crate::Twins::load(&city.engine, models, Vec::new()).unwrap_err().to_string();
        assert!(error.contains(shown) && error.contains("vehicle.toml:"), "{error}");
    }
}
