"""Electricity bills by DuckDB, and the check of bills.

    python peers.py run FOLDER OUTPUT QUERY.sql        seconds, number of bills, most memory in MiB
    python peers.py check FOLDER OURS THEIRS WHICH     compares the two files row by row, and a sample with Python's decimal

WHICH is registers or hourly.
"""

import resource
import sys
import time
from decimal import ROUND_HALF_UP, Decimal

import duckdb

MONTH = ("2024-02-29T16:00:00Z", "2024-03-31T16:00:00Z")
PRICES = {"peak": Decimal("0.9583"), "flat": Decimal("0.6683"), "valley": Decimal("0.3283")}
SAMPLE = 2000


def connect():
    connection = duckdb.connect()
    connection.execute("SET threads = 2; SET memory_limit = '4GB'; SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
    return connection


def run(folder, output, query):
    sql = open(query).read().replace("FOLDER", folder)
    connection = connect()
    start = time.perf_counter()
    connection.execute(f"COPY ({sql}) TO '{output}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)")
    seconds = time.perf_counter() - start
    bills = connection.execute(f"SELECT count(*) FROM '{output}'").fetchone()[0]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{seconds:.3f} {bills} {peak:.0f}")


def amount(used):
    total = sum(used.values())
    yuan = sum(kwh * PRICES[name] for name, kwh in used.items())
    yuan += max(min(total, Decimal(400)) - Decimal(230), Decimal(0)) * Decimal("0.05")
    yuan += max(total - Decimal(400), Decimal(0)) * Decimal("0.3")
    return yuan.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP)


def sample(connection, folder, which, customers):
    """What each of some customers used, by price, added up here."""
    used = {customer: dict.fromkeys(PRICES, Decimal(0)) for customer in customers}
    chosen = ", ".join(str(customer) for customer in customers)
    if which == "registers":
        rows = connection.execute(
            "SELECT customer_id, register, ts = TIMESTAMPTZ '" + MONTH[1] + "', reading_kwh "
            f"FROM '{folder}/register_reading.parquet' WHERE customer_id IN ({chosen})"
        ).fetchall()
        names = {1: "peak", 2: "flat", 3: "valley"}
        for customer, register, end, reading in rows:
            used[customer][names[register]] += reading if end else -reading
        return used
    rows = connection.execute(
        "SELECT customer_id, CAST(epoch(ts) AS BIGINT), used_kwh "
        f"FROM '{folder}/hourly_reading.parquet' WHERE customer_id IN ({chosen})"
    ).fetchall()
    for customer, seconds, kwh in rows:
        hour = (seconds // 3600 + 8) % 24  # China has no summer time
        name = "peak" if 8 <= hour <= 10 or 18 <= hour <= 22 else "valley" if hour < 7 or hour == 23 else "flat"
        used[customer][name] += kwh
    return used


def check(folder, ours, theirs, which):
    connection = connect()
    same = "customer_id, total_kwh, amount_yuan"
    counts = [connection.execute(f"SELECT count(*) FROM '{file}'").fetchone()[0] for file in (ours, theirs)]
    differing = connection.execute(
        f"SELECT count(*) FROM '{ours}' o FULL JOIN '{theirs}' t USING (customer_id) "
        "WHERE o.amount_yuan IS DISTINCT FROM t.amount_yuan OR o.total_kwh IS DISTINCT FROM t.total_kwh"
    ).fetchone()[0]
    if counts[0] != counts[1] or differing:
        sys.exit(f"{counts[0]} and {counts[1]} bills, {differing} differ ({same})")
    step = max(counts[0] // SAMPLE, 1)
    bills = connection.execute(
        f"SELECT customer_id, amount_yuan FROM '{ours}' WHERE customer_id % {step} = 1 % {step} ORDER BY 1"
    ).fetchall()
    used = sample(connection, folder, which, [customer for customer, _ in bills])
    wrong = [customer for customer, bill in bills if bill != amount(used[customer])]
    if wrong or not bills:
        sys.exit(f"{len(wrong)} of {len(bills)} bills are not those of Python's decimal: {wrong[:5]}")
    total = connection.execute(f"SELECT sum(amount_yuan) FROM '{ours}'").fetchone()[0]
    print(f"{counts[0]} bills equal, {len(bills)} of them checked in Python's decimal, {total} yuan in all")


if __name__ == "__main__":
    {"run": run, "check": check}[sys.argv[1]](*sys.argv[2:])
