//! What happens to rows: one file a transform, one line in [`transforms`].

mod clean;
mod enrich;
mod fences;
mod geofence;
mod late;
mod lineage;
mod resample;
mod rows;
mod sql;
mod table;
mod things;
mod window;

#[cfg(test)]
mod law;

pub(crate) use self::rows::late_by_us;
use std::sync::Arc;

use crate::components::Components;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use twinlake_contracts::{ColumnEdge, Registry, Result, SqlEngine, Transform};

/// All transforms, by the value of `type`.
pub(crate) fn transforms() -> Registry<dyn TransformBuilder> {
    Registry::new("transform")
        .with::<sql::Sql>()
        .with::<clean::Clean>()
        .with::<late::Late>()
        .with::<window::Window>()
        .with::<resample::Resample>()
        .with::<enrich::Enrich>()
        .with::<geofence::Geofence>()
}

/// What a transform learns about its place in the pipeline.
pub struct TransformContext<'a> {
    /// Its name.
    pub name: &'a str,
    /// The steps whose rows it takes, with their schemas.
    pub inputs: Vec<(String, SchemaRef)>,
    /// Whether the rows stand for messages of an endless stream (and not for a file that ends).
    pub messages: bool,
    /// Plans and runs SQL.
    pub engine: Arc<dyn SqlEngine>,
    /// What reads files.
    pub components: Arc<Components>,
}

/// The settings of a transform, ready to build it once the schemas of its inputs are known.
#[async_trait]
pub trait TransformBuilder: Send + Sync {
    /// Checks the settings against the inputs and builds. Errors quote the key or value at fault.
    async fn build(&self, context: &TransformContext<'_>) -> Result<Box<dyn Transform>>;

    /// From which columns of the inputs (or of tables that it looks things up in) the columns of its result come. `out` is
    /// the schema that the transform of the same context has.
    async fn lineage(&self, context: &TransformContext<'_>, out: &SchemaRef) -> Result<Vec<ColumnEdge>>;
}
