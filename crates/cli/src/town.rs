//! Everything that a command needs to ask the lake: lake, SQL engine, twins, scenarios.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use twinlake_catalog::{Catalog, Origin};
use twinlake_cluster::Cluster;
use twinlake_lake::{Lake, LakeOptions};
use twinlake_query::{Engine, Session, SessionSettings};
use twinlake_twin::Twins;

use crate::assets;
use crate::events::Events;
use crate::members::Members;
use crate::settings::Settings;

/// An open lake with its SQL and its twins.
#[derive(Clone)]
pub struct Town {
    pub lake: Arc<Lake>,
    pub engine: Arc<Engine>,
    pub twins: Arc<Twins>,
    pub catalog: Arc<Catalog>,
    /// Where OpenLineage events go, if they go anywhere.
    pub events: Option<Arc<Events>>,
    /// The name of this process among several on the lake.
    pub node: Option<String>,
}

impl Town {
    /// Opens the lake of the settings with the twin models and scenarios that hold there.
    pub async fn open(settings: &Settings) -> Result<Self> {
        let options = LakeOptions { cache: settings.cache.clone(), ..LakeOptions::default() };
        let lake = Lake::open(&settings.lake, options).await?;
        let engine = Engine::new(Arc::clone(&lake));
        if let Some(address) = &settings.engine {
            engine.run_on(Arc::new(Cluster::new(address.clone())?));
        }
        let models = texts(settings.twins.as_deref(), Path::new("schemas/twins"), assets::twin_models)?;
        let scenarios = texts(settings.scenarios.as_deref(), Path::new("scenarios"), assets::scenarios)?;
        let twins = Twins::load(&engine, models.clone(), scenarios.clone())?;
        twins.check_views().await?;
        twins.open_scenarios().await?;
        if let Some(address) = &settings.engine {
            let members = Members::new(Cluster::new(address.clone())?, lake.location(), models, scenarios)?;
            twins.run_members_on(Arc::new(members));
        }
        let tables =
            texts(settings.tables.as_deref(), Path::new("schemas/tables"), assets::table_definitions)?;
        let own = settings.tables.is_some() || Path::new("schemas/tables").is_dir();
        let origin = if own { Origin::Own } else { Origin::Shipped };
        let catalog = Catalog::load(&engine, tables, origin)?;
        if let Some(who) = &settings.who {
            twinlake_lake::set_who(who);
        }
        let events = Events::open(settings, &lake)?;
        Ok(Self { lake, engine, twins, catalog, events, node: settings.node.clone() })
    }

    /// Hands the last events over and closes the lake.
    pub async fn close(&self) -> Result<()> {
        let closed = self.lake.close().await;
        if let Some(events) = &self.events {
            events.close().await;
        }
        Ok(closed?)
    }

    /// A SQL session that may read local files as tables: for the one who sits at the command line.
    pub fn session(&self) -> Result<Session> {
        Ok(self.engine.session(SessionSettings { local_files: true })?)
    }
}

/// The files of the folder that was named, else of the usual folder if it is there, else the shipped ones.
fn texts(
    named: Option<&Path>,
    usual: &Path,
    shipped: fn() -> Vec<(String, String)>,
) -> Result<Vec<(String, String)>> {
    match named {
        Some(folder) => assets::read_folder(folder),
        None if usual.is_dir() => assets::read_folder(usual),
        None => Ok(shipped()),
    }
}
