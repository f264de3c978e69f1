"""Times queries over Parquet files: `timeseries.py ENGINE FOLDER RUNS`, ENGINE being duckdb or chdb; two threads.

Prints a line a query: the seconds of each run, a bar, the values of the one row.
"""
import sys
import time

engine, folder, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])
start, end = "2024-01-01 00:00:00", "2024-01-01 06:00:00"

DUCKDB = [
    f"SELECT count(*), sum(v) FROM (SELECT entity, arg_max(value, ts) AS v FROM '{folder}/readings.parquet' GROUP BY entity)",
    f"""WITH measured AS (
          SELECT entity, time_bucket(INTERVAL '5 minutes', ts) AS t, avg(value) AS v FROM '{folder}/readings.parquet'
          WHERE ts >= '{start}+00' AND ts < '{end}+00' GROUP BY 1, 2),
        grid AS (
          SELECT entity, t FROM (SELECT DISTINCT entity FROM measured),
          generate_series(TIMESTAMPTZ '{start}+00', TIMESTAMPTZ '{end}+00' - INTERVAL '5 minutes', INTERVAL '5 minutes') AS g(t)),
        filled AS (
          SELECT v, last_value(v IGNORE NULLS) OVER (PARTITION BY entity ORDER BY t) AS f
          FROM grid LEFT JOIN measured USING (entity, t))
        SELECT count(*), count(v), sum(v), sum(f) FROM filled""",
    f"""SELECT count(*), sum(r.value) FROM '{folder}/events.parquet' e
        ASOF JOIN '{folder}/readings.parquet' r ON e.entity = r.entity AND e.ts >= r.ts""",
]

CHDB = [
    f"SELECT count(*), sum(v) FROM (SELECT entity, argMax(value, ts) AS v FROM file('{folder}/readings.parquet') GROUP BY entity)",
    f"""SELECT count(*), count(v), sum(v), sum(f) FROM (
          SELECT entity, t, v, last_value(v) IGNORE NULLS OVER (PARTITION BY entity ORDER BY t) AS f FROM (
            SELECT entity, toStartOfInterval(ts, INTERVAL 5 MINUTE) AS t, toNullable(avg(value)) AS v
            FROM file('{folder}/readings.parquet')
            WHERE ts >= toDateTime64('{start}', 6, 'UTC') AND ts < toDateTime64('{end}', 6, 'UTC')
            GROUP BY entity, t
            ORDER BY entity, t WITH FILL FROM toDateTime('{start}', 'UTC') TO toDateTime('{end}', 'UTC') STEP INTERVAL 5 MINUTE))""",
    f"""SELECT count(*), sum(r.value) FROM file('{folder}/events.parquet') AS e
        ASOF INNER JOIN file('{folder}/readings.parquet') AS r ON e.entity = r.entity AND e.ts >= r.ts""",
]


def duckdb_query():
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET threads = 2; SET TimeZone = 'UTC'")
    return lambda sql: connection.execute(sql).fetchone()


def chdb_query():
    from chdb import session

    chdb = session.Session()
    chdb.query("SET max_threads = 2, session_timezone = 'UTC'")
    settings = " SETTINGS max_threads = 2, use_with_fill_by_sorting_prefix = 1"
    return lambda sql: chdb.query(sql + settings, "TSV").bytes().decode().split()


query, queries = (duckdb_query(), DUCKDB) if engine == "duckdb" else (chdb_query(), CHDB)
for sql in queries:
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        row = query(sql)
        seconds.append(f"{time.perf_counter() - began:.3f}")
    print(" ".join(seconds) + "|" + " ".join(str(value) for value in row), flush=True)
