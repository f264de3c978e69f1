//! One instance from memory is what SQL says of it.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;

use super::plant::{reading, reading_rows};
use super::{City, Reading};

async fn same(city: &City, model: &str, key: &str, condition: &str) {
    let sql = city.rows(&format!("SELECT * FROM twin.{model} WHERE {condition}")).await;
    let direct = city.twins.present_of(model, key).await.unwrap().expect("a chain");
    let expected = match sql.first() {
        Some(first) => concat_batches(&first.schema(), &sql).unwrap(),
        None => RecordBatch::new_empty(direct.schema()),
    };
    assert_eq!(direct, expected, "{model} {key}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_point_read_is_what_sql_says() {
    let city = City::new().await;
    let vehicle = |vehicle, x: f64, sequence: i64| Reading {
        vehicle,
        ts: Some(1_000_000),
        known: Some(2_000_000),
        sequence: Some(sequence),
        speed: sequence as f64,
        position: Some((x, super::LATITUDE + 0.0001)),
        heading: Some(92.0),
        mode: "bus",
    };
    city.drive(&[vehicle("22/1", 24.903, 1), vehicle("22/2", 25.5, 1)], Some(1)).await;
    assert!(city.twins.present_of("vehicle", "22/1").await.unwrap().is_none(), "not kept in memory");
    city.twins.keep_present().unwrap();
    for (key, town) in [("22/1", false), ("22/2", false), ("22/9", false), ("22/1", true), ("22/2", true)] {
        if town && key == "22/1" {
            // The map comes later: what vehicles are matched to follows it.
            city.build_town().await;
            tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        }
        same(&city, "vehicle", key, &format!("vehicle_id = '{key}'")).await;
    }
    let on = city.twins.present_of("vehicle", "22/1").await.unwrap().unwrap();
    assert_eq!(on.column_by_name("road_segment_id").unwrap().null_count(), 0);
    // A new reading is seen at once.
    city.drive(&[vehicle("22/1", 24.904, 5)], None).await;
    same(&city, "vehicle", "22/1", "vehicle_id = '22/1'").await;
    assert!(city.twins.present_of("vehicel", "x").await.unwrap_err().to_string().contains("'vehicle'?"));
    assert!(city.twins.present_of("road_segment", "1").await.unwrap().is_none(), "a map is asked in SQL");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_read_is_what_sql_says() {
    let city = City::new().await;
    let readings: Vec<Reading> = ["a", "b", "c", "d", "e", "f"]
        .into_iter()
        .zip(0..)
        .map(|(vehicle, at)| Reading {
            vehicle,
            ts: Some(1),
            known: Some(1),
            sequence: Some(1),
            position: (at < 5).then(|| (24.9 + f64::from(at) * 0.01, 60.1)),
            mode: "bus",
            ..Reading::default()
        })
        .collect();
    city.drive(&readings, Some(1)).await;
    city.twins.keep_present().unwrap();
    for (low, high) in [(24.9, 24.92), (24.905, 24.931), (0.0, 1.0), (-180.0, 180.0)] {
        let found = city.twins.present_within("vehicle", [low, 60.0, high, 60.1]).await.unwrap().unwrap();
        let sql = format!(
            "SELECT count(*) FROM twin.vehicle WHERE st_intersects(geom, st_makeenvelope({low}, 60.0, {high}, 60.1))"
        );
        assert_eq!(city.ask(&sql).await, [found.num_rows().to_string()], "{low} to {high}");
    }
    let plant = City::plant().await;
    let error = plant.twins.present_within("machine", [0.0; 4]).await.unwrap_err().to_string();
    assert!(error.contains("no geometry"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_ended_is_not_there_and_number_keys_are_numbers() {
    let city = City::plant().await;
    city.build_plant().await;
    city.twins.keep_present().unwrap();
    for key in ["1", "2", "3", "4", "x"] {
        let condition = key.parse::<i64>().map_or("false".to_owned(), |key| format!("machine_id = {key}"));
        same(&city, "machine", key, &condition).await;
    }
    city.write("plant.reading", "plant/more", reading_rows(&[reading(2, 30, "running", 7.0)]), Some(1)).await;
    same(&city, "machine", "2", "machine_id = 2").await;
    assert_eq!(city.twins.present_of("machine", "2").await.unwrap().unwrap().num_rows(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_depends_on_the_moment_is_asked_in_sql() {
    let mut models = super::plant::models();
    models[2].1 += "[properties.age_s]\ntype = \"float64\"\ndescription = \"Since then.\"\n\
                    sql = \"date_part('epoch', now()) - temperature_c\"\n";
    let city = City::with(models, Vec::new()).await;
    city.build_plant().await;
    city.twins.keep_present().unwrap();
    assert!(city.twins.present_of("machine", "1").await.unwrap().is_none());
    assert_eq!(city.ask("SELECT count(*) FROM twin.machine WHERE age_s > 0").await, ["2"]);
}
