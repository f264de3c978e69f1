//! `twinlake demo`: one real reading from MQTT message to twin to what-if, in one go; a city, and a factory in it.

mod factory;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};
use twinlake_contracts::{format_us, parse_us};
use twinlake_query::{Session, output};
use twinlake_sources::replay::read_capture;
use twinlake_sources::{PublishSettings, publish_capture};
use twinlake_twin::{Run, RunStatus, SimulationRequest};

use crate::arguments::DemoOptions;
use crate::pipelines::{self, report_line};
use crate::printed::Printed;
use crate::serve::{Doorway, broker_topics, interrupted, shut};
use crate::settings::Settings;
use crate::town::Town;
use crate::upkeep::Upkeep;
use crate::{assets, progress};

/// The what-ifs that the demo runs; the first is shown link by link. Closing the bridge leaves trips without a way.
const SCENARIOS: [&str; 2] = ["kaivokatu-closed", "bridge-closed"];
/// When the simulated hour starts: the fork of the scenario, so that both runs start from the same city.
const FORK: &str = "2018-10-09T04:33:00Z";
/// An instant within the simulated hour.
const LATER: &str = "2018-10-09T05:30:00Z";
/// The capture of the vehicles.
const VEHICLES: &str = "helsinki-vehicles.hfp.txt";
/// The segments of an HFP topic that name the vehicle: its operator and its number.
const OPERATOR_AND_VEHICLE: (usize, usize) = (6, 8);
/// The simulation operator.
const OPERATOR: &str = "traffic_assignment";
/// How long the last message may take from the broker's acknowledgement to its commit.
const PATIENCE: Duration = Duration::from_mins(2);

/// Runs the demo; with `once` it ends by itself.
pub async fn run(settings: &Settings, options: &DemoOptions) -> Result<()> {
    let folder = assets_folder(settings);
    assets::write_to(&folder)?;
    let town = Town::open(settings).await?;
    let mqtt = settings.mqtt(&options.doors).to_string();
    let vehicles = folder.join("pipelines/helsinki-vehicles.toml");
    let vehicles = pipelines::load(&vehicles, &town.engine, &[("TWINLAKE_MQTT", mqtt.clone())]).await?;
    let machines = folder.join("pipelines/factory-machines.toml");
    let machines = pipelines::load(&machines, &town.engine, &[("TWINLAKE_MQTT", mqtt.clone())]).await?;
    let claims = [broker_topics(&vehicles, &mqtt), broker_topics(&machines, &mqtt)].concat();
    let doorway = Doorway::open(settings, &options.doors, &town, claims).await?;
    println!("Lake {}\n", town.lake.location());

    for (label, file) in [("Map", "helsinki-map"), ("", "helsinki-districts"), ("Factory", "factory-map")] {
        let bar = progress::spinner(settings.progress, file);
        let file = folder.join(format!("pipelines/{file}.toml"));
        let map = pipelines::load(&file, &town.engine, &[]).await?;
        let report = pipelines::start(&town, map).await?.finish().await?;
        bar.finish_and_clear();
        println!("{label:8} {}", report_line(&report));
    }

    let vehicles = pipelines::start(&town, vehicles).await?;
    let capture = Replay { file: VEHICLES, speed: options.speed, device_segments: OPERATOR_AND_VEHICLE };
    println!("Vehicles {}", replay(settings, &capture, &folder, &doorway, &vehicles).await?);
    let machines = pipelines::start(&town, machines).await?;
    println!("Machines {}\n", replay(settings, &factory::CAPTURE, &folder, &doorway, &machines).await?);
    let running = vec![vehicles, machines];
    doorway.show(&running);
    doorway.service.readiness().set("pipelines", true);

    let session = town.session()?;
    landed(&town, &session).await?;
    present_and_past(&session).await?;
    future(settings, &town, &session).await?;
    factory::show_plant(&session).await?;

    println!("Go on asking");
    println!("{}", doorway.addresses());
    println!("  here        twinlake sql -c \"SELECT * FROM twin.vehicle WHERE line = '57'\"");
    println!("  the files   {}", folder.display());
    println!(
        "\nVehicle positions © HSL, CC BY 4.0. Map © OpenStreetMap contributors, ODbL. Machines: AI4I 2020, S. Matzka, CC BY 4.0."
    );
    if !options.once {
        println!("\nServing until Ctrl-C.");
        let _upkeep = Upkeep::start(&town, &settings.upkeep);
        interrupted().await;
    }
    shut(doorway, running, &town).await
}

/// Where the shipped pipelines, models and scenarios are written: in the lake's folder, or beside a remote lake's logs.
fn assets_folder(settings: &Settings) -> PathBuf {
    let lake = settings.lake.strip_prefix("file://").unwrap_or(&settings.lake);
    if lake.contains("://") {
        PathBuf::from("./twinlake-data/demo")
    } else {
        PathBuf::from(lake).join("demo")
    }
}

/// A capture that is published again.
struct Replay {
    /// Below `pipelines/data`.
    file: &'static str,
    /// Seconds of the capture in a second; 0: as fast as the broker takes them.
    speed: f64,
    /// The segments of a topic that name the device.
    device_segments: (usize, usize),
}

/// Publishes a capture through MQTT, as the devices did, and waits until all of it is committed.
async fn replay(
    settings: &Settings,
    replay: &Replay,
    folder: &std::path::Path,
    doorway: &Doorway,
    running: &pipelines::Running,
) -> Result<String> {
    let capture = read_capture(&folder.join("pipelines/data").join(replay.file))?;
    let total = capture.len() as u64;
    let before = running.stats.snapshot();
    let address = doorway.broker.local_addr();
    let publish = PublishSettings {
        speed: replay.speed,
        device_segments: Some(replay.device_segments),
        ..PublishSettings::new(address.ip().to_string(), address.port())
    };
    let bar = progress::bar(settings.progress, "messages by MQTT", total, "messages");
    let shown = bar.clone();
    let report =
        publish_capture(capture, &publish, move |acknowledged| shown.set_position(acknowledged)).await?;
    bar.finish_and_clear();

    let bar = progress::spinner(settings.progress, "commit");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let after = loop {
        let now = running.stats.snapshot();
        if now.messages >= before.messages + total && now.committed_sequence == now.last_sequence {
            break now;
        }
        ensure!(!running.is_finished(), "the pipeline ended while messages were on their way");
        ensure!(
            tokio::time::Instant::now() < deadline,
            "not all messages were committed within {PATIENCE:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    bar.finish_and_clear();
    let rejects: Vec<String> =
        after.rejects.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    let reasons = if rejects.is_empty() { String::new() } else { format!(" ({})", rejects.join(", ")) };
    Ok(format!(
        "{}: {total} messages published and acknowledged in {:.1} s; {} rows, {} rejects{reasons}",
        running.name,
        report.elapsed.as_secs_f64(),
        after.rows.values().sum::<u64>(),
        after.rejects.values().sum::<u64>(),
    ))
}

async fn landed(town: &Town, session: &Session) -> Result<()> {
    town.lake.flush().await?;
    println!("What landed");
    show(session, "SELECT name, rows, files, bytes, version FROM meta.datasets ORDER BY name").await?;
    println!("What was refused, and why");
    show(
        session,
        "SELECT pipeline, component, reason, count(*) AS messages FROM meta.rejects GROUP BY 1, 2, 3 ORDER BY 4 DESC, 3",
    )
    .await
}

async fn present_and_past(session: &Session) -> Result<()> {
    println!("Live vehicles by line");
    show(
        session,
        "SELECT line, mode, count(*) AS vehicles, round(avg(speed_mps) * 3.6, 1) AS mean_speed_kmh, \
         count(road_segment_id) AS on_mapped_road FROM twin.vehicle WHERE line IS NOT NULL \
         GROUP BY 1, 2 ORDER BY 3 DESC, 1 LIMIT 12",
    )
    .await?;
    // The capture's newest stamps are those of a few clocks that run fast: its busiest second is its present.
    let now = number(
        session,
        "SELECT CAST(ts AS BIGINT) AS now_us FROM (SELECT ts, count(*) AS n FROM traffic.vehicle_position GROUP BY ts) \
         ORDER BY n DESC, now_us LIMIT 1",
    )
    .await?;
    let (then, now) = (format_us(now - 1_000_000), format_us(now));
    println!(
        "A second before and now: vehicles that moved most from {then} to {now}, the capture's busiest second"
    );
    show(
        session,
        &format!(
            "SELECT n.vehicle_id, n.line, round(b.speed_mps, 1) AS speed_before_mps, round(n.speed_mps, 1) AS speed_now_mps, \
             round(st_distancesphere(b.geom, n.geom), 1) AS moved_m, b.valid_time AS valid_before, n.valid_time AS valid_now \
             FROM twin_at('vehicle', TIMESTAMP '{then}') b JOIN twin_at('vehicle', TIMESTAMP '{now}') n USING (vehicle_id) \
             WHERE n.valid_time > b.valid_time AND n.valid_time <= b.valid_time + INTERVAL '1 second' \
             ORDER BY st_distancesphere(b.geom, n.geom) DESC, n.vehicle_id LIMIT 6"
        ),
    )
    .await
}

async fn future(settings: &Settings, town: &Town, session: &Session) -> Result<()> {
    println!("Traffic assignment (static user equilibrium), as is and in scenarios");
    for scenario in std::iter::once(None).chain(SCENARIOS.map(Some)) {
        let run = simulate(settings, town, scenario).await?;
        let figure =
            |name: &str| run.summary.get(name).and_then(serde_json::Value::as_f64).unwrap_or(f64::NAN);
        println!(
            "  {:18} {:.0} veh/h assigned, {:.0} without a way, total travel time {:.0} veh·h, relative gap {:.1e}{}",
            scenario.unwrap_or("as is"),
            figure("demand_assigned"),
            figure("demand_unassigned"),
            figure("total_system_travel_time") / 3600.0,
            figure("relative_gap"),
            if run.reused { " (answered from the table already written)" } else { "" }
        );
    }
    let scenario = SCENARIOS[0];
    println!("\nLinks whose flow changes most in '{scenario}' (vehicles per hour)");
    show(
        session,
        &format!(
            "SELECT b.name, b.road_segment_id, round(b.flow_vph, 0) AS as_is_vph, round(s.flow_vph, 0) AS scenario_vph, \
             round(s.flow_vph - b.flow_vph, 0) AS change_vph, s.closed \
             FROM twin_at('road_segment', TIMESTAMP '{LATER}') b \
             JOIN twin_at('road_segment', TIMESTAMP '{LATER}', scenario => '{scenario}') s USING (road_segment_id) \
             ORDER BY abs(s.flow_vph - b.flow_vph) DESC, b.road_segment_id LIMIT 12"
        ),
    )
    .await
}

async fn simulate(settings: &Settings, town: &Town, scenario: Option<&str>) -> Result<Run> {
    let bar = progress::bar(settings.progress, scenario.unwrap_or("as is"), 100, "%");
    let simulations = town.twins.simulations();
    let request = SimulationRequest {
        operator: OPERATOR.to_owned(),
        scenario: scenario.map(str::to_owned),
        as_of_us: parse_us(FORK),
        ..SimulationRequest::default()
    };
    let run_id = simulations.submit(request).await?;
    if let Some(mut watched) = simulations.watch(&run_id) {
        loop {
            let (finished, fraction, message) = {
                let run = watched.borrow_and_update();
                match &run.status {
                    RunStatus::Running { fraction, message } => (false, *fraction, message.clone()),
                    _ => (run.is_finished(), 0.0, String::new()),
                }
            };
            if finished || watched.changed().await.is_err() {
                break;
            }
            bar.set_position((fraction * 100.0) as u64);
            bar.set_message(message);
        }
    }
    let run = simulations.wait(&run_id).await?;
    bar.finish_and_clear();
    Ok(run)
}

/// Prints the rows of a query.
async fn show(session: &Session, sql: &str) -> Result<()> {
    let frame = session.sql(sql).await?;
    let schema = Arc::clone(frame.schema().inner());
    let rows = frame.collect().await.map_err(|error| session.error(error))?;
    output::write(output::Format::Table, &schema, &rows, &mut Printed::new())?;
    println!();
    Ok(())
}

/// The single number that a query gives.
async fn number(session: &Session, sql: &str) -> Result<i64> {
    let rows = session.collect(sql).await?;
    let column = rows.iter().find(|batch| batch.num_rows() > 0).context("no rows")?.column(0);
    let column = arrow::compute::cast(column, &DataType::Int64)?;
    Ok(column.as_primitive::<Int64Type>().value(0))
}
