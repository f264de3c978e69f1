//! Views of models: tables beside the twins, in the tense of the session.

use super::*;

const HOURS: &str = r#"
[views.heat]
description = "How hot machines have been."
sql = "SELECT machine_id, count(*) AS readings, max(temperature_c) AS hottest_c FROM twin.machine_history GROUP BY machine_id"
[views.heat.columns]
hottest_c = { description = "The highest.", unit = "°C" }
"#;

/// The plant's models with another end of the machine's file.
fn with(text: &str) -> Vec<(String, String)> {
    let mut models = plant::models();
    for (file, own) in &mut models {
        if file == "machine.toml" {
            own.push_str(text);
        }
    }
    models
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_is_a_table_in_the_tense_of_the_session() {
    let city = City::with(with(HOURS), plant::scenarios()).await;
    // Also before there is a row.
    city.twins.check_views().await.unwrap();
    assert_eq!(city.ask("SELECT count(*) FROM twin.machine_heat").await, ["0"]);
    city.build_plant().await;
    let all = "SELECT machine_id, readings, hottest_c FROM twin.machine_heat ORDER BY machine_id";
    assert_eq!(city.ask(all).await, ["1 | 3 | 48.0", "2 | 2 | 50.0", "3 | 1 | 20.0"]);
    let session = city.session();
    session.sql("SET twin.as_of = '2026-01-01T00:00:05Z'").await.unwrap();
    assert_eq!(ask(&session, all).await, ["1 | 1 | 40.0", "2 | 1 | 50.0", "3 | 1 | 20.0"]);
    assert_eq!(city.ask(all).await.len(), 3, "other sessions are where they were");
    // It joins like any table, and rows that come are seen.
    city.write(
        "plant.reading",
        "plant/more",
        plant::reading_rows(&[plant::reading(3, 50, "running", 99.0)]),
        None,
    )
    .await;
    let joined = "SELECT m.machine_id, h.hottest_c FROM twin.machine AS m JOIN twin.machine_heat AS h \
                  ON h.machine_id = m.machine_id WHERE h.hottest_c > 60";
    assert_eq!(city.ask(joined).await, ["3 | 99.0"]);
    let told = "SELECT name, description FROM meta.twin_views";
    assert_eq!(city.ask(told).await, ["machine_heat | How hot machines have been."]);
    let column = "SELECT name, unit, source FROM meta.twin_properties WHERE model = 'machine_heat'";
    assert_eq!(city.ask(column).await, ["hottest_c | °C | view"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_that_cannot_be_are_refused_with_their_place() {
    for (from, to, shown) in [
        ("temperature_c)", "temperatur_c)", "temperatur_c"),
        ("FROM twin.machine_history", "FROM plant.reading", "asks plant.reading"),
        ("hottest_c = {", "hotest_c = {", "has no column 'hotest_c'"),
        ("SELECT machine_id", "SELCT machine_id", "view 'heat' of twin model 'machine'"),
        ("FROM twin.machine_history", "FROM twin.machine_heat", "stands on itself"),
    ] {
        assert!(HOURS.contains(from), "{from}");
        let city = City::with(with(&HOURS.replacen(from, to, 1)), plant::scenarios()).await;
        let error = city.twins.check_views().await.unwrap_err().to_string();
        assert!(error.contains(shown), "{to}: {error}");
    }
    for (name, shown) in [("history", "cannot be the name"), ("Heat", "cannot be the name")] {
        let models = with(&HOURS.replace("views.heat", &format!("views.{name}")));
        let engine = City::plant().await.engine;
        let error = Twins::load(&engine, models, Vec::new()).unwrap_err().to_string();
        assert!(error.contains(shown) && error.contains("machine.toml"), "{error}");
    }
    let mut models = with(HOURS);
    let other = plant::models().into_iter().find(|(file, _)| file == "asset.toml").unwrap().1;
    models.push(("heat.toml".to_owned(), other.replacen("name = \"asset\"", "name = \"machine_heat\"", 1)));
    let engine = City::plant().await.engine;
    let error = Twins::load(&engine, models, Vec::new()).unwrap_err().to_string();
    assert!(error.contains("has the name of a model"), "{error}");
}
