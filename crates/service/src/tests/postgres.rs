//! The PostgreSQL door, asked by tokio-postgres: the extended protocol with binary values, and simple queries.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, NoTls, SimpleQueryMessage};

use super::Town;

/// A client of the town's PostgreSQL door; `more` is added to its connection string.
pub(super) async fn connect(town: &Town, more: &str) -> Client {
    try_connect(town, more).await.unwrap()
}

async fn try_connect(town: &Town, more: &str) -> Result<Client, Error> {
    let address = town.running.postgres_addr();
    let settings = format!("host={} port={} user=anna dbname=twinlake {more}", address.ip(), address.port());
    let (client, connection) = tokio_postgres::connect(&settings, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The rows of a simple query, as text.
async fn simple(client: &Client, sql: &str) -> Vec<Vec<Option<String>>> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    messages
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|index| row.get(index).map(str::to_owned)).collect())
            }
            _ => None,
        })
        .collect()
}

async fn text(client: &Client, sql: &str) -> String {
    simple(client, sql)
        .await
        .concat()
        .into_iter()
        .map(Option::unwrap_or_default)
        .collect::<Vec<_>>()
        .join("|")
}

async fn refused(client: &Client, sql: &str) -> String {
    let error = client.simple_query(sql).await.map(|_| ()).expect_err(sql);
    error.code().map_or_else(|| format!("{error:?}"), |code| code.code().to_owned())
}

const SPEED: &str = "SELECT speed_mps FROM twin.vehicle WHERE vehicle_id = '22/1095'";

#[tokio::test(flavor = "multi_thread")]
async fn settings_belong_to_one_connection() {
    let town = Town::open().await;
    let (then, now) = (connect(&town, "").await, connect(&town, "").await);
    then.batch_execute("SET twin.as_of = '2018-10-09 07:32:53+03:00'").await.unwrap();
    assert_eq!(text(&then, "SHOW twin.as_of").await, "2018-10-09T04:32:53Z");
    assert_eq!(text(&now, "SHOW twin.as_of").await, "");
    assert_eq!((text(&then, SPEED).await, text(&now, SPEED).await), ("5.5".to_owned(), "7.25".to_owned()));
    now.batch_execute("SET twin.scenario = standstill").await.unwrap();
    assert_eq!((text(&then, SPEED).await, text(&now, SPEED).await), ("5.5".to_owned(), "0".to_owned()));
    then.batch_execute("RESET twin.as_of").await.unwrap();
    now.batch_execute("RESET ALL").await.unwrap();
    assert_eq!((text(&then, SPEED).await, text(&now, SPEED).await), ("7.25".to_owned(), "7.25".to_owned()));
    assert_eq!(refused(&now, "SET twin.as_of = 'yesterday'").await, "22023");
    assert_eq!(refused(&now, "SET twin.asof = '2018-10-09'").await, "42704");
    let at_start = connect(&town, "options='-c twin.as_of=2018-10-09T04:32:53Z'").await;
    assert_eq!(text(&at_start, SPEED).await, "5.5");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_statements_in_one_text_run_in_order() {
    let town = Town::open().await;
    let client = connect(&town, "").await;
    let both = format!("SET twin.as_of = '2018-10-09T04:32:53Z'; {SPEED}; RESET twin.as_of; {SPEED};");
    assert_eq!(text(&client, &both).await, "5.5|7.25");
    let error = client.simple_query("SELECT 1; SELECT nothing; SELECT 2").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42703");
    assert_eq!(text(&client, "SELECT 1").await, "1", "the connection goes on");
    assert!(simple(&client, "").await.is_empty());
    let correlated = "SELECT (SELECT count(*) FROM traffic.vehicle_position p WHERE p.vehicle_id = v.vehicle_id) \
                      FROM twin.vehicle v ORDER BY v.vehicle_id";
    assert_eq!(text(&client, correlated).await, "2|1");
}

#[tokio::test(flavor = "multi_thread")]
async fn twins_have_comments() {
    let town = Town::open().await;
    let client = connect(&town, "").await;
    for (table, comment) in [
        ("vehicle", "A vehicle on the road."),
        ("vehicle_history", "Every reading of: A vehicle on the road."),
    ] {
        let sql = format!(
            "SELECT pg_catalog.obj_description(oid, 'pg_class') FROM pg_catalog.pg_class WHERE relname = '{table}'"
        );
        assert_eq!(text(&client, &sql).await, comment);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_statement_sees_the_tense_of_its_moment() {
    let town = Town::open().await;
    let client = connect(&town, "").await;
    let statement = client.prepare("SELECT speed_mps FROM twin.vehicle WHERE vehicle_id = $1").await.unwrap();
    assert_eq!(statement.params(), [Type::TEXT]);
    let speed = || async { client.query_one(&statement, &[&"22/1095"]).await.unwrap().get::<_, f64>(0) };
    assert_eq!(speed().await, 7.25);
    client.execute("SET twin.as_of = '2018-10-09T04:32:53Z'", &[]).await.unwrap();
    assert_eq!(speed().await, 5.5);
    client.execute("RESET twin.as_of", &[]).await.unwrap();
    assert_eq!(speed().await, 7.25);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_every_type_travel_both_ways() {
    let town = Town::open().await;
    let client = connect(&town, "").await;
    let sql = "SELECT vehicle_id, ts, speed_mps, on_time, geom FROM traffic.vehicle_position \
               WHERE ts > $1 AND speed_mps < $2 AND on_time = $3 AND vehicle_id LIKE $4 LIMIT $5";
    let statement = client.prepare(sql).await.unwrap();
    assert_eq!(statement.params(), [Type::TIMESTAMPTZ, Type::FLOAT8, Type::BOOL, Type::TEXT, Type::INT8]);
    let kinds: Vec<Type> = statement.columns().iter().map(|column| column.type_().clone()).collect();
    assert_eq!(kinds, [Type::TEXT, Type::TIMESTAMPTZ, Type::FLOAT8, Type::BOOL, Type::TEXT]);
    let since = UNIX_EPOCH + Duration::from_secs(1_539_059_560); // 2018-10-09T04:32:40Z
    let row = client.query_one(&statement, &[&since, &6.0_f64, &true, &"22/%", &10_i64]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "22/1095");
    assert_eq!(row.get::<_, SystemTime>(1), since + Duration::from_secs(10));
    assert_eq!((row.get::<_, f64>(2), row.get::<_, bool>(3)), (5.5, true));
    // Point(24.94 60.17) with SRID 4326, as PostGIS writes it.
    assert_eq!(row.get::<_, &str>(4), "0101000020E6100000713D0AD7A3F03840F6285C8FC2154E40");

    let row = client
        .query_one(
            "SELECT $1::int, $2::bigint, $3::smallint, $4::real, $5::double precision, $6::text, $7::boolean, $8::bytea, \
             $9::text",
            &[
                &7_i32,
                &(i64::MAX),
                &-3_i16,
                &0.5_f32,
                &1e300_f64,
                &"Hämeentie",
                &false,
                &[0_u8, 255].as_slice(),
                &None::<&str>,
            ],
        )
        .await
        .unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, i64>(1), row.get::<_, i16>(2)), (7, i64::MAX, -3));
    assert_eq!((row.get::<_, f32>(3), row.get::<_, f64>(4)), (0.5, 1e300));
    assert_eq!((row.get::<_, &str>(5), row.get::<_, bool>(6)), ("Hämeentie", false));
    assert_eq!((row.get::<_, &[u8]>(7), row.get::<_, Option<&str>>(8)), ([0_u8, 255].as_slice(), None));
    let row = client
        .query_one("SELECT DATE '2018-10-09', INTERVAL '90 minutes', ARRAY[1, 2], 1.50::numeric(10,2)", &[]);
    let kinds: Vec<Type> = row.await.unwrap().columns().iter().map(|column| column.type_().clone()).collect();
    assert_eq!(kinds, [Type::DATE, Type::INTERVAL, Type::INT8_ARRAY, Type::NUMERIC]);
}

#[tokio::test(flavor = "multi_thread")]
async fn text_values_look_as_in_postgresql() {
    let town = Town::open().await;
    let client = connect(&town, "").await;
    let sql = "SELECT ts, on_time, geom, speed_mps FROM traffic.vehicle_position ORDER BY ts LIMIT 2";
    assert_eq!(
        simple(&client, sql).await,
        [
            vec![
                Some("2018-10-09 04:32:50+00".to_owned()),
                Some("t".to_owned()),
                Some("0101000020E6100000713D0AD7A3F03840F6285C8FC2154E40".to_owned()),
                Some("5.5".to_owned())
            ],
            vec![Some("2018-10-09 04:32:55+00".to_owned()), None, None, None]
        ]
    );
    client.batch_execute("SET TIME ZONE 'Europe/Helsinki'").await.unwrap();
    assert_eq!(text(&client, "SELECT max(ts) FROM traffic.vehicle_position").await, "2018-10-09 07:33:10+03");
    assert_eq!(text(&client, "SELECT X'00ff', NULL::interval, CAST(1 AS BIGINT)").await, "\\x00ff||1");
    assert_eq!(text(&client, "SELECT max(st_astext(geom)) FROM twin.vehicle").await, "POINT(24.95 60.18)");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_carry_their_sqlstate() {
    let town = Town::open().await;
    let client = connect(&town, "").await;
    for (sql, code) in [
        ("SELECT * FORM x", "42601"),
        ("SELECT * FROM traffic.nothing", "42P01"),
        ("SELECT nothing FROM traffic.vehicle_position", "42703"),
        ("SELECT st_pont(1, 2)", "42883"),
        ("SELECT 1 / 0", "22012"),
        ("SELECT CAST('x' AS INT)", "22P02"),
        ("INSERT INTO traffic.vehicle_position (vehicle_id) VALUES ('x')", "25006"),
        ("CREATE TABLE a (b INT)", "25006"),
        ("DROP TABLE traffic.vehicle_position", "25006"),
        ("COPY traffic.vehicle_position TO STDOUT", "0A000"),
        ("SELECT * FROM '/etc/passwd'", "42P01"),
        ("SHOW no_such_setting", "42704"),
        ("SET client_encoding = 'LATIN1'", "22023"),
        ("SET datafusion.runtime.memory_limit = '100G'", "42704"),
        ("SET twin.scenario = 'standstil'; SELECT * FROM twin.vehicle", "42704"),
        ("FETCH ALL FROM nothing", "34000"),
    ] {
        assert_eq!(refused(&client, sql).await, code, "{sql}");
    }
    client.batch_execute("RESET ALL").await.unwrap();
    let error = client.prepare("SELECT nothing FROM traffic.vehicle_position").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "42703");
    let error = client.execute("DELETE FROM traffic.vehicle_position", &[]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "25006");
    assert_eq!(text(&client, "SELECT count(*) FROM traffic.vehicle_position").await, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_group_settings() {
    let town = Town::open().await;
    let mut client = connect(&town, "").await;
    client.batch_execute("BEGIN; SET twin.as_of = '2018-10-09T04:32:53Z'").await.unwrap();
    assert_eq!(text(&client, SPEED).await, "5.5");
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(text(&client, SPEED).await, "7.25");
    client
        .batch_execute("BEGIN; SET LOCAL twin.as_of = '2018-10-09T04:32:53Z'; SET twin.scenario = standstill")
        .await
        .unwrap();
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(text(&client, "SHOW twin.as_of").await, "");
    assert_eq!(text(&client, "SHOW twin.scenario").await, "standstill");
    client.batch_execute("RESET ALL").await.unwrap();

    let transaction = client.transaction().await.unwrap();
    assert!(transaction.query("SELECT nothing", &[]).await.is_err());
    let error = transaction.query("SELECT 1", &[]).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "25P02");
    transaction.rollback().await.unwrap();
    let transaction = client.build_transaction().read_only(true).start().await.unwrap();
    assert_eq!(transaction.query("SELECT 1", &[]).await.unwrap().len(), 1);
    transaction.commit().await.unwrap();
    assert_eq!(refused(&client, "START TRANSACTION READ WRITE").await, "25006");
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_and_portals_give_some_rows_at_a_time() {
    let town = Town::open().await;
    let mut client = connect(&town, "").await;
    client
        .batch_execute("BEGIN; DECLARE c CURSOR FOR SELECT value FROM generate_series(1, 5)")
        .await
        .unwrap();
    assert_eq!(text(&client, "FETCH 2 FROM c").await, "1|2");
    assert_eq!(text(&client, "FETCH FORWARD ALL FROM c").await, "3|4|5");
    client.batch_execute("CLOSE c; COMMIT").await.unwrap();
    assert_eq!(refused(&client, "FETCH 1 FROM c").await, "34000");
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("SELECT value FROM generate_series(1, 5)", &[]).await.unwrap();
    assert_eq!(transaction.query_portal(&portal, 3).await.unwrap().len(), 3);
    assert_eq!(transaction.query_portal(&portal, 3).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_drivers_ask_first_is_answered() {
    let town = Town::open().await;
    let client = connect(&town, "").await;
    assert!(text(&client, "select pg_catalog.version()").await.starts_with("PostgreSQL 15."));
    assert_eq!(text(&client, "show standard_conforming_strings").await, "on");
    assert_eq!(text(&client, "SHOW TRANSACTION ISOLATION LEVEL").await, "read committed");
    assert_eq!(text(&client, "select current_schema()").await, "public");
    assert_eq!(text(&client, "SELECT current_database()").await, "twinlake");
    let tables = "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n \
                  ON n.oid = c.relnamespace WHERE c.relkind = ANY (ARRAY['r', 'v']) AND pg_table_is_visible(c.oid) \
                  AND n.nspname = 'traffic'";
    assert_eq!(text(&client, tables).await, "traffic|vehicle_position");
    let columns = "SELECT column_name FROM information_schema.columns WHERE table_schema = 'traffic' AND column_name = 'geom'";
    assert_eq!(text(&client, columns).await, "geom");
    client.batch_execute("SET search_path = traffic, public").await.unwrap();
    assert_eq!(text(&client, "SELECT count(*) FROM vehicle_position").await, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_query_can_be_cancelled_and_timed_out() {
    let town = Town::open().await;
    let client = connect(&town, "").await;
    let endless = "SELECT count(*) FROM generate_series(1, 20000) a, generate_series(1, 100000000) b \
                   WHERE a.value * b.value % 7 = 3";
    let cancel = client.cancel_token();
    let canceller = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        cancel.cancel_query(NoTls).await
    });
    assert_eq!(refused(&client, endless).await, "57014");
    canceller.await.unwrap().unwrap();
    client.batch_execute("SET statement_timeout = '100ms'").await.unwrap();
    assert_eq!(refused(&client, endless).await, "57014");
    client.batch_execute("SET statement_timeout = 0").await.unwrap();
    assert_eq!(text(&client, "SELECT 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_connections_are_told_so() {
    let town = Town::open_with(|settings| settings.postgres_connections = 1).await;
    let first = connect(&town, "").await;
    let error = try_connect(&town, "").await.map(|_| ()).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "53300");
    drop(first);
    for _ in 0..100 {
        if try_connect(&town, "").await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the place of a closed connection was not freed");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_results_stream_and_simulate_is_a_table() {
    let town = Town::open().await;
    let client = connect(&town, "").await;
    let many = "SELECT value, value * 2 FROM generate_series(1, 50000) ORDER BY value";
    let rows = client.query(many, &[]).await.unwrap();
    assert_eq!((rows.len(), rows[49_999].get::<_, i64>(1)), (50_000, 100_000));
    let flows = "SELECT count(*) FROM simulate('traffic_assignment', seed => 1)";
    assert_eq!(text(&client, flows).await, "8");
    let then = "SELECT speed_mps FROM twin_at('vehicle', TIMESTAMP '2018-10-09T04:32:53Z', scenario => 'standstill') \
                WHERE vehicle_id = '22/1095'";
    assert_eq!(text(&client, then).await, "5.5", "the scenario forks later");
}
