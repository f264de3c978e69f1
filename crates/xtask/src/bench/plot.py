"""Draws a benchmark's figures: rates as bars, latencies as lines. Usage: plot.py FIGURES.json PLOT.svg"""

import json
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

with open(sys.argv[1]) as file:
    report = json.load(file)
cases = report["cases"]
figure, (rates, latencies) = plt.subplots(1, 2, figsize=(14, max(3, 0.42 * len(cases))))

names = [f"{case['system']}: {case['group']}, {case['load']}" for case in cases]
places = range(len(cases))
rates.barh(places, [case["per_second"] for case in cases], color="#2a6f97")
rates.set_yticks(list(places), names, fontsize=8)
rates.invert_yaxis()
rates.set_xscale("log")
rates.set_xlabel("per second (log)")
for place, case in zip(places, cases):
    rates.text(case["per_second"], place, f" {case['per_second']:,.0f} {case['unit']}", va="center", fontsize=7)
rates.margins(x=0.25)

for name, case in zip(names, cases):
    shares = [(share, case[key]) for share, key in (("50 %", "p50_ms"), ("99 %", "p99_ms"), ("99.9 %", "p999_ms")) if case[key]]
    if shares:
        latencies.plot([share for share, _ in shares], [value for _, value in shares], marker="o", label=name)
latencies.set_yscale("log")
latencies.set_ylabel("ms (log)")
latencies.set_title("latency", fontsize=10)
latencies.legend(fontsize=6)
figure.suptitle(report["title"])
figure.tight_layout()
# A plot that depends on its figures alone.
matplotlib.rcParams["svg.hashsalt"] = report["name"]
figure.savefig(sys.argv[2], metadata={"Date": None})
