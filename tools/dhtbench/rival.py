"""What the measurements of other DHTs share: counters of the loopback device, of this process, and the report.

Everything runs in one process over loopback, in a network namespace of its own, as dhtbench does (counters.h)."""

import argparse
import json
import os
import random
import resource
import sys
import threading
import time

FRAME_BYTES = 14  # of a link header, which loopback counts though it has none


def say(text):
    print(text, file=sys.stderr, flush=True)


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, default=50)
    parser.add_argument("--idle", type=int, default=60, help="seconds that the idle cost is measured")
    parser.add_argument("--ops", type=int, default=1000, help="operations one at a time")
    parser.add_argument("--many", type=int, default=5000, help="operations 32 at a time")
    parser.add_argument("--phases", default="idle,values,set1000,set10000,watch,kill")
    parser.add_argument("--deadline", type=int, default=180, help="seconds that one phase may take")
    return parser.parse_args()


def memory_kib():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


def loopback():
    with open("/proc/net/dev") as file:
        for line in file:
            if line.strip().startswith("lo:"):
                fields = line.split(":")[1].split()
                return int(fields[1]), int(fields[0]) - FRAME_BYTES * int(fields[1])
    return 0, 0


def quantile(values, p):
    return values[min(int(p * len(values)), len(values) - 1)] if values else 0


class Counters:
    def __init__(self):
        self.time = time.monotonic()
        self.packets, self.bytes = loopback()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.cpu = usage.ru_utime + usage.ru_stime

    def since(self):
        now = Counters()
        return now.time - self.time, now.packets - self.packets, now.bytes - self.bytes, now.cpu - self.cpu


class Report:
    """Figures by name, with the names that dhtbench uses. What a phase that hangs has found so far is printed too."""

    def __init__(self, deadline):
        self.figures = {}
        self.idle_packets = self.idle_bytes = 0.0
        self.deadline = deadline
        self.until = None
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self):
        while True:
            time.sleep(1)
            if self.until and time.monotonic() > self.until:
                say("a phase did not end in time")
                self.add("hung", 1)
                self.print()
                os._exit(0)

    def phase(self, name):
        say(name)
        self.until = time.monotonic() + self.deadline

    def add(self, name, value):
        self.figures[name] = value
        say(f"  {name:28} {value:.3f}")

    def idle(self, seconds, nodes, memory_before):
        before = Counters()
        time.sleep(seconds)
        took, packets, size, _ = before.since()
        self.idle_packets, self.idle_bytes = packets / took, size / took
        self.add("idle_packets_per_s", packets / took / nodes)
        self.add("idle_bytes_per_s", size / took / nodes)
        self.add("memory_kib", (memory_kib() - memory_before) / nodes)

    def load(self, name, results, counters):
        """`results`: (milliseconds, good) of each operation; `counters` as they were at the start."""
        took, packets, size, cpu = counters.since()
        good = sorted(ms for ms, is_good in results if is_good)
        count = max(len(good), 1)
        for p in (50, 90, 99):
            self.add(f"{name}_p{p}_ms", quantile(good, p / 100))
        self.add(f"{name}_per_s", len(good) / took)
        self.add(f"{name}_cpu_ms", cpu * 1000 / count)
        self.add(f"{name}_packets", (packets - self.idle_packets * took) / count)
        self.add(f"{name}_bytes", (size - self.idle_bytes * took) / count)
        self.add(f"{name}_failed", len(results) - len(good))

    def print(self):
        print(json.dumps(self.figures), flush=True)


def value_of(number, size=200):
    return random.Random(number).randbytes(size)
