//! Relations: edges are where both ends are, in every tense; ways are the best there are.

use super::plant::{reading, reading_rows};
use super::{City, ask};

#[tokio::test]
async fn without_any_row_there_is_no_edge() {
    let city = City::plant().await;
    assert_eq!(city.ask("SELECT count(*) FROM twin.relations").await, ["0"]);
    assert!(city.ask("SELECT * FROM twin_reach('pipe', 'well', 'feeds')").await.is_empty());
    assert!(city.ask("SELECT * FROM twin_path('pipe/well', 'pipe/hall')").await.is_empty());
}

#[tokio::test]
async fn an_edge_is_there_as_long_as_both_its_ends_are() {
    let city = City::plant().await;
    city.build_plant().await;
    let cells = "SELECT from_id, to_id FROM twin.relations WHERE relation = 'cell' ORDER BY 1";
    assert_eq!(city.ask(cells).await, ["1 | cell-a", "3 | cell-b"], "machine 2 has been removed");
    let session = city.session();
    session.sql("SET twin.as_of = '2026-01-01T00:00:09Z'").await.unwrap();
    assert_eq!(ask(&session, cells).await, ["1 | cell-a", "2 | cell-a", "3 | cell-b"]);
    session.sql("SET twin.as_of = '2025-12-31'").await.unwrap();
    assert!(ask(&session, cells).await.is_empty());
    // It comes back with its next reading.
    city.write("plant.reading", "plant/more", reading_rows(&[reading(2, 30, "running", 20.0)]), Some(1))
        .await;
    assert_eq!(city.ask(cells).await, ["1 | cell-a", "2 | cell-a", "3 | cell-b"]);
}

#[tokio::test]
async fn a_scenario_cuts_what_it_closes_and_nothing_else() {
    let city = City::plant().await;
    city.build_plant().await;
    let reach = |scenario: &str| {
        format!("SELECT id FROM twin_reach('pipe', 'well', 'feeds'{scenario}) ORDER BY hops, id")
    };
    assert_eq!(city.ask(&reach("")).await, ["main", "bypass", "hall", "short"]);
    assert_eq!(city.ask(&reach(", scenario => 'dry'")).await, ["main"]);
    let session = city.session();
    session.sql("SET twin.scenario = 'dry'").await.unwrap();
    assert_eq!(ask(&session, &reach("")).await.len(), 4, "the session's settings do not enter");
    let edges = "SELECT count(*) FROM twin.relations WHERE relation = 'flow'";
    assert_eq!(ask(&session, edges).await, ["4"]);
    assert_eq!(city.ask(edges).await, ["6"]);
}

#[tokio::test]
async fn what_a_relation_does_not_ask_for_is_not_read() {
    let city = City::plant().await;
    city.build_plant().await;
    let sql = "EXPLAIN SELECT * FROM twin.relations WHERE relation = 'parent'";
    let plan = city.ask(sql).await.join("\n");
    assert!(!plan.contains("to_node") && plan.contains("parent_id"), "{plan}");
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_the_way_out() {
    let city = City::plant().await;
    let session = city.session();
    for (sql, hint) in [
        ("SELECT * FROM twin_reach('pipes', 'well', 'feeds')", "did you mean 'pipe'?"),
        ("SELECT * FROM twin_reach('pipe', 'well', 'fedes')", "did you mean 'feeds'?"),
        ("SELECT * FROM twin_reach('pipe', 'well', 'feeds', 'down')", "'upstream'"),
        ("SELECT * FROM twin_reach('pipe', 'well', 'feeds', max_hops => -1)", "negative"),
        ("SELECT * FROM twin_reach('pipe')", "needs a model and a key"),
        ("SELECT * FROM twin_path('well', 'hall')", "write model/key"),
        ("SELECT * FROM twin_path('pipe/well', 'pipe/hall', by => 'time')", "'hops' or 'weight'"),
        ("SELECT * FROM twin_path('pipe/well', 'pipe/hall', scenario => 'dri')", "did you mean 'dry'?"),
    ] {
        let shown = session.collect(sql).await.unwrap_err().to_string();
        assert!(shown.contains(hint), "{sql}: {shown}");
    }
}

#[tokio::test]
async fn relations_are_held_against_the_models_they_name() {
    let city = City::plant().await;
    for (from, to, shown) in [
        ("other = \"from_node\"", "other = \"from_nod\"", "did you mean 'from_node'?"),
        ("other = \"from_node\"", "other = \"length_m\"", "compares a int64 with the float64 'length_m'"),
        ("property = \"to_node\"", "property = \"to_nod\"", "did you mean 'to_node'?"),
        ("property = \"to_node\"", "", "give either property"),
        ("weight = \"length_m\"", "weight = \"pipe_id\"", "is not a number"),
        ("weight = \"length_m\"", "weight = \"width_m\"", "width_m"),
        ("type = \"feeds\"", "type = \"feed\"", "feed"),
        ("where = \"open\"", "heading = \"length_m\"", "takes no 'heading'"),
        ("version = 2", "version = 0", "begin with 1"),
    ] {
        let mut models = super::plant::models();
        assert!(models[0].1.contains(from), "{from}");
        models[0].1 = models[0].1.replace(from, to);
        let error = crate::Twins::load(&city.engine, models, Vec::new()).unwrap_err().to_string();
        assert!(error.contains(shown) && error.contains("pipe.toml"), "{to}: {error}");
    }
    let mut models = super::plant::models();
    models[2].1 = models[2].1.replace("state = 'removed'", "stat = 'removed'");
    let error = crate::Twins::load(&city.engine, models, Vec::new()).unwrap_err().to_string();
    assert!(error.contains("lifecycle") && error.contains("machine.toml:"), "{error}");
}
