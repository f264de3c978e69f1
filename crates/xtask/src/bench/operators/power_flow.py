"""The peers of the bench `power_flow`: pandapower (with numba) and lightsim2grid on the same cases, from a flat start to a
mismatch of 1e-8 p.u.

usage: power_flow.py FOLDER     (writes nothing there; TWINLAKE_TESTDATA names the test data)

Prints a JSON object a line, as `speed.rs` reads it.
"""

import json
import os
import re
import time
import warnings
from pathlib import Path

import numpy
import pandapower
from lightsim2grid.network import init_from_matpower
from pandapower.converter.pypower import from_ppc

warnings.filterwarnings("ignore")
CASES = Path(os.environ["TWINLAKE_TESTDATA"]) / "simulation/power"
TIMED = ["case14", "case118", "case300", "case1354pegase", "case_ACTIVSg2000"]


def read(name):
    """Buses, generators and branches of a MATPOWER file that converts no units."""
    text = re.sub(r"%.*", "", (CASES / f"{name}.m").read_text())
    case = {"version": "2", "baseMVA": float(re.search(r"mpc\.baseMVA\s*=\s*([^;]+);", text)[1])}
    for table in ["bus", "gen", "branch"]:
        body = re.search(rf"mpc\.{table}\s*=\s*\[(.*?)\]", text, re.S)[1]
        rows = [row.replace(",", " ").split() for row in body.replace("\n", ";").split(";")]
        case[table] = numpy.array([[float(cell) for cell in row] for row in rows if row])
    return case


def measure(case, system, work, note):
    for _ in range(3):
        work()
    seconds, begin, used = [], time.perf_counter(), time.process_time()
    while len(seconds) < 5 or (time.perf_counter() - begin < 0.5 and len(seconds) < 1000):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    row = {
        "case": case,
        "system": system,
        "seconds": sorted(seconds)[len(seconds) // 2],
        "processor_seconds": (time.process_time() - used) / len(seconds),
        "note": note,
    }
    print(json.dumps(row), flush=True)


def main():
    for name in TIMED:
        case = read(name)
        try:
            # Some files give no voltage: per unit it makes no difference which.
            case["bus"][case["bus"][:, 9] == 0, 9] = 100.0
            network = from_ppc(case, f_hz=50, check_costs=False)

            def run():
                pandapower.runpp(network, init="flat", tolerance_mva=1e-8 * case["baseMVA"], numba=True)

            measure(name, "pandapower", run, "with reading tables and building results")
        except Exception as error:  # what it cannot do is a result, too
            print(f"pandapower {name}: {error!r}")
        grid = init_from_matpower(case)
        start = numpy.ones(len(case["bus"]), dtype=complex)

        def solve(anew):
            if anew:
                grid.tell_solver_need_reset()
            if len(grid.ac_pf(start.copy(), 30, 1e-8)) == 0:
                raise RuntimeError("it did not converge")

        for anew, note in [(True, "all made anew"), (False, "factorisation kept")]:
            try:
                measure(name, f"lightsim2grid, {note}", lambda: solve(anew), "the solver alone")
            except Exception as error:
                print(f"lightsim2grid {name}: {error!r}")


if __name__ == "__main__":
    main()
