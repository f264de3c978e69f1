"""Draws the times of an operator and its peers, case by case. Usage: plot.py FIGURES.json PLOT.svg"""

import json
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

COLOURS = ["#2a6f97", "#e07a5f", "#81b29a", "#f2cc8f"]

with open(sys.argv[1]) as file:
    report = json.load(file)
measured = report["cases"]
cases = list(dict.fromkeys(one["case"] for one in measured))
systems = list(dict.fromkeys(one["system"] for one in measured))
figure, axes = plt.subplots(figsize=(10, max(2.5, 0.28 * len(measured) + 0.25 * len(cases) + 1)))
ticks, place = [], 0.0
for case in cases:
    first = place
    for one in (one for one in measured if one["case"] == case):
        colour = COLOURS[systems.index(one["system"]) % len(COLOURS)]
        axes.barh(place, one["seconds"], color=colour, height=0.9)
        axes.text(one["seconds"], place, f" {one['seconds']:.3g} s", va="center", fontsize=7)
        place += 1
    ticks.append(((first + place - 1) / 2, case))
    place += 0.6
axes.set_yticks([at for at, _ in ticks], [case for _, case in ticks], fontsize=8)
axes.invert_yaxis()
axes.set_xscale("log")
axes.set_xlabel("seconds, wall clock (log); shorter is better")
axes.margins(x=0.2)
bars = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[at % len(COLOURS)]) for at in range(len(systems))]
axes.legend(bars, systems, fontsize=7)
axes.set_title(report["title"], fontsize=10)
figure.tight_layout()
# A plot that depends on its figures alone.
matplotlib.rcParams["svg.hashsalt"] = report["name"]
figure.savefig(sys.argv[2], metadata={"Date": None})
