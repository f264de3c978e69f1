"""Asks an engine one question of SpatialBench, or compares two folders of answers.

    python peers.py run duckdb|sedonadb DATA PEERS QUESTION [RESULT.parquet]
    python peers.py compare OURS.parquet THEIRS.parquet

`run` prints the seconds and the number of rows; two threads, 4 GiB. The rows are read to the end as they come, and
are written to a file only by a second pass, outside of the time. `compare` holds the answers against each other row
by row: numbers may differ by a billionth of their size, rows that an engine gives in no set order count as a set.
"""

import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

TABLES = ["trip", "building", "customer", "zone"]


def duckdb_reader(data):
    import duckdb

    connection = duckdb.connect()
    import duckdb_extension_spatial

    module = Path(duckdb_extension_spatial.__file__).parent
    extension = next(module.rglob("spatial.duckdb_extension*"))
    connection.execute(f"LOAD '{extension}'")
    connection.execute("SET threads = 2")
    connection.execute("SET memory_limit = '4GiB'")
    for table in TABLES:
        connection.execute(f"CREATE VIEW {table} AS SELECT * FROM '{data}/{table}.parquet'")
    return lambda sql: connection.execute(sql).fetch_record_batch(100_000)


def sedonadb_reader(data):
    import sedonadb

    session = sedonadb.connect()
    for setting in ["datafusion.execution.target_partitions = 2", "datafusion.runtime.memory_limit = '4G'"]:
        session.sql(f"SET {setting}").execute()
    for table in TABLES:
        session.read_parquet(f"{data}/{table}.parquet").to_view(table)
    return lambda sql: pa.RecordBatchReader.from_stream(session.sql(sql))


def run(engine, data, peers, question, result=None):
    own = Path(peers) / f"{question}.{engine}.sql"
    sql = (own if own.exists() else Path(peers) / f"{question}.sql").read_text()
    read = {"duckdb": duckdb_reader, "sedonadb": sedonadb_reader}[engine](data)
    start = time.perf_counter()
    rows = sum(batch.num_rows for batch in read(sql))
    print(f"{time.perf_counter() - start:.3f}\t{rows}", flush=True)
    if result:
        reader = read(sql)
        # Parquet keeps no intervals.
        schema = pa.schema(
            [field.with_type(pa.float64()) if pa.types.is_interval(field.type) else field for field in reader.schema]
        )
        with pq.ParquetWriter(result, schema) as writer:
            for batch in reader:
                table = pa.Table.from_batches([batch])
                columns = [plain(column) if pa.types.is_interval(column.type) else column for column in table.columns]
                writer.write_table(pa.table(columns, schema=schema))


def plain(column):
    """Numbers as float64, times and durations in seconds, the rest as it is."""
    column = column.combine_chunks()
    kind = column.type
    if pa.types.is_duration(kind) or pa.types.is_timestamp(kind):
        scale = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit]
        return pc.divide(column.cast(pa.int64()).cast(pa.float64()), scale)
    if pa.types.is_interval(kind):
        seconds = [v and v.months * 2_592_000 + v.days * 86_400 + v.nanoseconds / 1e9 for v in column.to_pylist()]
        return pa.array(seconds, pa.float64())
    if pa.types.is_decimal(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return column.cast(pa.float64())
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return column.cast(pa.binary())
    return column


def sortable(values):
    """Numbers to nine digits, so that two engines sort them alike."""
    if not pa.types.is_floating(values.type):
        return values
    return pc.round(values, ndigits=6)


def same(a, b, least):
    if pa.types.is_floating(a.type) and pa.types.is_floating(b.type):
        size = pc.max_element_wise(pc.abs(a), pc.abs(b))
        close = pc.less_equal(pc.abs(pc.subtract(a, b)), pc.add(pc.multiply(size, 1e-9), least))
        both_null = pc.and_(pc.is_null(a), pc.is_null(b))
        return pc.or_(pc.fill_null(close, False), both_null)
    return pc.or_(pc.fill_null(pc.equal(a, b), False), pc.and_(pc.is_null(a), pc.is_null(b)))


def compare(ours, theirs):
    a, b = pq.read_table(ours), pq.read_table(theirs)
    if a.num_rows != b.num_rows or a.num_columns != b.num_columns:
        return f"differ: {a.num_rows} rows of {a.num_columns} and {b.num_rows} of {b.num_columns}"
    names = [str(number) for number in range(a.num_columns)]
    tables = []
    for table in (a, b):
        columns = [plain(column) for column in table.columns]
        sorted_by = pa.table([sortable(column) for column in columns], names=names)
        order = pc.sort_indices(sorted_by, sort_keys=[(name, "ascending") for name in names])
        tables.append([column.take(order) for column in columns])
    for number, (left, right) in enumerate(zip(*tables)):
        # A mean kept in whole milliseconds, or in a decimal, has been rounded; DuckDB's mean of intervals may be a
        # millisecond off what its sum divided by its count gives.
        kind = a.column(number).type
        least = 2e-3 if pa.types.is_duration(kind) else 10.0**-kind.scale if pa.types.is_decimal(kind) else 1e-12
        wrong = pc.sum(pc.invert(same(left, right, least))).as_py() or 0
        if wrong:
            return f"differ: {wrong} values of column {a.column_names[number]}"
    return "equal"


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(*sys.argv[2:])
    else:
        print(compare(*sys.argv[2:4]))
