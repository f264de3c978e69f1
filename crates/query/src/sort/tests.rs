use std::sync::Arc;

use arrow::util::pretty::pretty_format_batches;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::PrefixSorts;

fn context(with_rule: bool, memory_bytes: usize, partitions: usize) -> SessionContext {
    let pool = FairSpillPool::new(memory_bytes);
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).build_arc().unwrap();
    let config = SessionConfig::new()
        .with_target_partitions(partitions)
        .with_batch_size(500)
        .set_usize("datafusion.execution.sort_spill_reservation_bytes", 64 << 10);
    let mut builder =
        SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features();
    if with_rule {
        builder.physical_optimizer_rules().get_or_insert_default().push(Arc::new(PrefixSorts));
    }
    SessionContext::new_with_state(builder.build())
}

async fn answer(context: &SessionContext, sql: &str) -> String {
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    pretty_format_batches(&batches).unwrap().to_string()
}

/// Numbers with repeats, nulls, NaN and both zeros, texts short and long, and a list.
const ROWS: &str = "SELECT n, nullif(n * 7919 % 101, 50) AS a,
    CASE WHEN n % 97 = 0 THEN NULL WHEN n % 89 = 0 THEN 'NaN'::double WHEN n % 83 = 0 THEN -0.0
         ELSE (n * 31 % 1009) / 8.0 END AS b,
    arrow_cast(CASE WHEN n % 11 = 0 THEN NULL ELSE repeat(chr((65 + n % 5)::bigint), (n % 40)::bigint) END, 'Utf8View') AS t,
    arrow_cast(repeat('x', (n % 30)::bigint), 'BinaryView') AS y,
    (n * 1e-3)::decimal(20, 6) AS d, [n, n + 1] AS l
  FROM generate_series(1, 20000) AS s(n)";

#[tokio::test]
async fn sorts_as_datafusion_does_with_and_without_enough_memory() {
    let orders = [
        "a, n",
        "b DESC NULLS LAST, n DESC",
        "b, a DESC NULLS FIRST, n",
        "t DESC, b, n",
        "t NULLS FIRST, n",
        "d DESC, n",
        "y, a, n",
        "n % 2, y, n",
    ];
    for (memory, partitions, must_spill) in [(1 << 30, 3, false), (3 << 20, 1, true)] {
        let (ours, theirs) = (context(true, memory, partitions), context(false, 1 << 30, partitions));
        for order in orders {
            let sql = format!("SELECT * FROM ({ROWS}) ORDER BY {order}");
            assert_eq!(answer(&ours, &sql).await, answer(&theirs, &sql).await, "{order}");
        }
        let told = answer(&ours, &format!("EXPLAIN ANALYZE SELECT * FROM ({ROWS}) ORDER BY b, n")).await;
        let line = told.lines().find(|line| line.contains("PrefixSortExec")).unwrap();
        assert!(line.contains("output_rows=20.00 K") || line.contains("output_rows=20000"), "{line}");
        assert_eq!(line.contains("spill_count") && !line.contains("spill_count=0"), must_spill, "{line}");
    }
}

#[tokio::test]
async fn leaves_alone_what_stops_early() {
    let told = answer(&context(true, 1 << 30, 3), &format!("EXPLAIN {ROWS} ORDER BY b LIMIT 5")).await;
    assert!(told.contains("TopK") && !told.contains("PrefixSort"), "{told}");
}

#[tokio::test]
async fn an_empty_input_and_rows_without_columns_to_give() {
    let context = context(true, 1 << 30, 3);
    assert_eq!(
        answer(&context, &format!("SELECT n FROM ({ROWS}) WHERE n < 0 ORDER BY b")).await.lines().count(),
        2
    );
    let sql = format!("SELECT count(*) FROM (SELECT row_number() OVER (ORDER BY b, n) FROM ({ROWS}))");
    assert!(answer(&context, &sql).await.contains("20000"));
}
