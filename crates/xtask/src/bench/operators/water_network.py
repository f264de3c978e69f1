"""The peer of the bench `water_network`: EPANET's C engine on the same files, hydraulics alone, nothing stored; and its water
quality against ours.

usage: water_network.py FOLDER     (as filled by the example `water_network`; TWINLAKE_TESTDATA names the test data)

Prints a JSON object a line, as `speed.rs` reads it, and the section `quality` of the page.
"""

import json
import os
import sys
import time
import warnings
from pathlib import Path

import epanet.toolkit as epanet

# It warns of negative pressures and the like; ours does so, too.
warnings.filterwarnings("ignore")
NETWORKS = Path(os.environ["TWINLAKE_TESTDATA"]) / "simulation/water"
# Options of the toolkit, by their numbers in its manual.
TRIALS, ACCURACY, QUALITY, QUALITY_TOLERANCE, NOSAVE = 0, 1, 12, 2, 0
NONE, CHEMICAL, AGE, TRACE = 0, 1, 2, 3


def project(name, folder):
    handle = epanet.createproject()
    epanet.open(handle, str(NETWORKS / f"{name}.inp"), str(folder / "report.txt"), "")
    return handle


def run_hydraulics(handle):
    epanet.openH(handle)
    epanet.initH(handle, NOSAVE)
    while True:
        epanet.runH(handle)
        if epanet.nextH(handle) == 0:
            break
    epanet.closeH(handle)


def measure(case, work, note):
    work()
    seconds, begin, used = [], time.perf_counter(), time.process_time()
    while len(seconds) < 3 or (time.perf_counter() - begin < 0.5 and len(seconds) < 1000):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    row = {
        "case": case,
        "system": "EPANET 2.3.5",
        "seconds": sorted(seconds)[len(seconds) // 2],
        "processor_seconds": (time.process_time() - used) / len(seconds),
        "note": note,
    }
    print(json.dumps(row), flush=True)


def speed(name, folder):
    handle = project(name, folder)
    epanet.setqualtype(handle, NONE, "", "", "")
    measure(name, lambda: run_hydraulics(handle), "the hydraulic solver alone, nothing stored")

    def from_file():
        handle = project(name, folder)
        run_hydraulics(handle)
        epanet.close(handle)
        epanet.deleteproject(handle)

    measure(f"{name}, from the file", from_file, "nothing stored")


def quality(name, kind, trace, path, folder):
    """A row of the table: all nodes at all of our report times."""
    with open(path) as file:
        balance = float(file.readline().removeprefix("#"))
        ours = {}
        for line in file:
            at, node, value = line.strip().split(",")
            ours[int(at), node] = float(value)
    handle = project(name, folder)
    epanet.setoption(handle, ACCURACY, 1e-7)
    epanet.setoption(handle, TRIALS, 500)
    kinds = {"chemical": CHEMICAL, "age": AGE, "trace": TRACE}
    if kind != "chemical":
        epanet.setqualtype(handle, kinds[kind], "", "", trace)
    # Side by side, so that flows go from one solver to the other in full precision, not through a file of single floats.
    epanet.openH(handle)
    epanet.initH(handle, NOSAVE)
    epanet.openQ(handle)
    epanet.initQ(handle, NOSAVE)
    count = epanet.getcount(handle, 0)
    nodes = [epanet.getnodeid(handle, at) for at in range(1, count + 1)]
    rows, largest, apart = 0, 0.0, 0.0
    while True:
        at = epanet.runH(handle)
        epanet.runQ(handle)
        for index, node in enumerate(nodes, 1):
            if (at, node) in ours:
                value = epanet.getnodevalue(handle, index, QUALITY)
                rows += 1
                largest = max(largest, value)
                apart = max(apart, abs(value - ours[at, node]))
        left = epanet.nextH(handle)
        epanet.nextQ(handle)
        if left == 0:
            break
    what = {"chemical": "substance, mg/L", "age": "age, h", "trace": f"percent from {trace}"}[kind]
    tolerance = epanet.getoption(handle, QUALITY_TOLERANCE)
    print(f"| {name} | {what} | {rows} of {len(ours)} | {tolerance:g} | {largest:.4g} | {apart:.1e} | {balance:.7f} |")


def main():
    folder = Path(sys.argv[1])
    for file in sorted((NETWORKS / "reference").glob("*.json")):
        speed(file.stem, folder)
    print("<!-- quality -->")
    print("| network | what | rows compared | tolerance of the file | largest value | largest difference | mass balance, ours |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for path in sorted(folder.glob("*-*-*.csv")):
        name, kind, trace = path.stem.split("-")
        quality(name, kind, trace, path, folder)
    print("<!-- end of quality -->")


if __name__ == "__main__":
    main()
