//! `twinlake serve`: the lake behind its doors until Ctrl-C.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use twinlake_contracts::{Error, Intake, TableStore};
use twinlake_formats::Bodies;
use twinlake_lake::{CacheStats, Lake};
use twinlake_pipeline::{DirectIngest, DirectOptions, SourceKind};
use twinlake_service::{Running, Service, ServiceSettings, WebhookSettings, Webhooks};
use twinlake_sources::{Broker, BrokerSettings};
use twinlake_twin::{PresentBegun, Twins};

use crate::arguments::{Doors, ServeOptions};
use crate::settings::Settings;
use crate::town::Town;
use crate::upkeep::Upkeep;
use crate::{apply, assets, pipelines};

/// How often twins whose table was not there, and scenarios of other processes, are looked for.
const LOOK_FOR_TABLES: Duration = Duration::from_secs(1);

/// A figure of a pipeline.
type Counter = fn(&twinlake_pipeline::StatsSnapshot) -> u64;

/// The folder of event rules, if there is one where the process works.
const EVENT_RULES: &str = "schemas/events";

/// The open doors.
pub struct Doorway {
    pub service: Running,
    pub broker: Arc<Broker>,
    intake: Option<Arc<DirectIngest>>,
    _present: Present,
    webhooks: Option<Webhooks>,
}

/// Keeps the present of twins in memory, also of those whose tables come later; ends when dropped.
struct Present(tokio::task::JoinHandle<()>);

impl Present {
    fn start(twins: Arc<Twins>) -> Self {
        Self(tokio::spawn(async move {
            loop {
                if let Err(error) = twins.keep_present() {
                    tracing::debug!(%error, "the present of twins is read from the lake");
                }
                // Other processes on the lake create and run scenarios as well.
                if let Err(error) = twins.open_scenarios().await {
                    tracing::debug!(%error, "scenarios of other processes are looked for again");
                }
                tokio::time::sleep(LOOK_FOR_TABLES).await;
            }
        }))
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Doorway {
    /// Opens HTTP, PostgreSQL and MQTT. `claims` are the topics that pipelines about to start will record: their
    /// publishers wait for them.
    pub async fn open(
        settings: &Settings,
        doors: &Doors,
        town: &Town,
        claims: Vec<Vec<String>>,
    ) -> Result<Self> {
        let mqtt = settings.mqtt(doors);
        let options = settings.broker.clone();
        let broker =
            Broker::start(BrokerSettings { claims, options, ..BrokerSettings::new(mqtt.to_string()) })
                .await?;
        let service = ServiceSettings {
            http: settings.http(doors),
            postgres: settings.postgres(doors),
            ..ServiceSettings::default()
        };
        let intake = intake(town).await?;
        let taking = intake.clone().map(|intake| intake as Arc<dyn Intake>);
        let (engine, twins) = (Arc::clone(&town.engine), Arc::clone(&town.twins));
        let service = Service::start(service, engine, twins, taking).await?;
        if let Some(intake) = &intake {
            measure(&service, intake);
        }
        if town.lake.cache_stats().is_some() {
            measure_cache(&service, &town.lake);
        }
        let counted = Arc::clone(&broker);
        service.metrics().report("mqtt_connections", "MQTT connections that are open", move || {
            vec![(Vec::new(), counted.stats().connections as f64)]
        });
        let counted = Arc::clone(&broker);
        service.metrics().report(
            "mqtt_dropped",
            "Messages that an MQTT subscriber did not get because its queue was full",
            move || vec![(Vec::new(), counted.stats().dropped as f64)],
        );
        let counted = Arc::clone(&broker);
        service.metrics().report("mqtt_messages", "MQTT publishes that arrived", move || {
            vec![(Vec::new(), counted.stats().messages as f64)]
        });
        let present = Present::start(Arc::clone(&town.twins));
        measure_present(&service, &town.twins);
        let mut webhooks = None;
        let rules = Path::new(EVENT_RULES);
        if rules.is_dir() {
            let rules = assets::read_folder(rules)?;
            if !rules.is_empty() {
                let events = town.twins.watch(rules, town.node.as_deref().unwrap_or("local")).await?;
                webhooks = Webhooks::start(&events, WebhookSettings::default())?;
            }
        }
        if let Some(webhooks) = &webhooks {
            webhooks.measure(service.metrics());
        }
        Ok(Self { service, broker, intake, _present: present, webhooks })
    }

    /// Where to go on asking, in lines.
    pub fn addresses(&self) -> String {
        let (http, postgres) = (self.service.http_addr(), self.service.postgres_addr());
        format!(
            "  HTTP        http://{http}   (POST /v1/sql, GET /v1/twins/vehicle, /openapi.json, /metrics)\n  \
             PostgreSQL  psql -h {} -p {} -U twinlake twinlake\n  \
             MQTT        mqtt://{}",
            postgres.ip(),
            postgres.port(),
            self.broker.local_addr()
        )
    }

    /// Shows what the pipelines have done in `/metrics`.
    pub fn show(&self, running: &[pipelines::Running]) {
        let stats: Vec<_> = running.iter().map(|one| (one.name.clone(), Arc::clone(&one.stats))).collect();
        let counters: [(&str, &str, Counter); 5] = [
            ("pipeline_messages", "Messages safe in the log, by pipeline", |now| now.messages),
            ("pipeline_rows", "Rows given to sinks, by pipeline", |now| now.rows.values().sum()),
            ("pipeline_rejects", "Messages and rows refused, by pipeline", |now| now.rejects.values().sum()),
            ("pipeline_errors", "Outside failures met and tried again, by pipeline", |now| now.errors),
            ("pipeline_uncommitted", "Messages in the log that no commit has reached, by pipeline", |now| {
                now.last_sequence.saturating_sub(now.committed_sequence)
            }),
        ];
        for (name, help, read) in counters {
            let stats = stats.clone();
            self.service.metrics().report(name, help, move || {
                stats
                    .iter()
                    .map(|(pipeline, stats)| {
                        (vec![("pipeline".to_owned(), pipeline.clone())], read(&stats.snapshot()) as f64)
                    })
                    .collect()
            });
        }
    }

    /// Closes all doors.
    pub async fn close(self) -> Result<()> {
        if let Some(webhooks) = self.webhooks {
            webhooks.close().await;
        }
        self.service.shutdown().await;
        self.broker.shutdown().await;
        match self.intake {
            Some(intake) => Ok(intake.stop().await?),
            None => Ok(()),
        }
    }
}

/// What takes the rows that clients hand in over HTTP; `None` when another process on this lake does.
async fn intake(town: &Town) -> Result<Option<Arc<DirectIngest>>> {
    let store: Arc<dyn TableStore> = Arc::clone(&town.lake) as _;
    let options = DirectOptions { node: town.node.clone(), ..DirectOptions::default() };
    match DirectIngest::open(store, Arc::new(Bodies), None, options).await {
        Ok(intake) => Ok(Some(intake)),
        Err(error @ Error::Config(_)) => {
            tracing::warn!("rows handed in over HTTP are not taken here: {error}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Shows what was taken in `/metrics`.
fn measure(service: &Running, intake: &Arc<DirectIngest>) {
    let stats = intake.stats();
    let counters: [(&str, &str, Counter); 3] = [
        ("ingest_bodies", "Bodies handed in over HTTP that are safe in the log", |now| now.messages),
        ("ingest_rows", "Rows of these bodies", |now| now.rows.values().sum()),
        ("ingest_rejects", "Rows and lines of these bodies that were refused", |now| {
            now.rejects.values().sum()
        }),
    ];
    for (name, help, read) in counters {
        let stats = Arc::clone(&stats);
        service.metrics().report(name, help, move || vec![(Vec::new(), read(&stats.snapshot()) as f64)]);
    }
    let held = Arc::clone(intake);
    service.metrics().report("ingest_held_bytes", "Memory of bodies and uncommitted rows", move || {
        vec![(Vec::new(), held.held_bytes() as f64)]
    });
    let busy = Arc::clone(intake);
    service.metrics().report("ingest_busy", "Bodies sent away because too much waited", move || {
        vec![(Vec::new(), busy.busy() as f64)]
    });
}

/// Gauges of what the present of twins was begun from.
fn measure_present(service: &Running, twins: &Arc<Twins>) {
    type Read = fn(&PresentBegun) -> u64;
    let gauges: [(&str, &str, Read); 2] = [
        ("twin_start_instances", "Instances of the kept state that a model began with", |begun| {
            begun.kept_instances
        }),
        (
            "twin_start_rows",
            "Rows that a model folded when it began: those since its kept state, or all",
            |begun| begun.rows,
        ),
    ];
    for (name, help, read) in gauges {
        let twins = Arc::clone(twins);
        service.metrics().report(name, help, move || {
            let all = twins.present_begun();
            all.iter()
                .map(|begun| (vec![("model".to_owned(), begun.model.clone())], read(begun) as f64))
                .collect()
        });
    }
}

/// Gauges of the cache of data files.
fn measure_cache(service: &Running, lake: &Arc<Lake>) {
    type Read = fn(&CacheStats) -> u64;
    let gauges: [(&str, &str, Read); 6] = [
        ("cache_hits", "Blocks of data files that the cache had", |stats| stats.hits),
        ("cache_misses", "Blocks of data files that the object store was asked for", |stats| stats.misses),
        ("cache_served_bytes", "Bytes of data files from the cache", |stats| stats.bytes_served),
        ("cache_fetched_bytes", "Bytes of data files from the object store", |stats| stats.bytes_fetched),
        ("cache_requests", "Requests to the object store for data files", |stats| stats.requests),
        ("cache_memory_bytes", "Memory of the cache", |stats| stats.memory_bytes),
    ];
    for (name, help, read) in gauges {
        let lake = Arc::clone(lake);
        service.metrics().report(name, help, move || {
            lake.cache_stats().iter().map(|stats| (Vec::new(), read(stats) as f64)).collect()
        });
    }
}

/// Serves until Ctrl-C.
pub async fn run(settings: &Settings, options: &ServeOptions) -> Result<()> {
    let town = Town::open(settings).await?;
    let mqtt = settings.mqtt(&options.doors);
    let mut plans = Vec::new();
    for file in settings.pipelines.iter().chain(&options.pipelines) {
        plans.push(pipelines::load(file, &town.engine, &[("TWINLAKE_MQTT", mqtt.to_string())]).await?);
    }
    if options.applied {
        plans.extend(apply::plans(&town, &[("TWINLAKE_MQTT", mqtt.to_string())]).await?);
    }
    let claims = plans.iter().flat_map(|plan| broker_topics(plan, &mqtt.to_string())).collect();
    let doorway = Doorway::open(settings, &options.doors, &town, claims).await?;
    let mut running = Vec::new();
    for plan in plans {
        running.push(pipelines::start(&town, plan).await?);
    }
    doorway.show(&running);
    doorway.service.readiness().set("pipelines", true);
    println!("serving {}\n{}", town.lake.location(), doorway.addresses());
    let upkeep = Upkeep::start(&town, &settings.upkeep);
    interrupted().await;
    drop(upkeep);
    shut(doorway, running, &town).await
}

/// Stops in the order of the flow: pipelines first (the last commit), then the doors, then the lake.
pub async fn shut(doorway: Doorway, running: Vec<pipelines::Running>, town: &Town) -> Result<()> {
    doorway.service.readiness().set("pipelines", false);
    let mut failure = None;
    for pipeline in running {
        match pipeline.stop().await {
            Ok(report) => println!("{}", pipelines::report_line(&report)),
            Err(error) => failure = Some(error),
        }
    }
    let closed = doorway.close().await;
    // After the last commit: the next process folds what came after it.
    town.twins.keep_states().await;
    town.close().await?;
    failure.map_or(closed, Err)
}

/// The topics that a plan's embedded-broker sources on `address` record.
pub fn broker_topics(plan: &twinlake_pipeline::Plan, address: &str) -> Vec<Vec<String>> {
    plan.pipeline
        .sources
        .values()
        .filter_map(|source| match &source.kind {
            SourceKind::Messages { type_name, settings, .. } if type_name == "mqtt_broker" => Some(settings),
            _ => None,
        })
        .filter(|settings| {
            settings.get("listen").and_then(|listen| listen.as_str()).is_none_or(|at| at == address)
        })
        .filter_map(|settings| settings.get("topics")?.as_array().cloned())
        .map(|topics| topics.iter().filter_map(|topic| topic.as_str().map(str::to_owned)).collect())
        .collect()
}

/// Returns at Ctrl-C or at the signal that service managers send.
pub async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
