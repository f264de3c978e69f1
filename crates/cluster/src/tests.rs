use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::physical_plan::displayable;
use datafusion_proto::physical_plan::AsExecutionPlan;
use datafusion_proto::protobuf::PhysicalPlanNode;
use tokio::task::JoinHandle;
use twinlake_contracts::{TableName, TableSpec, TableStore, WriteMode};
use twinlake_lake::{Lake, LakeOptions};
use twinlake_query::{Engine, Session, SessionSettings};

use super::*;
use crate::codec::Codec;
use crate::planner::base_config;

/// Runs a test where planning has the stack that it has in the program.
fn run(test: impl Future<Output = ()> + Send + 'static) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(4).thread_stack_size(16 << 20).enable_all().build().unwrap();
    runtime.block_on(runtime.spawn(test)).unwrap();
    // Executors in the middle of a call are not waited for.
    runtime.shutdown_background();
}

const PATIENCE: Duration = Duration::from_secs(10);

fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut lines = Vec::new();
    for batch in batches {
        let columns: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            lines.push(cells.join("|"));
        }
    }
    lines
}

/// A lake with readings in several files and some that are fresh, and places.
async fn lake(folder: &std::path::Path) -> Arc<Lake> {
    let options = LakeOptions { local_dir: folder.to_owned(), ..LakeOptions::default() };
    let lake = Lake::open(folder.to_str().unwrap(), options).await.unwrap();
    let engine = Engine::new(Arc::clone(&lake));
    let session = engine.session(SessionSettings::default()).unwrap();
    let readings = "SELECT i AS n, 'sensor ' || (i % 7) AS sensor, to_timestamp_micros(1539059573000000 + i * 20000000) AS ts, \
                    CASE WHEN i % 11 = 0 THEN NULL ELSE i * 0.25 END AS v, \
                    st_point(24.9 + (i % 97) * 0.001, 60.1 + (i % 89) * 0.001) AS geom FROM generate_series(FROM, TO) AS g(i)";
    let places = "SELECT i AS p, 'sensor ' || (i % 7) AS sensor, to_timestamp_micros(1539059573000000 + i * 900000000) AS since, \
                  to_timestamp_micros(1539059573000000 + (i + 1) * 900000000) AS until, \
                  st_buffer(st_point(24.9 + i * 0.003, 60.1 + i * 0.002), 0.004) AS geom FROM generate_series(0, 30) AS g(i)";
    for (name, sql, commits, size) in [("plant.reading", readings, 6, 700_u64), ("plant.place", places, 1, 0)]
    {
        let name = TableName::parse(name).unwrap();
        let mut table = None;
        for number in 0..=commits {
            let sql = sql.replace(
                "FROM, TO",
                &format!("{}, {}", number * size, ((number + 1) * size).saturating_sub(1)),
            );
            if number == commits && size == 0 {
                break;
            }
            let rows = session.collect(&sql).await.unwrap();
            let schema = rows[0].schema();
            if table.is_none() {
                let spec = TableSpec { name: name.clone(), schema, description: String::new() };
                table = Some(lake.open_table(spec).await.unwrap());
            }
            let table = table.as_ref().unwrap();
            for batch in rows {
                table.add_fresh("test", batch).await.unwrap();
            }
            // The last ones wait for their commit.
            if number < commits {
                table.commit("test", number + 1, WriteMode::Append).await.unwrap();
            }
        }
    }
    lake
}

fn free_port() -> u16 {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// How many orders of the job "slow" were carried out.
static SLOW: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug)]
struct Shouting;

#[async_trait::async_trait]
impl Worker for Shouting {
    async fn run(&self, job: &str, order: &str) -> twinlake_contracts::Result<String> {
        if job == "slow" {
            tokio::time::sleep(Duration::from_millis(200)).await;
            SLOW.fetch_add(1, Ordering::SeqCst);
        }
        Ok(format!("{job}: {}", order.to_uppercase()))
    }
}

/// A scheduler and two executors in this process; ended when dropped.
struct Processes {
    address: Address,
    tasks: Vec<JoinHandle<()>>,
}

impl Processes {
    async fn start() -> Self {
        let (ready, port) = tokio::sync::oneshot::channel();
        let options = SchedulerOptions { listen: local(0), executor_timeout: Duration::from_secs(6) };
        let told = move |address: SocketAddr| ready.send(address.port()).unwrap();
        let mut tasks = vec![tokio::spawn(async move {
            run_scheduler(options, told, std::future::pending()).await.unwrap();
        })];
        let port = tokio::time::timeout(PATIENCE, port).await.unwrap().unwrap();
        let address: Address = format!("ballista://127.0.0.1:{port}?partitions=3").parse().unwrap();
        for _ in 0..2 {
            let options = ExecutorOptions {
                scheduler: address.clone(),
                patience: PATIENCE,
                listen: local(free_port()),
                reached_as: None,
                work_dir: None,
                slots: NonZeroUsize::new(2).unwrap(),
                memory_bytes: Some(1 << 30),
                worker: Some(Arc::new(Shouting)),
            };
            tasks.push(tokio::spawn(async move { run_executor(options).await.unwrap() }));
        }
        Self { address, tasks }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn sessions(lake: &Arc<Lake>, address: &Address) -> (Session, Session) {
    let here = Engine::new(Arc::clone(lake));
    let there = Engine::new(Arc::clone(lake));
    there.run_on(Arc::new(Cluster::new(address.clone()).unwrap()));
    let open = |engine: &Arc<Engine>| engine.session(SessionSettings::default()).unwrap();
    let (here, there) = (open(&here), open(&there));
    // So that small files are cut, too.
    there.sql("SET datafusion.optimizer.repartition_file_min_size = 1000").await.unwrap();
    (here, there)
}

/// The answer from the cluster, which must be the one from here; gives the plan's text.
async fn same(here: &Session, there: &Session, sql: &str, ordered: bool) {
    let frame = there.sql(sql).await.unwrap();
    let plan = frame.create_physical_plan().await.unwrap();
    let plan = displayable(plan.as_ref()).indent(true).to_string();
    assert!(plan.starts_with("ClusterExec"), "{sql} runs here:\n{plan}");
    let expected = here.collect(sql).await.unwrap();
    let frame = there.sql(sql).await.unwrap();
    let found = match tokio::time::timeout(Duration::from_mins(1), frame.collect()).await {
        Ok(found) => found.unwrap_or_else(|error| panic!("{sql}: {error}")),
        Err(late) => panic!("{sql}: no answer within a minute ({late})"),
    };
    if let (Some(found), Some(expected)) = (found.first(), expected.first()) {
        for (found, expected) in found.schema().fields().iter().zip(expected.schema().fields()) {
            assert_eq!(found.metadata(), expected.metadata(), "{sql}: {}", found.name());
        }
    }
    let (mut found, mut expected) = (lines(&found), lines(&expected));
    if !ordered {
        found.sort();
        expected.sort();
    }
    assert!(!expected.is_empty(), "{sql}: nothing to compare");
    assert_eq!(found, expected, "{sql}");
}

#[test]
fn answers_are_those_of_this_process() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let lake = lake(folder.path()).await;
        let processes = Processes::start().await;
        let (here, there) = sessions(&lake, &processes.address).await;
        for sql in [
            // plain SQL over files and fresh rows
            "SELECT sensor, count(*), sum(v), min(ts), max(n) FROM plant.reading GROUP BY sensor",
            "SELECT count(*), count(DISTINCT sensor), sum(n) FROM plant.reading WHERE v > 20",
            "SELECT r.n, p.p FROM plant.reading r JOIN plant.place p ON r.sensor = p.sensor AND r.n < p.p * 9",
            "SELECT n FROM plant.reading WHERE n > (SELECT avg(n) FROM plant.reading) AND sensor IN ('sensor 1', 'sensor 4')",
            "SELECT p.p FROM plant.place p LEFT JOIN plant.reading r ON r.n = p.p * 400 WHERE r.n IS NULL",
            "SELECT sensor FROM plant.place WHERE NOT EXISTS (SELECT 1 FROM plant.reading r WHERE r.n = p * 1000)",
            "SELECT n, row_number() OVER (PARTITION BY sensor ORDER BY ts) AS place FROM plant.reading",
            // functions of space, with the reference systems of their results
            "SELECT n, st_srid(st_transform(geom, 'EPSG:3879')) AS s, round(st_x(st_transform(geom, 'EPSG:3879'))) AS x, geom \
             FROM plant.reading WHERE st_dwithin_sphere(geom, st_point(24.95, 60.15), 900)",
            "SELECT n FROM plant.reading WHERE st_srid(st_transform(geom, 'EPSG:3067')) = 3067 AND n % 9 = 0",
            "SELECT sensor, st_astext(st_extent(geom)) AS e FROM plant.reading GROUP BY sensor",
            // joins of space, with each side kept
            "SELECT r.n, p.p FROM plant.reading r JOIN plant.place p ON st_intersects(p.geom, r.geom)",
            "SELECT r.n, p.p FROM plant.place p LEFT JOIN plant.reading r ON st_contains(p.geom, r.geom) AND r.n < 900",
            "SELECT r.n, p.p FROM plant.place p FULL JOIN plant.reading r ON st_within(r.geom, p.geom)",
            "SELECT p.p, st_distance(p.geom, r.geom) AS d FROM plant.place p JOIN plant.reading r ON st_knn(p.geom, r.geom, 2)",
            // joins and aggregates of time
            "SELECT r.n, p.p FROM plant.place p LEFT JOIN plant.reading r ON r.ts >= p.since AND r.ts < p.until",
            "SELECT p.p, r.n FROM plant.place p ASOF JOIN plant.reading r ON p.sensor = r.sensor AND p.until >= r.ts",
            "SELECT r.n, p.p FROM plant.reading r ASOF LEFT JOIN plant.place p ON p.sensor = r.sensor AND r.ts > p.since",
            "SELECT sensor, time_bucket('15 minutes', ts) AS b, avg(v), last(v, ts), first(n, ts) FROM plant.reading GROUP BY 1, 2",
            "SELECT sensor, time_bucket_gapfill('2 minutes', ts) AS b, avg(v), locf(avg(v)), interpolate(max(v)) \
             FROM plant.reading WHERE n % 5 < 2 GROUP BY 1, 2",
            "SELECT time_bucket_gapfill('1 minute', ts) AS b, count(*) FROM plant.reading GROUP BY 1",
        ] {
            same(&here, &there, sql, false).await;
        }
        for sql in [
            "SELECT n, v FROM plant.reading ORDER BY v DESC NULLS LAST, n LIMIT 25",
            "SELECT sensor, n FROM plant.reading ORDER BY sensor, n",
            "SELECT p, st_area(geom) AS a FROM plant.place ORDER BY p",
        ] {
            same(&here, &there, sql, true).await;
        }
    });
}

#[test]
fn work_is_done_once_an_order() {
    run(async {
        let processes = Processes::start().await;
        let cluster = Cluster::new(processes.address.clone()).unwrap();
        let orders = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        let mut done = cluster.work("job", orders).await.unwrap();
        done.sort();
        assert_eq!(done, ["job: A", "job: B", "job: C", "job: D", "job: E"]);
    });
}

#[test]
fn what_nobody_waits_for_is_cancelled() {
    run(async {
        let processes = Processes::start().await;
        let cluster = Cluster::new(processes.address.clone()).unwrap();
        let orders: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        let work = cluster.work("slow", orders);
        let late = tokio::time::timeout(Duration::from_secs(2), work).await;
        assert!(late.is_err(), "a hundred orders of 200 ms in four slots take five seconds");
        // Parts that run are finished; none begins any more.
        let mut seen = usize::MAX;
        while seen != SLOW.load(Ordering::SeqCst) {
            seen = SLOW.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!((1..100).contains(&seen), "{seen} of 100 were carried out");
        let done = cluster.work("job", vec!["after".to_owned()]).await.unwrap();
        assert_eq!(done, ["job: AFTER"]);
    });
}

#[test]
fn what_cannot_travel_runs_here_and_a_missing_scheduler_is_named() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let lake = lake(folder.path()).await;
        let address: Address = format!("ballista://127.0.0.1:{}", free_port()).parse().unwrap();
        let (_, there) = sessions(&lake, &address).await;
        for sql in [
            "SELECT 1 AS one",
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'plant'",
            "SELECT count(*) FROM meta.datasets",
            "EXPLAIN SELECT count(*) FROM plant.reading WHERE n > 3",
            "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t WHERE x < 3) \
             SELECT count(*) FROM t JOIN plant.place ON x = p",
        ] {
            assert!(!there.collect(sql).await.unwrap().is_empty(), "{sql}");
        }
        let error = there.collect("SELECT sum(n) FROM plant.reading").await.unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("cannot be reached"), "{error}");
    });
}

#[test]
fn plans_come_back_and_those_of_another_version_do_not() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let lake = lake(folder.path()).await;
        let engine = Engine::new(lake);
        let session = engine.session(SessionSettings::default()).unwrap();
        let sql = "SELECT st_srid(st_transform(geom, 'EPSG:3879')) AS s FROM plant.reading WHERE n > 5 AND v < 90 LIMIT 3";
        let plan = session.plan(twinlake_query::parse(sql).unwrap().pop_front().unwrap()).await.unwrap();
        let planning = session.context().state();
        let plan = described::describe(planning.optimize(&plan).unwrap()).unwrap();
        let plan = planning.query_planner().create_physical_plan(&plan, &planning).await.unwrap();
        let plan = lower::lower(plan, 2).unwrap();
        let text = |plan: &Arc<dyn datafusion::physical_plan::ExecutionPlan>| {
            displayable(plan.as_ref()).indent(false).to_string()
        };
        assert!(
            text(&plan).contains("ReadColumnsExec") && !text(&plan).contains("DeltaScan"),
            "{}",
            text(&plan)
        );
        let state = twinlake_query::worker_state(base_config(), Arc::default()).unwrap();
        let codec = Codec::new(&state);
        let message = PhysicalPlanNode::try_from_physical_plan(Arc::clone(&plan), &codec).unwrap();
        let back = message.try_into_physical_plan(&state.task_ctx(), &codec).unwrap();
        assert_eq!(text(&back), text(&plan));
        let rows = datafusion::physical_plan::collect(back, state.task_ctx()).await.unwrap();
        assert_eq!(lines(&rows), ["3879", "3879", "3879"]);
        let other = Codec::new(&state).of_version("0.0.1");
        let error = message.try_into_physical_plan(&state.task_ctx(), &other).unwrap_err().to_string();
        assert!(error.contains("this process is twinlake 0.0.1"), "{error}");
    });
}
