"""The queries of `cargo xtask bench lake` by DuckDB's `delta_scan`: the best milliseconds and the rows, a line a query.

    python lake_peer.py TABLE
"""

import pathlib
import sys
import time

import duckdb
import duckdb_extension_delta
import duckdb_extension_spatial

# The boxes of the geometries are columns of the files, which any engine may use. They are rounded outwards.
SMALL = """SELECT count(*), avg(speed_mps) FROM delta_scan(?) WHERE _geom_xmin <= 24.945 AND _geom_xmax >= 24.938
AND _geom_ymin <= 60.172 AND _geom_ymax >= 60.168 AND ts >= TIMESTAMPTZ '2024-01-01T01:00:00Z' AND ts < TIMESTAMPTZ '2024-01-01T01:05:00Z'
AND ST_Intersects(ST_GeomFromWKB(geom), ST_MakeEnvelope(24.938, 60.168, 24.945, 60.172))"""
ALL = "SELECT count(*), avg(speed_mps) FROM delta_scan(?)"

connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
for name, extension in (("delta", duckdb_extension_delta), ("spatial", duckdb_extension_spatial)):
    folder = pathlib.Path(extension.__file__).parent
    connection.execute(f"LOAD '{next(folder.rglob(f'{name}.duckdb_extension*'))}'")
connection.execute("SET threads = 2; SET TimeZone = 'UTC'")
for sql in (SMALL, ALL):
    best, rows = float("inf"), 0
    for _ in range(5):
        start = time.perf_counter()
        rows = connection.execute(sql, [sys.argv[1]]).fetchone()[0]
        best = min(best, time.perf_counter() - start)
    print(f"{best * 1e3:.1f} {rows}")
