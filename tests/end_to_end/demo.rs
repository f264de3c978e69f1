//! `twinlake demo --once` in an empty folder: the README's first command.

use std::path::Path;
use std::sync::OnceLock;

use crate::support::{free_port, number, rows, succeed};

/// The folder in which the demo has run once, and what it printed.
pub fn demo() -> &'static (tempfile::TempDir, String) {
    static DEMO: OnceLock<(tempfile::TempDir, String)> = OnceLock::new();
    DEMO.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let printed = run_demo(folder.path());
        (folder, printed)
    })
}

/// Runs the demo at ten times the original pace on free ports.
pub fn run_demo(folder: &Path) -> String {
    let address = || format!("127.0.0.1:{}", free_port());
    let (http, postgres, mqtt) = (address(), address(), address());
    let arguments = [
        "demo",
        "--once",
        "--speed",
        "10",
        "--no-progress",
        "--http",
        &http,
        "--postgres",
        &postgres,
        "--mqtt",
        &mqtt,
    ];
    succeed(folder, &arguments)
}

#[test]
fn prints_what_landed_live_lines_two_instants_and_the_what_if() {
    let (_, printed) = demo();
    for expected in [
        "traffic.vehicle_position",
        "map.road_link",
        "missing_value",
        "duplicate",
        "bridge-closed",
        "factory.machine_reading",
        "bracket-milling",
        "Siltasaari works",
        "http://127.0.0.1:",
    ] {
        assert!(printed.contains(expected), "'{expected}' is missing in:\n{printed}");
    }
}

#[test]
fn leaves_a_lake_with_the_map_the_vehicles_and_three_runs() {
    let folder = demo().0.path();
    assert_eq!(number(folder, "SELECT count(*) FROM raw.hfp"), 3000);
    assert!(number(folder, "SELECT count(*) FROM map.road_link") > 1000);
    assert!(number(folder, "SELECT count(*) FROM map.building") > 400);
    let runs = rows(
        folder,
        "SELECT name, scenario, status FROM meta.runs WHERE kind = 'simulation' ORDER BY scenario NULLS FIRST",
    );
    assert_eq!(runs.len(), 3, "{runs:?}");
    assert!(
        runs.iter().all(|run| run["name"] == "traffic_assignment" && run["status"] == "succeeded"),
        "{runs:?}"
    );
    assert_eq!(runs[1]["scenario"], "bridge-closed");
}

#[test]
fn a_closed_street_carries_nothing_and_its_flow_goes_elsewhere() {
    let folder = demo().0.path();
    let sql = "SELECT sum(CASE WHEN closed THEN flow_vph ELSE 0 END) AS on_closed, sum(CASE WHEN closed THEN 1 ELSE 0 END) \
               AS closed FROM twin_at('road_segment', TIMESTAMP '2018-10-09T05:30:00Z', scenario => 'bridge-closed')";
    let closed = &rows(folder, sql)[0];
    assert!(closed["closed"].as_i64().unwrap() > 0, "{closed:?}");
    assert_eq!(closed["on_closed"].as_f64().unwrap(), 0.0);
    let moved = number(
        folder,
        "SELECT count(*) FROM twin_at('road_segment', TIMESTAMP '2018-10-09T05:30:00Z') b JOIN \
         twin_at('road_segment', TIMESTAMP '2018-10-09T05:30:00Z', scenario => 'bridge-closed') s USING (road_segment_id) \
         WHERE abs(b.flow_vph - s.flow_vph) > 1",
    );
    assert!(moved > 10, "{moved} links changed");
}

/// The one query of the README, and its answer.
#[test]
fn one_query_joins_a_plant_its_street_and_its_power() {
    let sql = "SELECT s.name AS plant, r.name AS street, round(s.road_distance_m, 1) AS road_m, round(r.flow_vph, 0) AS flow_vph, \
               s.power_bus, p.running, p.machines, round(p.spindle_power_kw, 1) AS spindle_kw \
               FROM twin.site AS s JOIN twin.road_segment AS r ON r.road_segment_id = s.road_segment_id \
               JOIN twin.site_power AS p ON p.site_id = s.site_id ORDER BY s.site_id";
    let found = rows(demo().0.path(), sql);
    let told = |row: usize, column: &str| found[row][column].clone();
    assert_eq!((told(0, "plant"), told(1, "plant")), ("Kluuvi workshop".into(), "Siltasaari works".into()));
    assert_eq!((told(0, "street"), told(1, "street")), ("Kaisaniemenkatu".into(), "Siltasaarenkatu".into()));
    assert_eq!((told(0, "power_bus"), told(1, "power_bus")), (27.into(), 14.into()));
    assert_eq!((told(0, "spindle_kw"), told(1, "spindle_kw")), (10.4.into(), 28.1.into()));
    assert_eq!((told(0, "running"), told(1, "running")), (2.into(), 4.into()));
    assert!(found.iter().all(|row| row["flow_vph"].is_number()), "{found:?}");
}

#[test]
fn oee_is_that_of_the_standard_over_the_spells_of_the_machines() {
    let folder = demo().0.path();
    assert_eq!(number(folder, "SELECT count(*) FROM factory.machine_reading"), 1930);
    // The same by another way: the pieces of time of twin_between, over the whole of it.
    let between = "WITH spell AS (SELECT machine_id, state, operation, planned_run_time_s, held_until, \
         date_part('epoch', held_until) - date_part('epoch', held_from) AS s \
         FROM twin_between('machine', '2018-10-08T00:00:00Z', '2018-10-10T00:00:00Z')), \
         own AS (SELECT * FROM spell WHERE held_until < TIMESTAMP '2018-10-10T00:00:00Z') \
         SELECT machine_id, round(sum(CASE WHEN state = 'running' THEN s ELSE 0 END) / sum(s) \
         * (sum(planned_run_time_s) / sum(CASE WHEN state = 'running' THEN s ELSE 0 END)) \
         * (1 - CAST(sum(CASE WHEN operation = 'repair' THEN 1 ELSE 0 END) AS DOUBLE) / sum(CASE WHEN operation = 'processing' THEN 1 ELSE 0 END)), 6) AS oee \
         FROM own GROUP BY machine_id ORDER BY machine_id";
    let view =
        rows(folder, "SELECT machine_id, round(oee, 6) AS oee FROM twin.machine_oee ORDER BY machine_id");
    assert_eq!(view, rows(folder, between));
    assert_eq!((view.len(), &view[0]["oee"], &view[5]["oee"]), (6, &0.861_81.into(), &0.509_313.into()));
    // Of a line: over the sums of its machines.
    let lines = rows(
        folder,
        "SELECT line_id, machines, round(oee, 6) AS oee FROM twin.production_line_oee ORDER BY 1",
    );
    assert_eq!((&lines[0]["oee"], &lines[1]["oee"]), (&0.552_982.into(), &0.842_868.into()));
    // In another tense: what was there up to then.
    let then =
        rows(folder, "SELECT count(*) AS machines FROM twin_at('machine', TIMESTAMP '2018-10-08T08:00:00Z')");
    assert_eq!(then[0]["machines"], 1);
}

#[test]
fn machines_are_part_of_cells_lines_and_sites_and_everything_has_its_district() {
    let folder = demo().0.path();
    let up = rows(folder, "SELECT model, id FROM twin_reach('machine', 'mill-3', 'part_of')");
    let up: Vec<(&str, &str)> =
        up.iter().map(|row| (row["model"].as_str().unwrap(), row["id"].as_str().unwrap())).collect();
    assert_eq!(up, [("cell", "finishing"), ("production_line", "gear-housings"), ("site", "siltasaari")]);
    let edges = "SELECT count(*) FROM twin.relations WHERE relation = 'district' AND from_model =";
    assert_eq!(number(folder, &format!("{edges} 'building'")), 444);
    assert_eq!(number(folder, &format!("{edges} 'stop'")), 132);
    assert!(
        number(
            folder,
            "SELECT count(*) FROM twin.relations WHERE from_model = 'line' AND to_model = 'vehicle'"
        ) > 50
    );
    // Each failure of the data set is a spell of the state failed.
    assert_eq!(number(folder, "SELECT count(*) FROM twin.machine_history WHERE state = 'failed'"), 109);
    assert_eq!(number(folder, "SELECT count(*) FROM twin.machine_history WHERE state = 'stopped'"), 21);
}

#[test]
fn two_demos_give_the_same_rows() {
    let other = tempfile::tempdir().unwrap();
    run_demo(other.path());
    for sql in [
        "SELECT vehicle_id, ts, st_astext(geom) AS geom, speed_mps, heading_deg, line FROM traffic.vehicle_position ORDER BY 1, 2",
        "SELECT link_id, from_node, to_node, length_m, lanes, speed_kmh, capacity_vph, st_astext(geom) AS geom FROM map.road_link ORDER BY 1",
        "SELECT machine_id, ts, operation, udi, torque_nm, failure_modes FROM factory.machine_reading ORDER BY 1, 2",
        "SELECT scenario, road_segment_id, flow_vph, travel_time_s FROM simulation.link_flow ORDER BY 1, 2",
        "SELECT reason, detail, origin, count(*) AS n FROM meta.rejects GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    ] {
        assert_eq!(rows(demo().0.path(), sql), rows(other.path(), sql), "{sql}");
    }
}
