//! Reading the files of a Delta table without Delta: the columns that they hold, under the table's schema.
//!
//! What Delta's own scan does above the files is renaming, partition columns and deletion vectors. The lake's tables have
//! none of these, so that the columns of the files are those of the table; a table of another writer that has them is not
//! read by executors.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, internal_err, not_impl_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{Distribution, EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{PlanProperties, ReplaceChildrenOptions};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildStats, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, StatisticsArgs,
};
use futures::StreamExt;

/// The name of Delta's scan.
const DELTA_SCAN: &str = "DeltaScanExec";

/// Some columns of its input, under a schema of its own.
#[derive(Debug)]
pub(crate) struct ReadColumnsExec {
    input: Arc<dyn ExecutionPlan>,
    places: Vec<usize>,
    properties: Arc<PlanProperties>,
}

impl ReadColumnsExec {
    /// `places` are those of the schema's columns in the input.
    pub(crate) fn try_new(
        input: Arc<dyn ExecutionPlan>,
        places: Vec<usize>,
        schema: SchemaRef,
    ) -> Result<Self> {
        let given = input.schema();
        let fits = places.len() == schema.fields().len()
            && places.iter().zip(schema.fields()).all(|(place, wanted)| {
                given.fields().get(*place).is_some_and(|field| field.data_type() == wanted.data_type())
            });
        if !fits {
            return internal_err!("the columns of a scan do not fit its schema");
        }
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Ok(Self { input, places, properties: Arc::new(properties) })
    }

    /// What takes the place of Delta's scan; `None` when the node is none. An error says why executors cannot read it.
    pub(crate) fn instead_of(node: &Arc<dyn ExecutionPlan>) -> Result<Option<Self>> {
        if node.name() != DELTA_SCAN {
            return Ok(None);
        }
        let children = node.children();
        let [input] = children.as_slice() else {
            return internal_err!("a scan of a Delta table has {} inputs", children.len());
        };
        let whole = node.input_distribution_requirements().into_per_child();
        if whole.iter().any(|one| matches!(one, Distribution::SinglePartition)) {
            return not_impl_err!("a table with deletion vectors");
        }
        let (schema, given) = (node.schema(), input.schema());
        let mut places = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            match given.column_with_name(field.name()) {
                Some((place, found)) if found.data_type() == field.data_type() => places.push(place),
                _ => return not_impl_err!("a table whose column '{}' is not in its files", field.name()),
            }
        }
        Self::try_new(Arc::clone(input), places, schema).map(Some)
    }

    /// The places of the columns in the input.
    pub(crate) fn places(&self) -> &[usize] {
        &self.places
    }
}

impl DisplayAs for ReadColumnsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let schema = self.schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "ReadColumnsExec: [{}]", names.join(", "))
    }
}

impl ExecutionPlan for ReadColumnsExec {
    fn name(&self) -> &'static str {
        "ReadColumnsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([input]) = <[_; 1]>::try_from(children) else {
            return internal_err!("a scan has one input");
        };
        Ok(Arc::new(Self::try_new(input, self.places.clone(), self.schema())?))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mode = datafusion::physical_plan::execution_plan::ChildrenPropertiesMode::Recompute;
        self.replace_children(children, ReplaceChildrenOptions::new(mode))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let (places, schema) = (self.places.clone(), self.schema());
        let rows = input.map(move |batch| {
            let batch = batch?;
            let columns = places.iter().map(|place| Arc::clone(batch.column(*place))).collect();
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            Ok(RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)?)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(
        &self,
        inputs: &[Arc<Statistics>],
        _: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema());
        if let [input] = inputs {
            statistics.num_rows = input.num_rows;
            statistics.total_byte_size = input.total_byte_size;
            for (own, place) in statistics.column_statistics.iter_mut().zip(&self.places) {
                if let Some(of_input) = input.column_statistics.get(*place) {
                    own.clone_from(of_input);
                }
            }
        }
        Ok(Arc::new(statistics))
    }
}
