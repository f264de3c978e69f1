//! Opening, creating and widening a table.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use deltalake_core::kernel::StructField;
use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake_core::logstore::LogStoreRef;
use deltalake_core::operations::update_table_metadata::TableMetadataUpdate;
use deltalake_core::table::config::TableProperty;
use deltalake_core::{DeltaTable, DeltaTableError};
use twinlake_contracts::{Error, Result, TableName, TableSpec};

use super::extent;
use super::schema::{missing_columns, stored_schema};
use super::{LakeTable, WriteSide};
use crate::error;

/// How often columns are added while other processes change the table, too.
const ATTEMPTS: u32 = 5;

pub(super) fn kernel_fields(
    name: &TableName,
    fields: &[arrow::datatypes::Field],
) -> Result<Vec<StructField>> {
    let field = |field: &arrow::datatypes::Field| -> Result<StructField> {
        field.try_into_kernel().map_err(|error| {
            Error::config(format!("column '{}' of table {name} cannot be stored: {error}", field.name()))
        })
    };
    fields.iter().map(field).collect()
}

impl LakeTable {
    /// Opens the table at a location; `None` when there is none.
    pub(crate) async fn open(
        name: &TableName,
        log_store: LogStoreRef,
        fresh_limit_bytes: usize,
    ) -> Result<Option<Arc<Self>>> {
        let system = format!("table {name} at {}", log_store.root_url());
        // Asked first: what loading says of a place without a table differs from store to store.
        if !log_store.is_delta_table_location().await.map_err(|error| error::delta(&system, &error))? {
            return Ok(None);
        }
        let mut table = DeltaTable::new(log_store);
        match table.load().await {
            Ok(()) => Self::new(name.clone(), table, fresh_limit_bytes).await.map(Some),
            Err(DeltaTableError::NotATable(_)) => Ok(None),
            Err(error) => Err(error::delta(&system, &error)),
        }
    }

    /// Creates the table; when another process was quicker, opens that one.
    pub(crate) async fn create(
        spec: &TableSpec,
        log_store: LogStoreRef,
        fresh_limit_bytes: usize,
        checkpoint_interval: u64,
    ) -> Result<Arc<Self>> {
        let schema = stored_schema(&spec.name, &spec.schema)?;
        let hidden = extent::fields(&schema);
        let fields: Vec<_> =
            schema.fields().iter().map(|field| field.as_ref().clone()).chain(hidden).collect();
        let system = format!("table {} at {}", spec.name, log_store.root_url());
        let mut builder = DeltaTable::new(log_store.clone())
            .create()
            .with_table_name(spec.name.to_string())
            .with_columns(kernel_fields(&spec.name, &fields)?)
            .with_configuration_property(
                TableProperty::CheckpointInterval,
                Some(checkpoint_interval.max(1).to_string()),
            );
        if !spec.description.is_empty() {
            builder = builder.with_comment(spec.description.clone());
        }
        match builder.await {
            Ok(table) => Self::new(spec.name.clone(), table, fresh_limit_bytes).await,
            Err(error) => match Self::open(&spec.name, log_store, fresh_limit_bytes).await? {
                Some(table) => Ok(table),
                None => Err(error::delta(&system, &error)),
            },
        }
    }

    /// Whether a writer's columns fit; changes nothing.
    pub(crate) fn would_fit(&self, spec: &TableSpec) -> Result<()> {
        let wanted = stored_schema(&self.name, &self.named_now(&spec.schema))?;
        missing_columns(&self.name, &self.schema(), &wanted).map(|_| ())
    }

    /// Checks that a writer's columns fit, adds those that are new (nullable, at the end), and takes over a new
    /// description.
    pub(crate) async fn fit(&self, spec: &TableSpec) -> Result<()> {
        let mut side = self.write_side.lock().await;
        self.look_for_news(&mut side).await?;
        let wanted = stored_schema(&self.name, &self.named_now(&spec.schema))?;
        self.add_columns(&mut side, &wanted).await?;
        if !spec.description.is_empty() && spec.description != self.description() {
            let update = TableMetadataUpdate { name: None, description: Some(spec.description.clone()) };
            let updated = side.table.clone().update_table_metadata().with_update(update).await;
            match updated {
                Ok(table) => {
                    side.table = table;
                    self.publish(&mut side, None, &HashSet::new(), false).await?;
                }
                // A sentence for people; the next opening tries again.
                Err(error) => tracing::debug!(table = %self.name, %error, "the description stays as it was"),
            }
        }
        Ok(())
    }

    /// A writer's columns with the names that the table has now: those given up by a rename are replaced.
    pub fn present_names(&self, given: &SchemaRef) -> SchemaRef {
        let readable = self.readable();
        readable.renames.schema(given, &readable.schema)
    }

    /// [`Self::present_names`], told to who looks after the table.
    pub(super) fn named_now(&self, given: &SchemaRef) -> SchemaRef {
        let named = self.present_names(given);
        if !Arc::ptr_eq(&named, given) {
            tracing::warn!(table = %self.name, "columns with former names go where these are called now");
        }
        named
    }

    async fn add_columns(&self, side: &mut WriteSide, wanted: &Schema) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let mut missing = missing_columns(&self.name, &self.schema(), wanted)?;
            let stored = self.stored_schema();
            let lacks = |field: &arrow::datatypes::Field| stored.field_with_name(field.name()).is_err();
            missing.extend(extent::fields(wanted).into_iter().filter(lacks));
            if missing.is_empty() {
                return Ok(());
            }
            let fields = kernel_fields(&self.name, &missing)?;
            match side.table.clone().add_columns().with_fields(fields).await {
                Ok(table) => {
                    side.table = table;
                    return self.publish(side, None, &HashSet::new(), false).await;
                }
                Err(DeltaTableError::Transaction { .. } | DeltaTableError::VersionAlreadyExists(_)) => {
                    self.settle(side).await?;
                }
                Err(error) => return Err(error::delta(&self.system, &error)),
            }
        }
        Err(Error::transient(self.system.clone(), "other processes change the table's columns all the time"))
    }
}
