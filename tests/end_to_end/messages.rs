//! What becomes of each kind of message in the Helsinki capture: every one is a row or a reject.

use crate::demo::demo;
use crate::support::{number, rows};

#[test]
fn rows_and_rejects_are_all_the_messages() {
    let folder = demo().0.path();
    let landed = number(folder, "SELECT count(*) FROM traffic.vehicle_position");
    let rejected = number(folder, "SELECT count(*) FROM meta.rejects WHERE pipeline = 'helsinki-vehicles'");
    assert_eq!(landed + rejected, 3000);
    assert_eq!(number(folder, "SELECT count(*) FROM raw.hfp"), 3000);
    // Each raw message is found again, by its sequence, in exactly one of the two.
    let lost = "SELECT count(*) FROM raw.hfp r WHERE r._sequence NOT IN (SELECT _sequence FROM traffic.vehicle_position) \
                AND r._sequence NOT IN (SELECT _sequence FROM meta.rejects WHERE pipeline = 'helsinki-vehicles')";
    assert_eq!(number(folder, lost), 0);
}

#[test]
fn null_positions_are_rejects_with_their_payload() {
    let folder = demo().0.path();
    assert_eq!(number(folder, "SELECT count(*) FROM meta.rejects WHERE reason = 'missing_value'"), 87);
    let with_payload = "SELECT count(*) FROM meta.rejects WHERE reason = 'missing_value' \
                        AND CAST(payload AS VARCHAR) LIKE '%\"lat\":null%'";
    assert_eq!(number(folder, with_payload), 87);
}

#[test]
fn repeats_of_a_vehicle_and_its_time_stamp_are_rejects() {
    let folder = demo().0.path();
    // 71 messages with a position repeat a vehicle (operator and number in the topic) and its time stamp; 7 of them are
    // the same message bit by bit.
    assert_eq!(number(folder, "SELECT count(*) FROM meta.rejects WHERE reason = 'duplicate'"), 71);
    let exact =
        "SELECT coalesce(sum(n - 1), 0) FROM (SELECT count(*) AS n FROM raw.hfp GROUP BY origin, payload)";
    assert_eq!(number(folder, exact), 7);
    let keys = "SELECT count(*) FROM (SELECT DISTINCT vehicle_id, ts FROM traffic.vehicle_position)";
    assert_eq!(number(folder, keys), number(folder, "SELECT count(*) FROM traffic.vehicle_position"));
}

#[test]
fn stale_readings_land_but_do_not_set_the_state_back() {
    let folder = demo().0.path();
    let stale = "SELECT count(*) FROM traffic.vehicle_position WHERE ts < TIMESTAMP '2018-10-09T04:32:00Z'";
    assert_eq!(number(folder, stale), 3);
    let set_back = "SELECT count(*) FROM twin.vehicle t JOIN (SELECT vehicle_id, max(ts) AS newest FROM \
                    traffic.vehicle_position GROUP BY vehicle_id) p USING (vehicle_id) WHERE t.valid_time <> p.newest";
    assert_eq!(number(folder, set_back), 0);
}

#[test]
fn topics_with_spaces_and_letters_beyond_ascii_arrive_unchanged() {
    let folder = demo().0.path();
    assert_eq!(number(folder, "SELECT count(*) FROM raw.hfp WHERE origin LIKE '% %'"), 371);
    assert!(number(folder, "SELECT count(*) FROM raw.hfp WHERE origin LIKE '%Mellunmäki(M)%'") > 0);
}

#[test]
fn positions_outside_the_map_stay_unmatched_visibly() {
    let folder = demo().0.path();
    let by_match = rows(
        folder,
        "SELECT road_segment_id IS NOT NULL AS matched, count(*) AS vehicles, max(road_distance_m) AS farthest_m \
         FROM twin.vehicle GROUP BY 1 ORDER BY 1",
    );
    assert_eq!(by_match.len(), 2, "{by_match:?}");
    let (unmatched, matched) = (&by_match[0], &by_match[1]);
    assert!(unmatched["vehicles"].as_i64().unwrap() > matched["vehicles"].as_i64().unwrap(), "{by_match:?}");
    assert!(matched["vehicles"].as_i64().unwrap() > 50, "{by_match:?}");
    assert!(unmatched["farthest_m"].is_null(), "{by_match:?}");
    let latitudes =
        &rows(folder, "SELECT min(st_y(geom)) AS south, max(st_y(geom)) AS north FROM twin.vehicle")[0];
    assert!(
        latitudes["south"].as_f64().unwrap() < 60.1 && latitudes["north"].as_f64().unwrap() > 64.0,
        "{latitudes:?}"
    );
}
