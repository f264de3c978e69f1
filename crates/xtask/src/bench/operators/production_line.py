"""The peer of the bench `production_line`: two lines of the validation table in SimPy, in its plainest form.

usage: production_line.py FOLDER     (writes nothing there)

Prints a JSON object a line, as `speed.rs` reads it.
"""

import json
import random
import time

import simpy


def queue(parts, seed):
    """M/M/1, arrivals 0.8 a second, service 1 a second: mean time in the system is 5 s."""
    draw = random.Random(seed).expovariate
    env = simpy.Environment()
    server = simpy.Resource(env)
    total = 0.0
    left = 0
    done = env.event()

    def part():
        nonlocal total, left
        entered = env.now
        with server.request() as turn:
            yield turn
            yield env.timeout(draw(1.0))
        total += env.now - entered
        left += 1
        if left == parts:
            done.succeed()

    def arrivals():
        while True:
            yield env.timeout(draw(0.8))
            env.process(part())

    env.process(arrivals())
    env.run(until=done)
    return total / left


def tandem(parts, seed):
    """Three exponential machines of 1 part a second, buffers of 2: 0.7340 parts a second leave."""
    draw = random.Random(seed).expovariate
    env = simpy.Environment()
    # A part that waits to be put into a store is on its machine: blocking after service.
    stores = [simpy.Store(env, capacity=2) for _ in range(2)]
    left = 0
    done = env.event()

    def machine(at):
        nonlocal left
        while True:
            if at > 0:
                yield stores[at - 1].get()
            yield env.timeout(draw(1.0))
            if at < 2:
                yield stores[at].put(at)
            else:
                left += 1
                if left == parts:
                    done.succeed()

    for at in range(3):
        env.process(machine(at))
    env.run(until=done)
    return left / env.now


CASES = {
    "M/M/1 at 80 % load, 1e6 parts": (queue, "mean time in the system {:.3f} s"),
    "three machines, buffers of 2, 1e6 parts": (tandem, "{:.4f} parts a second of the line"),
}


def main():
    for name, (case, says) in CASES.items():
        started, used = time.perf_counter(), time.process_time()
        figure = case(1_000_000, 1)
        row = {
            "case": name,
            "system": "SimPy",
            "seconds": time.perf_counter() - started,
            "processor_seconds": time.process_time() - used,
            "note": says.format(figure),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
