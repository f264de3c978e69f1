//! One consistent snapshot of a table for DataFusion: a Delta version and the fresh rows beside it.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;

use super::extent;

/// A table as it was when the snapshot was taken. Cheap to make and to keep: it shares files' metadata and batches.
pub(super) struct SnapshotTable {
    pub schema: SchemaRef,
    pub version: u64,
    pub committed: Arc<dyn TableProvider>,
    pub fresh: Vec<RecordBatch>,
}

impl fmt::Debug for SnapshotTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotTable")
            .field("version", &self.version)
            .field("fresh_batches", &self.fresh.len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for SnapshotTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let stored = self.committed.schema();
        let places = extent::visible_places(&stored);
        let hides = places.len() < stored.fields().len();
        let chosen: Option<Vec<usize>> = match projection {
            Some(projection) => Some(projection.iter().map(|place| places[*place]).collect()),
            None => hides.then_some(places),
        };
        let supported = self.committed.supports_filters_pushdown(&filters.iter().collect::<Vec<_>>())?;
        // What a filter says of the boxes stands for it below; the plan's own filter above looks at the geometries.
        let below = filters.iter().zip(supported).flat_map(|(filter, support)| {
            let implied = if hides { extent::implied(filter) } else { Vec::new() };
            match support {
                _ if !implied.is_empty() => implied,
                TableProviderFilterPushDown::Unsupported => Vec::new(),
                _ => vec![filter.clone()],
            }
        });
        let below: Vec<Expr> = below.collect();
        let committed = self.committed.scan(state, chosen.as_ref(), &below, limit).await?;
        if self.fresh.is_empty() {
            return Ok(committed);
        }
        let partitions = [self.fresh.clone()];
        let fresh =
            MemorySourceConfig::try_new_exec(&partitions, Arc::clone(&self.schema), projection.cloned())?;
        UnionExec::try_new(vec![committed, fresh])
    }

    /// Filters prune files, row groups and rows of the committed part. They are never exact here: the fresh part is
    /// not filtered by the scan, so the plan keeps its own filter above.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let committed = self.committed.supports_filters_pushdown(filters)?;
        Ok(committed
            .into_iter()
            .zip(filters)
            .map(|(support, filter)| match support {
                TableProviderFilterPushDown::Exact => TableProviderFilterPushDown::Inexact,
                // The scan is shown it for what it says of the boxes.
                TableProviderFilterPushDown::Unsupported if !extent::implied(filter).is_empty() => {
                    TableProviderFilterPushDown::Inexact
                }
                other => other,
            })
            .collect())
    }
}
