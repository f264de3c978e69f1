"""The peer of the bench `traffic_assignment`: AequilibraE's biconjugate Frank-Wolfe on the same networks to the same relative gap.

usage: traffic_assignment.py FOLDER     (writes nothing there; TWINLAKE_TESTDATA names the test data)

Prints a JSON object a line, as `speed.rs` reads it.
"""

import json
import logging
import os
import re
import time
from pathlib import Path

# No bars of progress: they are drawn inside of the times.
os.environ["AEQ_SHOW_PROGRESS"] = "FALSE"

import numpy
import pandas
from aequilibrae.matrix import AequilibraeMatrix
from aequilibrae.paths import Graph, TrafficAssignment, TrafficClass

NETWORKS = Path(os.environ["TWINLAKE_TESTDATA"]) / "simulation/traffic_ue"
# Folder, file stem, toll weight, distance weight.
CASES = [
    ("SiouxFalls", "SiouxFalls", 0.0, 0.0),
    ("Anaheim", "Anaheim", 0.0, 0.0),
    ("Barcelona", "Barcelona", 0.0, 0.0),
    ("Winnipeg", "Winnipeg", 0.0, 0.0),
    ("Chicago-Sketch", "ChicagoSketch", 0.02, 0.04),
]
COLUMNS = ["a_node", "b_node", "capacity", "length", "free_flow_time", "b", "power", "speed", "toll", "link_type"]


def read_network(path, toll_weight, distance_weight):
    text = path.read_text()
    tag = {name: int(re.search(rf"<{name}>\s*(\d+)", text)[1]) for name in ["NUMBER OF ZONES", "FIRST THRU NODE"]}
    lines = text.split("<END OF METADATA>")[1].splitlines()
    rows = [line.rstrip(" \t;").split() for line in lines if line.strip() and not line.lstrip().startswith("~")]
    links = pandas.DataFrame([[float(cell) for cell in row] for row in rows], columns=COLUMNS)
    links = links.astype({"a_node": int, "b_node": int})
    links.insert(0, "link_id", range(1, len(links) + 1))
    links["direction"] = 1
    links["surcharge"] = toll_weight * links.toll + distance_weight * links.length
    # It takes no time of 0 and no power below 1.
    links.loc[links.power < 1, "b"] = 0.0
    links["power"] = links.power.clip(lower=1.0)
    links["free_flow_time"] = links.free_flow_time.clip(lower=1e-4)
    return links, tag["NUMBER OF ZONES"], tag["FIRST THRU NODE"]


def read_trips(path, zones):
    trips = numpy.zeros((zones, zones))
    for origin, rest in re.findall(r"Origin\s+(\d+)([^O]*)", path.read_text()):
        for to, flow in re.findall(r"(\d+)\s*:\s*([-\d.eE+]+)\s*;", rest):
            trips[int(origin) - 1, int(to) - 1] = float(flow)
    return trips


def prepare(name, stem, toll_weight, distance_weight):
    links, zones, first_through = read_network(NETWORKS / name / f"{stem}_net.tntp", toll_weight, distance_weight)
    index = numpy.arange(1, zones + 1)
    demand = AequilibraeMatrix()
    demand.create_empty(zones=zones, matrix_names=["trips"], memory_only=True)
    demand.index = index
    demand.matrix["trips"][:, :] = read_trips(NETWORKS / name / f"{stem}_trips.tntp", zones)
    demand.computational_view(["trips"])
    graph = Graph()
    graph.network = links
    graph.mode = "c"
    graph.prepare_graph(index)
    graph.set_graph("free_flow_time")
    graph.set_blocked_centroid_flows(first_through > 1)
    return graph, demand


def assign(graph, demand):
    traffic = TrafficClass("car", graph, demand)
    if graph.network.surcharge.any():
        traffic.set_fixed_cost("surcharge")
    assignment = TrafficAssignment()
    assignment.set_classes([traffic])
    assignment.set_vdf("BPR")
    assignment.set_vdf_parameters({"alpha": "b", "beta": "power"})
    assignment.set_capacity_field("capacity")
    assignment.set_time_field("free_flow_time")
    assignment.set_algorithm("bfw")
    assignment.max_iter = 2000
    assignment.rgap_target = 1e-4
    assignment.execute(log_specification=False)
    return assignment.assignment.rgap, assignment.assignment.iter


def main():
    logging.disable(logging.CRITICAL)
    for case in CASES:
        try:
            graph, demand = prepare(*case)
            started, used = time.perf_counter(), time.process_time()
            gap, iterations = assign(graph, demand)
            row = {
                "case": case[0],
                "system": "AequilibraE",
                "seconds": time.perf_counter() - started,
                "processor_seconds": time.process_time() - used,
                "note": f"gap {gap:.1e} after {iterations} iterations",
            }
            print(json.dumps(row), flush=True)
        except Exception as error:  # what it cannot do is a result, too
            print(f"AequilibraE {case[0]}: {error!r}", flush=True)


if __name__ == "__main__":
    main()
