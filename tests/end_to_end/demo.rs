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

#[test]
fn two_demos_give_the_same_rows() {
    let other = tempfile::tempdir().unwrap();
    run_demo(other.path());
    for sql in [
        "SELECT vehicle_id, ts, st_astext(geom) AS geom, speed_mps, heading_deg, line FROM traffic.vehicle_position ORDER BY 1, 2",
        "SELECT link_id, from_node, to_node, length_m, lanes, speed_kmh, capacity_vph, st_astext(geom) AS geom FROM map.road_link ORDER BY 1",
        "SELECT scenario, road_segment_id, flow_vph, travel_time_s FROM simulation.link_flow ORDER BY 1, 2",
        "SELECT reason, detail, origin, count(*) AS n FROM meta.rejects GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    ] {
        assert_eq!(rows(demo().0.path(), sql), rows(other.path(), sql), "{sql}");
    }
}
