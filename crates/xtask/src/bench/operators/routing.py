"""The peer of the bench `routing`: the same pairs, and the same counts within 600 s, by pandana.

usage: routing.py FOLDER     (as filled by the example `routing`)

Prints a JSON object a line, as `speed.rs` reads it.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy
import pandana
import pandas


# It names every pair without a way.
warnings.filterwarnings("ignore")


def measure(case, work, note):
    """Once: it takes long enough to be known."""
    started, used = time.perf_counter(), time.process_time()
    result = work()
    row = {
        "case": case,
        "system": "pandana",
        "seconds": time.perf_counter() - started,
        "processor_seconds": time.process_time() - used,
        "note": note(result),
    }
    # pandana has begun a line.
    print("\n" + json.dumps(row), flush=True)


def main():
    folder = Path(sys.argv[1])
    nodes = pandas.read_csv(folder / "nodes.csv").astype({"node_id": int}).set_index("node_id")
    links = pandas.read_csv(folder / "links.csv").astype({"from_node": int, "to_node": int})
    pairs = pandas.read_csv(folder / "pairs.csv").astype({"origin": int, "destination": int})
    shops = pandas.read_csv(folder / "shops.csv").astype({"node_id": int})
    network = pandana.Network(
        nodes.longitude, nodes.latitude, links.from_node, links.to_node, links[["free_flow_time_s"]], twoway=False
    )
    origins, destinations = pairs.origin.to_numpy(), pairs.destination.to_numpy()
    reached = pairs.cost.notna().to_numpy()

    def apart(costs):
        most = numpy.abs(numpy.array(costs)[reached] - pairs.cost.to_numpy()[reached]).max()
        return f"hierarchy built before; largest difference from our costs {most:.3f} s"

    case = "a million pairs, grid of 200 x 200"
    measure(case, lambda: network.shortest_path_lengths(origins, destinations), apart)
    network.set(shops.node_id, name="shops")
    case = "amount within 600 s of each of 40,000 nodes"
    measure(case, lambda: network.aggregate(600, type="count", decay="flat", name="shops"), lambda _: "")


if __name__ == "__main__":
    main()
