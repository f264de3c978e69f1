//! `twinlake schema`: what `cargo xtask gen` writes to `schemas/` and `docs/`.

use anyhow::Result;

use crate::arguments::SchemaKind;
use crate::pipelines::components;

/// Prints a generated schema.
pub fn print(what: SchemaKind) -> Result<()> {
    match what {
        SchemaKind::Pipeline => {
            println!("{}", serde_json::to_string_pretty(&twinlake_pipeline::pipeline_schema(&components()))?);
        }
        SchemaKind::Table => {
            println!("{}", serde_json::to_string_pretty(&twinlake_catalog::definition_schema())?);
        }
        SchemaKind::Functions => print!("{}", twinlake_query::sql_reference()),
        SchemaKind::Openapi => println!("{}", twinlake_service::Service::openapi()?.trim_end()),
    }
    Ok(())
}
