//! Settings: command line before environment before `--config` file before defaults.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;
use twinlake_cluster::Address;
use twinlake_contracts::{Error, Place};
use twinlake_lake::CacheOptions;
use twinlake_sources::BrokerOptions;

use crate::WrongUse;
use crate::arguments::{Doors, Global};
use crate::upkeep::UpkeepSettings;

/// The file that `--config` names.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    lake: Option<String>,
    /// Where queries run: `local`, or the scheduler of a cluster.
    engine: Option<String>,
    http: Option<SocketAddr>,
    postgres: Option<SocketAddr>,
    mqtt: Option<SocketAddr>,
    /// Access, limits and state of the MQTT broker; paths are relative to the file.
    #[serde(default)]
    broker: BrokerOptions,
    /// What is done to the tables beside.
    #[serde(default)]
    upkeep: UpkeepSettings,
    /// How much is kept of the data files of a lake on an object store.
    #[serde(default)]
    cache: CacheSettings,
    /// Pipelines that `serve` runs, relative to the file.
    #[serde(default)]
    pipelines: Vec<PathBuf>,
    /// A folder of twin models, relative to the file.
    twins: Option<PathBuf>,
    /// A folder of table definitions, relative to the file.
    tables: Option<PathBuf>,
    /// Where OpenLineage events go.
    #[serde(default)]
    lineage: LineageSettings,
    /// A folder of scenarios, relative to the file.
    scenarios: Option<PathBuf>,
}

/// `[cache]`: how much is kept of the data files of a lake on an object store.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheSettings {
    /// Mebibytes in memory (default 256); 0 is no cache at all.
    memory_mib: Option<usize>,
    /// Mebibytes on disk (default 0: none).
    disk_mib: Option<usize>,
    /// The folder of the disk tier, relative to the file.
    folder: Option<PathBuf>,
}

impl CacheSettings {
    fn options(&self, beside: impl Fn(&PathBuf) -> PathBuf) -> CacheOptions {
        let standard = CacheOptions::default();
        let bytes = |mebibytes: usize| mebibytes.saturating_mul(1 << 20);
        CacheOptions {
            memory_bytes: self.memory_mib.map_or(standard.memory_bytes, bytes),
            disk_bytes: self.disk_mib.map_or(standard.disk_bytes, bytes),
            folder: self.folder.as_ref().map_or(standard.folder, beside),
        }
    }
}

/// `[lineage]`: where OpenLineage events go.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LineageSettings {
    /// The address that takes events, for example `http://127.0.0.1:5000/api/v1/lineage`; with no path, that of the
    /// OpenLineage API is added.
    pub url: Option<String>,
    /// The namespace of jobs (default `twinlake`).
    pub namespace: Option<String>,
}

/// What holds for this run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The lake's folder or URL.
    pub lake: String,
    /// The cluster that queries run on; here, when there is none.
    pub engine: Option<Address>,
    /// The name of this process among several on one lake.
    pub node: Option<String>,
    /// Whether bars are drawn.
    pub progress: bool,
    /// Pipelines named in the configuration.
    pub pipelines: Vec<PathBuf>,
    /// The folder of twin models, if one was named.
    pub twins: Option<PathBuf>,
    /// The folder of table definitions, if one was named.
    pub tables: Option<PathBuf>,
    /// Where OpenLineage events go.
    pub lineage: LineageSettings,
    /// Who runs this, for `meta.runs`, if it was said.
    pub who: Option<String>,
    /// The folder of scenarios, if one was named.
    pub scenarios: Option<PathBuf>,
    /// Access, limits and state of the MQTT broker.
    pub broker: BrokerOptions,
    /// What processes that run pipelines or serve do to the tables beside.
    pub upkeep: UpkeepSettings,
    /// How much is kept of the data files of a lake on an object store.
    pub cache: CacheOptions,
    doors: Doors,
}

impl Settings {
    /// Reads the configuration file, if any, and puts the command line over it.
    pub fn resolve(global: &Global) -> anyhow::Result<Self> {
        let (mut file, folder) = match &global.config {
            None => (ConfigFile::default(), PathBuf::new()),
            Some(path) => (read_config(path)?, path.parent().map(Path::to_owned).unwrap_or_default()),
        };
        file.broker.resolve(&folder);
        file.upkeep.check().map_err(WrongUse)?;
        let beside = |path: &PathBuf| folder.join(path);
        Ok(Self {
            lake: global.lake.clone().or(file.lake).unwrap_or_else(|| "./twinlake-data".to_owned()),
            engine: engine(global.engine.as_ref().or(file.engine.as_ref()))?,
            node: global.node.clone(),
            progress: !global.no_progress,
            pipelines: file.pipelines.iter().map(beside).collect(),
            twins: file.twins.as_ref().map(beside),
            tables: file.tables.as_ref().map(beside),
            lineage: LineageSettings {
                url: global.lineage_url.clone().or(file.lineage.url),
                namespace: std::env::var("OPENLINEAGE_NAMESPACE").ok().or(file.lineage.namespace),
            },
            who: global.who.clone(),
            scenarios: file.scenarios.as_ref().map(beside),
            broker: file.broker,
            upkeep: file.upkeep,
            cache: file.cache.options(beside),
            doors: Doors { http: file.http, postgres: file.postgres, mqtt: file.mqtt },
        })
    }

    /// The HTTP address.
    pub fn http(&self, given: &Doors) -> SocketAddr {
        given.http.or(self.doors.http).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080)))
    }

    /// The PostgreSQL address.
    pub fn postgres(&self, given: &Doors) -> SocketAddr {
        given.postgres.or(self.doors.postgres).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 5433)))
    }

    /// The MQTT address.
    pub fn mqtt(&self, given: &Doors) -> SocketAddr {
        given.mqtt.or(self.doors.mqtt).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 1883)))
    }
}

/// The cluster that an engine's name stands for; `local` is none.
fn engine(name: Option<&String>) -> anyhow::Result<Option<Address>> {
    match name.map(|name| name.trim()) {
        None | Some("" | "local") => Ok(None),
        Some(name) => Ok(Some(name.parse().map_err(WrongUse)?)),
    }
}

fn read_config(path: &Path) -> anyhow::Result<ConfigFile> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| WrongUse(Error::config(format!("cannot read {}: {error}", path.display()))))?;
    toml::from_str(&text)
        .map_err(|error| {
            let place = error.span().map(|span| place_of(path, &text, span.start)).unwrap_or_default();
            WrongUse(Error::config(error.message()).at(place))
        })
        .context("the configuration cannot be used")
        .map_err(|error| match error.downcast::<WrongUse>() {
            Ok(wrong) => wrong.into(),
            Err(error) => error,
        })
}

fn place_of(path: &Path, text: &str, offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    let shown = text.lines().nth(line - 1).unwrap_or_default().to_owned();
    Place { file: Some(path.to_owned()), line, column, text: shown, length: 1 }
}
