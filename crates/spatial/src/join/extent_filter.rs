//! What the build side's extent says of the other side's files.
//!
//! When the build side is indexed, the boxes at the top of its index are known before the other side is read. Where that
//! side is a scan of Parquet files that hold, beside a geometry `g`, its boxes in columns `_g_xmin`, `_g_ymin`, `_g_xmax`,
//! `_g_ymax`, row groups and files whose statistics lie apart from all of them are not read. The filter is a dynamic one of
//! DataFusion: `EXPLAIN` shows it as the scan's predicate, `EXPLAIN ANALYZE` with the boxes in it. A scan of a Delta table
//! knows of the columns that are asked for alone: it is told of the boxes, which files that have none of them leave unknown.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{ColumnStatistics, Result, ScalarValue, Statistics};
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfig, FileScanConfigBuilder, FileSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::conjunction;
use datafusion::physical_expr::expressions::{
    BinaryExpr, Column, DynamicFilterPhysicalExpr, IsNullExpr, Literal, lit,
};
use datafusion::physical_expr::projection::{ProjectionExpr, ProjectionExprs};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::execution_plan::{
    CardinalityEffect, ChildrenPropertiesMode, ReplaceChildrenOptions,
};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::union::UnionExec;

use twinlake_contracts::is_geometry;

use super::exec::SpatialJoinExec;
use super::filter::Expr;
use crate::prepared::bounds::Bounds;

/// Gives scans below spatial joins a filter that the joins fill in. It runs when the plan has its shape.
#[derive(Debug, Default)]
pub(crate) struct PushExtents;

impl PhysicalOptimizerRule for PushExtents {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if !config.optimizer.enable_dynamic_filter_pushdown {
            return Ok(plan);
        }
        plan.transform_up(|plan| {
            let Some(join) = plan.downcast_ref::<SpatialJoinExec>() else { return Ok(Transformed::no(plan)) };
            let Some(geometry) = join.filterable_geometry() else { return Ok(Transformed::no(plan)) };
            let mut filters = Vec::new();
            Ok(match push(join.right(), geometry, false, &mut filters)? {
                Some(right) => Transformed::yes(Arc::new(join.with_filters(right, filters)) as _),
                None => Transformed::no(plan),
            })
        })
        .data()
    }

    fn name(&self) -> &'static str {
        "push_extents"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The ends of a box, in the order of [`ExtentFilter::columns`].
const ENDS: [&str; 4] = ["xmin", "ymin", "xmax", "ymax"];

/// A filter of a scan, over the boxes beside a geometry.
#[derive(Debug, Clone)]
pub(super) struct ExtentFilter {
    dynamic: Arc<DynamicFilterPhysicalExpr>,
    columns: [Expr; 4],
    single: bool,
}

impl ExtentFilter {
    pub(super) fn expression(&self) -> Expr {
        Arc::clone(&self.dynamic) as _
    }

    /// Lets pass what may meet one of the boxes, and what has no box of its own; everything when nothing is known.
    pub(super) fn fill_in(&self, boxes: Option<&[Bounds<2>]>) -> Result<()> {
        let all = boxes.and_then(|boxes| {
            let any = boxes.iter().map(|one| self.meets(one)).collect::<Option<Vec<Expr>>>()?;
            any.into_iter().reduce(|a, b| Arc::new(BinaryExpr::new(a, Operator::Or, b)))
        });
        self.dynamic.update(all.unwrap_or_else(|| lit(true)))?;
        self.dynamic.mark_complete();
        Ok(())
    }

    /// `None` when everything meets the box.
    fn meets(&self, bounds: &Bounds<2>) -> Option<Expr> {
        let sides = [
            (Operator::LtEq, bounds.max[0]),
            (Operator::LtEq, bounds.max[1]),
            (Operator::GtEq, bounds.min[0]),
            (Operator::GtEq, bounds.min[1]),
        ];
        self.columns
            .iter()
            .zip(sides)
            .filter_map(|(column, (operator, value))| {
                let value = self.outwards(value, operator == Operator::LtEq)?;
                let inside = BinaryExpr::new(Arc::clone(column), operator, Arc::new(Literal::new(value)));
                let unknown: Expr = Arc::new(IsNullExpr::new(Arc::clone(column)));
                Some(Arc::new(BinaryExpr::new(unknown, Operator::Or, Arc::new(inside))) as Expr)
            })
            .reduce(|a, b| Arc::new(BinaryExpr::new(a, Operator::And, b)))
    }

    /// A number of the columns' type, moved away from the box where that type cannot tell it; `None` for infinity.
    fn outwards(&self, value: f64, up: bool) -> Option<ScalarValue> {
        if !self.single {
            return value.is_finite().then_some(ScalarValue::Float64(Some(value)));
        }
        let near = value as f32;
        let moved = match up {
            true if f64::from(near) < value => near.next_up(),
            false if f64::from(near) > value => near.next_down(),
            _ => near,
        };
        moved.is_finite().then_some(ScalarValue::Float32(Some(moved)))
    }
}

/// The plan with filters in its scans; `None` when no scan below has boxes for the column. Only what neither adds rows nor
/// looks at more than one of them is passed through.
fn push(
    plan: &Arc<dyn ExecutionPlan>,
    column: usize,
    delta: bool,
    filters: &mut Vec<ExtentFilter>,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(source) = plan.downcast_ref::<DataSourceExec>() {
        let scan = source.data_source().downcast_ref::<FileScanConfig>();
        let pushed = match scan {
            Some(scan) if delta => widened(scan, column)?.and_then(|scan| into_scan(&scan, column, filters)),
            Some(scan) => into_scan(scan, column, filters),
            None => None,
        };
        return Ok(pushed.map(|scan| DataSourceExec::from_data_source(scan) as _));
    }
    if plan.is::<UnionExec>() {
        let mut children = Vec::new();
        let before = filters.len();
        for child in plan.children() {
            children.push(push(child, column, delta, filters)?.unwrap_or_else(|| Arc::clone(child)));
        }
        return if filters.len() == before { Ok(None) } else { with_children(plan, children).map(Some) };
    }
    let Some((child, below)) = single_input(plan, column) else { return Ok(None) };
    match push(&child, below, delta || is_delta(plan), filters)? {
        Some(child) => with_children(plan, vec![child]).map(Some),
        None => Ok(None),
    }
}

/// The only input of a plan that passes rows on as they are, or drops some by themselves, and the column there.
fn single_input(plan: &Arc<dyn ExecutionPlan>, column: usize) -> Option<(Arc<dyn ExecutionPlan>, usize)> {
    let [child] = <[_; 1]>::try_from(plan.children()).ok()?;
    let below = if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        projection.expr().get(column)?.expr.downcast_ref::<Column>()?.index()
    } else if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        match filter.projection() {
            Some(chosen) => *chosen.get(column)?,
            None => column,
        }
    } else if plan.is::<RepartitionExec>()
        || plan.is::<CoalescePartitionsExec>()
        || plan.is::<CooperativeExec>()
    {
        if plan.fetch().is_some() {
            return None;
        }
        column
    } else if is_delta(plan) && matches!(plan.cardinality_effect(), CardinalityEffect::Equal) {
        // With deletion vectors, for which it counts rows, the effect is another.
        child.schema().index_of(plan.schema().field(column).name()).ok()?
    } else {
        return None;
    };
    Some((Arc::clone(child), below))
}

fn is_delta(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.name() == "DeltaScanExec"
}

fn with_children(
    plan: &Arc<dyn ExecutionPlan>,
    children: Vec<Arc<dyn ExecutionPlan>>,
) -> Result<Arc<dyn ExecutionPlan>> {
    Arc::clone(plan).replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep))
}

fn into_scan(
    scan: &FileScanConfig,
    column: usize,
    filters: &mut Vec<ExtentFilter>,
) -> Option<FileScanConfig> {
    if scan.limit.is_some() {
        return None;
    }
    let parquet = scan.file_source().downcast_ref::<ParquetSource>()?;
    let schema = parquet.table_schema().table_schema();
    let place = match parquet.projection() {
        Some(projection) => projection.as_ref().get(column)?.expr.downcast_ref::<Column>()?.index(),
        None => column,
    };
    let geometry = schema.fields().get(place)?.name();
    let mut columns = Vec::new();
    let mut single = false;
    for end in ENDS {
        let name = format!("_{geometry}_{end}");
        let (place, field) = schema.column_with_name(&name)?;
        single |= match field.data_type() {
            DataType::Float32 => true,
            DataType::Float64 => false,
            _ => return None,
        };
        columns.push(Arc::new(Column::new(&name, place)) as Expr);
    }
    let columns: [Expr; 4] = columns.try_into().ok()?;
    let dynamic = Arc::new(DynamicFilterPhysicalExpr::new(columns.to_vec(), lit(true)));
    let predicate = parquet.filter().into_iter().chain(std::iter::once(Arc::clone(&dynamic) as Expr));
    let source = parquet.with_predicate(conjunction(predicate));
    filters.push(ExtentFilter { dynamic, columns, single });
    Some(FileScanConfigBuilder::from(scan.clone()).with_source(Arc::new(source)).build())
}

/// A scan of a Delta table that knows of the boxes beside the geometry of a column, as single floats behind the other
/// columns of its files; what it gives stays the same. `None` when the column is no geometry or the scan is of another make.
fn widened(scan: &FileScanConfig, column: usize) -> Result<Option<FileScanConfig>> {
    let Some(parquet) = scan.file_source().downcast_ref::<ParquetSource>() else { return Ok(None) };
    let table = parquet.table_schema();
    let file = table.file_schema();
    let place = match parquet.projection() {
        Some(projection) => {
            let expression = projection.as_ref().get(column).map(|one| &one.expr);
            expression.and_then(|expression| Some(expression.downcast_ref::<Column>()?.index()))
        }
        None => Some(column),
    };
    let geometry = place.and_then(|place| file.fields().get(place)).filter(|field| is_geometry(field));
    let Some(geometry) = geometry else { return Ok(None) };
    let names = ENDS.map(|end| format!("_{}_{end}", geometry.name()));
    if names.iter().all(|name| file.column_with_name(name).is_some()) {
        return Ok(Some(scan.clone()));
    }
    if !scan.output_ordering.is_empty() || names.iter().any(|name| file.column_with_name(name).is_some()) {
        return Ok(None);
    }
    let before = file.fields().len();
    let boxes = names.iter().map(|name| Arc::new(Field::new(name, DataType::Float32, true)));
    let fields: Vec<_> = file.fields().iter().cloned().chain(boxes).collect();
    let wider = Schema::new_with_metadata(fields, file.metadata().clone());
    let table = TableSchema::builder(Arc::new(wider))
        .with_table_partition_cols(table.table_partition_cols().to_vec())
        .with_virtual_columns(table.virtual_columns().clone())
        .build();
    // What lies behind the columns of the files moves.
    let moved = |expression: Expr| {
        expression
            .transform(|expression| {
                Ok(match expression.downcast_ref::<Column>() {
                    Some(column) if column.index() >= before => {
                        Transformed::yes(
                            Arc::new(Column::new(column.name(), column.index() + ENDS.len())) as Expr
                        )
                    }
                    _ => Transformed::no(expression),
                })
            })
            .data()
    };
    let mut source =
        ParquetSource::new(table).with_table_parquet_options(parquet.table_parquet_options().clone());
    if let Some(factory) = parquet.parquet_file_reader_factory() {
        source = source.with_parquet_file_reader_factory(Arc::clone(factory));
    }
    if let Some(predicate) = parquet.filter() {
        source = source.with_predicate(moved(predicate)?);
    }
    let mut source: Arc<dyn FileSource> = Arc::new(source);
    if let Some(projection) = parquet.projection() {
        let moved: Result<Vec<ProjectionExpr>> = projection
            .iter()
            .map(|one| Ok(ProjectionExpr::new(moved(Arc::clone(&one.expr))?, one.alias.clone())))
            .collect();
        let Some(projected) = source.try_pushdown_projection(&ProjectionExprs::new(moved?))? else {
            return Ok(None);
        };
        source = projected;
    }
    let unknown = |statistics: &Statistics| {
        let mut statistics = statistics.clone();
        if statistics.column_statistics.len() >= before {
            let more = std::iter::repeat_with(ColumnStatistics::new_unknown).take(ENDS.len());
            statistics.column_statistics.splice(before..before, more);
        }
        statistics
    };
    let groups = scan.file_groups.iter().map(|group| {
        let files = group.iter().map(|file| {
            let mut file = file.clone();
            file.statistics = file.statistics.as_deref().map(|own| Arc::new(unknown(own)));
            file
        });
        FileGroup::new(files.collect())
    });
    let groups = groups.collect();
    let statistics = unknown(&scan.statistics());
    let builder = FileScanConfigBuilder::from(scan.clone()).with_source(source);
    Ok(Some(builder.with_file_groups(groups).with_statistics(statistics).build()))
}

#[cfg(test)]
mod tests {
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::execution::SessionStateBuilder;
    use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};

    /// `p`: points at x = n, ten row groups of a thousand; boxes beside them but for some, which say nothing.
    async fn context(folder: &std::path::Path) -> SessionContext {
        let state = SessionStateBuilder::new()
            .with_config(SessionConfig::new().with_target_partitions(2))
            .with_default_features()
            .with_physical_optimizer_rules(crate::join::physical_optimizer_rules());
        let context = SessionContext::new_with_state(state.build());
        crate::register(&context).unwrap();
        let file = folder.join("p.parquet");
        let file = file.to_string_lossy();
        let copy = format!(
            "COPY (SELECT n, st_point(n, 0) AS geom, nullif(n, 7001)::float AS _geom_xmin, 0::float AS _geom_ymin,
               nullif(n, 7001)::float AS _geom_xmax, 0::float AS _geom_ymax
             FROM generate_series(0, 9999) AS s(n) ORDER BY n)
             TO '{file}' STORED AS PARQUET OPTIONS ('format.max_row_group_size' '1000')"
        );
        context.sql(&copy).await.unwrap().collect().await.unwrap();
        context.register_parquet("p", file, ParquetReadOptions::default()).await.unwrap();
        context
    }

    async fn ask(context: &SessionContext, sql: &str) -> String {
        let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
        pretty_format_batches(&batches).unwrap().to_string()
    }

    #[tokio::test]
    async fn row_groups_out_of_reach_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let context = context(folder.path()).await;
        let near = "FROM p JOIN (SELECT st_point(x, 0) AS geom FROM (VALUES (500.0), (9990.0)) AS t(x)) AS b \
                    ON st_dwithin(p.geom, b.geom, 2)";
        let plan = ask(&context, &format!("EXPLAIN SELECT n {near}")).await;
        assert!(plan.contains("SpatialJoinExec") && plan.contains("predicate=DynamicFilter"), "{plan}");
        let told = ask(&context, &format!("EXPLAIN ANALYZE SELECT n {near}")).await;
        assert!(
            told.contains("_geom_xmin@2 <= 502.00003") && told.contains("_geom_xmax@4 >= 9987.999"),
            "{told}"
        );
        // Two within reach, and the one with the row that has no box.
        assert!(told.contains("row_groups_pruned_statistics=10 total → 3 matched"), "{told}");
        let rows = ask(&context, &format!("SELECT array_agg(n ORDER BY n) {near}")).await;
        assert!(rows.contains("[498, 499, 500, 501, 502, 9988, 9989, 9990, 9991, 9992]"), "{rows}");
    }

    #[tokio::test]
    async fn rows_that_may_come_out_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let context = context(folder.path()).await;
        let b = "(SELECT st_point(x, 0) AS geom FROM (VALUES (500.0)) AS t(x)) AS b";
        // A row without a box may lie anywhere, and a row that meets nothing comes out of an outer join.
        let all = format!("SELECT count(*) FROM p LEFT JOIN {b} ON st_dwithin(p.geom, b.geom, 2)");
        assert!(ask(&context, &all).await.contains(" 10000 "));
        assert!(!ask(&context, &format!("EXPLAIN {all}")).await.contains("DynamicFilter"));
        let far = "(SELECT st_point(7001, 0) AS geom UNION ALL SELECT NULL) AS b";
        let one = format!("SELECT n FROM p JOIN {far} ON st_intersects(p.geom, b.geom)");
        assert!(ask(&context, &one).await.contains(" 7001 "));
    }
}
