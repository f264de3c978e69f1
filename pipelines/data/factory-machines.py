"""Makes factory-machines.capture.txt from the AI4I 2020 data set: an excerpt, with a clock that the data set lacks.

    python factory-machines.py ai4i2020.csv > factory-machines.capture.txt

The data set (10,000 rows; S. Matzka, 2020; CC BY 4.0) has no time stamps. The replay clock is ours:

- Rows UDI 2701 to 4500 are taken, in their order: 300 in a row for each of six machines, mill-1 to mill-6.
- A row is a part. It lies on its machine for its planned run time at nominal speed, 120, 180 or 300 s for product type L, M, H
  (the 2, 3 and 5 minutes of tool use of the data set's description), times nominal by actual spindle speed
  (1,600 rpm / rotational speed), rounded to a second. Its reading is sent when it begins.
- Where the row says "machine failure", a second message says so when the part's time is over; the repair takes 600 s.
- Where the tool wear falls from one row to the next the tool was changed: a message says so, and it takes 120 s.
- The clock of machine i runs backwards from its last reading, at 2018-10-09T04:32:30Z + 3 s * (i - 1): the plant is at work
  while the vehicles of helsinki-vehicles.hfp.txt are under way. A message is received 0.2 s after it was measured.

A line of the capture is `<time of receipt> <topic> <JSON payload>`.
"""

import csv
import datetime
import json
import sys

FIRST, PARTS, NOMINAL_RPM, REPAIR_S, TOOL_CHANGE_S = 2701, 300, 1600, 600, 120
PLANNED_S = {"L": 120, "M": 180, "H": 300}
# ISA-95: site / production line / work cell / machine.
MACHINES = [
    "siltasaari/gear-housings/roughing/mill-1",
    "siltasaari/gear-housings/roughing/mill-2",
    "siltasaari/gear-housings/finishing/mill-3",
    "siltasaari/gear-housings/finishing/mill-4",
    "kluuvi/brackets/bracket-milling/mill-5",
    "kluuvi/brackets/bracket-milling/mill-6",
]
END = datetime.datetime(2018, 10, 9, 4, 32, 30)


def rows(path):
    with open(path, encoding="utf-8-sig") as file:
        for row in csv.DictReader(file, delimiter=";"):
            yield {name.strip(): value for name, value in row.items()}


def reading(row):
    modes = [mode for mode in ("TWF", "HDF", "PWF", "OSF", "RNF") if row[mode] == "1"]
    return {
        "operation": "processing",
        "udi": int(row["UDI"]),
        "product_id": row["Product ID"],
        "product_type": row["Type"],
        "air_temperature_k": float(row["Air temperature"]),
        "process_temperature_k": float(row["Process temperature"]),
        "rotational_speed_rpm": int(row["Rotational speed"]),
        "torque_nm": float(row["Torque"]),
        "tool_wear_min": int(row["Tool wear"]),
        "failure": False,
    }, modes if row["Machine failure"] == "1" else None


def of_machine(parts):
    """(seconds since the machine's first message, payload) of each message."""
    at, messages = 0, []
    for index, row in enumerate(parts):
        said, modes = reading(row)
        if index and said["tool_wear_min"] < int(parts[index - 1]["Tool wear"]):
            still = {"operation": "tool_change", "rotational_speed_rpm": 0, "torque_nm": 0.0, "tool_wear_min": 0, "failure": False}
            messages.append((at, still))
            at += TOOL_CHANGE_S
        messages.append((at, said))
        at += round(PLANNED_S[said["product_type"]] * NOMINAL_RPM / said["rotational_speed_rpm"])
        if modes is not None:
            messages.append((at, {**said, "operation": "repair", "failure": True, "failure_modes": ", ".join(modes) or None}))
            at += REPAIR_S
    return messages


def main(path):
    every = {int(row["UDI"]): row for row in rows(path)}
    lines = []
    for number, machine in enumerate(MACHINES):
        first = FIRST + number * PARTS
        messages = of_machine([every[udi] for udi in range(first, first + PARTS)])
        end = END + datetime.timedelta(seconds=3 * number)
        for at, payload in messages:
            ts = end - datetime.timedelta(seconds=messages[-1][0] - at)
            text = json.dumps({"ts": ts.isoformat() + "Z", **payload}, separators=(",", ":"))
            lines.append(f"{ts.isoformat()}.200Z factory/{machine} {text}")
    print("\n".join(sorted(lines)))


main(sys.argv[1])
