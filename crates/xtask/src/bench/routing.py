"""The peer of the bench `routing`: the same pairs, and the same counts within 600 s, by pandana.

usage: routing.py FOLDER     (as written by `cargo run --release -p twinlake-simulate --example routing -- SIDE FOLDER`)

Prints a JSON object a line: case, count, seconds, and how far pandana's costs are from ours.
"""

import json
import sys
import time
from pathlib import Path

import numpy
import pandana
import pandas


def main():
    folder = Path(sys.argv[1])
    nodes = pandas.read_csv(folder / "nodes.csv").astype({"node_id": int}).set_index("node_id")
    links = pandas.read_csv(folder / "links.csv").astype({"from_node": int, "to_node": int})
    pairs = pandas.read_csv(folder / "pairs.csv").astype({"origin": int, "destination": int})
    shops = pandas.read_csv(folder / "shops.csv").astype({"node_id": int})
    started = time.perf_counter()
    network = pandana.Network(
        nodes.longitude, nodes.latitude, links.from_node, links.to_node, links[["free_flow_time_s"]], twoway=False
    )
    print(json.dumps({"case": "build", "count": len(nodes), "seconds": time.perf_counter() - started}), flush=True)

    started = time.perf_counter()
    costs = numpy.array(network.shortest_path_lengths(pairs.origin.to_numpy(), pairs.destination.to_numpy()))
    seconds = time.perf_counter() - started
    reached = pairs.cost.notna().to_numpy()
    apart = float(numpy.abs(costs[reached] - pairs.cost.to_numpy()[reached]).max())
    row = {"case": "pairs", "count": len(pairs), "seconds": seconds, "largest_difference_s": apart}
    print(json.dumps(row), flush=True)

    network.set(shops.node_id, name="shops")
    started = time.perf_counter()
    counts = network.aggregate(600, type="count", decay="flat", name="shops")
    seconds = time.perf_counter() - started
    print(json.dumps({"case": "accessibility", "count": len(counts), "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
