//! The factory of the demo: machines by MQTT, their OEE, and the plant in its city.

use anyhow::Result;
use twinlake_query::Session;

use super::{Replay, show};

/// The machines' capture: 21 hours of a plant, as fast as the broker takes them. Segment 4 of a topic names the machine.
pub(super) const CAPTURE: Replay =
    Replay { file: "factory-machines.capture.txt", speed: 0.0, device_segments: (4, 5) };

/// Shows the OEE of the machines, and a plant, its street and its power in one query.
pub(super) async fn show_plant(session: &Session) -> Result<()> {
    println!("The factory: machines now, and their OEE (ISO 22400-2) since their first reading");
    show(
        session,
        "SELECT m.site_id, m.line_id, m.cell_id, m.machine_id, m.state, round(m.health, 2) AS health, o.produced, o.scrapped, \
         round(o.availability, 3) AS availability, round(o.effectiveness, 3) AS effectiveness, round(o.quality, 3) AS quality, \
         round(o.oee, 3) AS oee FROM twin.machine AS m JOIN twin.machine_oee AS o ON o.machine_id = m.machine_id \
         ORDER BY m.machine_id",
    )
    .await?;
    println!("City and factory in one query: each plant, the street it lies on, the power it draws");
    show(
        session,
        "SELECT s.name AS plant, r.name AS street, round(s.road_distance_m, 1) AS road_m, round(r.flow_vph, 0) AS flow_vph, \
         s.power_bus, p.running, p.machines, round(p.spindle_power_kw, 1) AS spindle_kw \
         FROM twin.site AS s JOIN twin.road_segment AS r ON r.road_segment_id = s.road_segment_id \
         JOIN twin.site_power AS p ON p.site_id = s.site_id ORDER BY s.site_id",
    )
    .await
}
