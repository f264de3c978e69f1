use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::catalog::MemTable;
use datafusion::common::not_impl_err;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _};
use datafusion::execution::{SessionStateBuilder, TaskContext};
use datafusion::physical_plan::{collect, displayable};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_proto::physical_plan::{
    AsExecutionPlan, PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf::PhysicalPlanNode;

use super::*;

#[derive(Debug)]
struct Codec;

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        decode(bytes, inputs, &|node, schema| {
            let context = PhysicalPlanDecodeContext::new(context, self);
            converter.proto_to_physical_expr(node, schema, &context)
        })
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        match encode(node.as_ref(), &|expression| converter.physical_expr_to_proto(expression, self))? {
            Some(written) => bytes.extend(written),
            None => return not_impl_err!("{}", node.name()),
        }
        Ok(())
    }
}

/// Readings and places in three partitions each.
async fn context() -> SessionContext {
    let mut config = SessionConfig::new().with_target_partitions(3).with_round_robin_repartition(false);
    config.options_mut().optimizer.enable_dynamic_filter_pushdown = false;
    let builder = SessionStateBuilder::new().with_config(config).with_default_features();
    let context = SessionContext::new_with_state(crate::configure(builder).build());
    crate::register(&context).unwrap();
    for (name, sql) in [
        (
            "readings",
            "SELECT i AS n, i % 5 AS k, arrow_cast(i * 40000000, 'Timestamp(µs, \"UTC\")') AS ts, i * 0.5 AS v, \
             st_point(i % 40, i % 30) AS geom FROM generate_series(0, 600) AS g(i)",
        ),
        (
            "places",
            "SELECT i AS p, i % 5 AS k, arrow_cast(i * 900000000, 'Timestamp(µs, \"UTC\")') AS since, \
             arrow_cast((i + 1) * 900000000, 'Timestamp(µs, \"UTC\")') AS until, \
             st_buffer(st_point(i * 3, i * 2), 2.5) AS geom FROM generate_series(0, 20) AS g(i)",
        ),
    ] {
        let rows = context.sql(sql).await.unwrap().collect().await.unwrap();
        let rows = arrow::compute::concat_batches(&rows[0].schema(), &rows).unwrap();
        let third = rows.num_rows() / 3;
        let parts = [(0, third), (third, third), (2 * third, rows.num_rows() - 2 * third)];
        let parts = parts.map(|(from, count)| vec![rows.slice(from, count)]).to_vec();
        let table = MemTable::try_new(rows.schema(), parts).unwrap();
        context.register_table(name, Arc::new(table)).unwrap();
    }
    context
}

async fn rows(plan: Arc<dyn ExecutionPlan>, context: &SessionContext) -> Vec<String> {
    let batches = collect(plan, context.task_ctx()).await.unwrap();
    let mut lines: Vec<String> =
        pretty_format_batches(&batches).unwrap().to_string().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn written(plan: &Arc<dyn ExecutionPlan>) -> String {
    displayable(plan.as_ref()).indent(false).to_string()
}

/// Takes the plan of a query apart, writes and reads it, and compares the answers; gives the plan.
async fn there_and_back(sql: &str) -> String {
    let context = context().await;
    let statement = {
        let dialect = datafusion::sql::sqlparser::dialect::GenericDialect {};
        let tokens = crate::time::tokens_with_asof(&dialect, sql).unwrap();
        let mut parser = datafusion::sql::parser::DFParserBuilder::new(tokens);
        parser = parser.with_dialect(&dialect);
        let mut statement = parser.build().unwrap().parse_statement().unwrap();
        crate::time::mark_asof_joins(&mut statement);
        statement
    };
    let logical = context.state().statement_to_plan(statement).await.unwrap();
    // Operators share what they have met: a plan is run once.
    let plan = context.state().create_physical_plan(&logical).await.unwrap();
    let expected = rows(plan, &context).await;
    let plan = context.state().create_physical_plan(&logical).await.unwrap();
    assert!(expected.len() > 5, "{sql}: {expected:?}");
    let plan = plan
        .transform_up(|node| {
            Ok(match separable(&node, 3)? {
                Some(other) => Transformed::yes(other),
                None => Transformed::no(node),
            })
        })
        .data()
        .unwrap();
    assert_eq!(rows(Arc::clone(&plan), &context).await, expected, "{sql}: taken apart\n{}", written(&plan));
    let message = PhysicalPlanNode::try_from_physical_plan(Arc::clone(&plan), &Codec).unwrap();
    let message = PhysicalPlanNode::decode(message.encode_to_vec().as_slice()).unwrap();
    let back = message.try_into_physical_plan(&context.task_ctx(), &Codec).unwrap();
    assert_eq!(written(&back), written(&plan), "{sql}");
    assert_eq!(rows(Arc::clone(&back), &context).await, expected, "{sql}: read again");
    let again = message.try_into_physical_plan(&context.task_ctx(), &Codec).unwrap();
    let raised = again
        .transform_up(|node| {
            Ok(match local(&node)? {
                Some(other) => Transformed::yes(other),
                None => Transformed::no(node),
            })
        })
        .data()
        .unwrap();
    assert_eq!(rows(Arc::clone(&raised), &context).await, expected, "{sql}: with local operators");
    written(&plan)
}

#[tokio::test]
async fn spatial_joins_of_every_type() {
    for join in ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"] {
        let sql = format!(
            "SELECT r.n, p.p FROM readings r {join} places p ON st_intersects(p.geom, r.geom) AND r.n <> p.p"
        );
        let plan = there_and_back(&sql).await;
        assert!(plan.contains("SpatialJoinExec"), "{plan}");
    }
    for test in ["EXISTS", "NOT EXISTS"] {
        let inner = "(SELECT 1 FROM readings r WHERE st_dwithin(p.geom, r.geom, 1))";
        let plan = there_and_back(&format!("SELECT p FROM places p WHERE {test} {inner}")).await;
        assert!(plan.contains("SpatialJoinExec"), "{plan}");
    }
}

#[tokio::test]
async fn the_nearest_and_how_far() {
    let knn = "SELECT p.p, r.n, st_distance(p.geom, r.geom) AS d FROM places p JOIN readings r ON st_knn(p.geom, r.geom, 3)";
    assert!(there_and_back(knn).await.contains("SpatialJoinExec"));
}

#[tokio::test]
async fn overlaps_of_every_type() {
    for join in ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"] {
        let sql =
            format!("SELECT r.n, p.p FROM places p {join} readings r ON r.ts >= p.since AND r.ts < p.until");
        let plan = there_and_back(&sql).await;
        assert!(plan.contains("OverlapJoinExec"), "{plan}");
    }
}

#[tokio::test]
async fn the_row_before() {
    for sql in [
        "SELECT p.p, r.v FROM places p ASOF JOIN readings r ON p.k = r.k AND p.since >= r.ts",
        "SELECT r.n, p.p FROM readings r ASOF LEFT JOIN places p ON p.k = r.k AND r.ts > p.since",
        "SELECT p.p, r.v FROM places p ASOF JOIN readings r ON p.since <= r.ts",
    ] {
        let plan = there_and_back(sql).await;
        assert!(plan.contains("AsofJoinExec") && !plan.contains("AsofStreamedExec"), "{plan}");
    }
}

#[tokio::test]
async fn buckets_and_gaps() {
    let sql = "SELECT k, time_bucket('5 minutes', ts) AS b, avg(v), last(v, ts) FROM readings GROUP BY 1, 2";
    let plan = there_and_back(sql).await;
    assert!(!plan.contains("BucketsExec") && plan.contains("mode=Partial"), "{plan}");
    for keys in ["k, ", ""] {
        let sql = format!(
            "SELECT {keys}time_bucket_gapfill('1 minute', ts) AS b, avg(v), locf(avg(v)), interpolate(max(v)) \
             FROM readings WHERE n % 7 < 3 GROUP BY {keys}b"
        );
        let plan = there_and_back(&sql).await;
        assert!(plan.contains("GapFillExec") && !plan.contains("finishes"), "{plan}");
    }
}

#[tokio::test]
async fn nested_loops_that_note_the_left_side() {
    for join in ["LEFT JOIN", "RIGHT JOIN", "JOIN"] {
        there_and_back(&format!("SELECT p.p, r.n FROM places p {join} readings r ON r.n + p.p < 4")).await;
    }
    let anti = "SELECT r.n FROM readings r WHERE NOT EXISTS (SELECT 1 FROM places p WHERE p.p * 3 > r.n)";
    there_and_back(anti).await;
}

#[test]
fn what_is_no_operator_is_an_error() {
    let read: Read<'_> = &|_, _| not_impl_err!("nothing to read");
    for bytes in [&[255, 255, 255][..], &[]] {
        assert!(decode(bytes, &[], read).is_err());
    }
    let join = Operator { kind: Some(Kind::SpatialJoin(message::Join::default())) }.encode_to_vec();
    assert!(decode(&join, &[], read).unwrap_err().to_string().contains("0 inputs"));
}
