#!/usr/bin/python3
"""OpenDHT (Debian's python3-opendht) measured as dhtbench measures cmig: 50 nodes in one process over loopback."""

import random
import threading
import time

import opendht

from rival import Counters, Report, memory_kib, options, quantile, say, value_of

OP_TIMEOUT_S = 20
BLOCK = 1000


def start_nodes(count):
    nodes = []
    for number in range(count):
        config = opendht.DhtConfig()
        config.setRateLimit(-1, -1)  # its own limits drop puts and gets without a word
        node = opendht.DhtRunner()
        node.run(ipv4="127.0.0.1", ipv6="::1", port=0, config=config)
        if number:
            node.bootstrap("127.0.0.1", str(nodes[0].getBound().getPort()))
        nodes.append(node)
    return nodes


class Op:
    """One put or get, over when its last callback came."""

    def __init__(self, run, number):
        self.run, self.number = run, number
        self.good = False
        self.ended = False
        self.began = time.perf_counter()

    def done(self, good):
        if not self.ended:
            self.ended = True
            self.run.over(self, (time.perf_counter() - self.began) * 1000, good)


class Run:
    """`count` operations, `flight` at a time: start(op, node) begins one, op.done ends it."""

    def __init__(self, nodes, start, first, count, flight, timeout_s=OP_TIMEOUT_S):
        self.results, self.lock = [], threading.Lock()
        self.room = threading.Semaphore(flight)
        for number in range(first, first + count):
            if not self.room.acquire(timeout=timeout_s):
                say("  an operation did not end in time")
                break
            start(Op(self, number), random.choice(nodes))
        until = time.monotonic() + timeout_s
        while len(self.results) < count and time.monotonic() < until:
            time.sleep(0.0005)
        missing = count - len(self.results)
        self.results += [(0, False)] * missing

    def over(self, op, ms, good):
        with self.lock:
            self.results.append((ms, good))
        self.room.release()


def key_of(number):
    return opendht.InfoHash.get(f"bench {number}")


def start_put(op, node):
    node.put(key_of(op.number), opendht.Value(value_of(op.number)), lambda ok, _: op.done(bool(ok)))


def start_get(op, node):
    expected = value_of(op.number)

    def on_value(value):
        op.good |= value.data == expected
        return True

    node.get(key_of(op.number), on_value, lambda ok, _: op.done(op.good))


def measure_values(nodes, report, args):
    report.phase("put and get")
    for name, start, first, count, flight in (
        ("put1", start_put, 0, args.ops, 1),
        ("get1", start_get, 0, args.ops, 1),
        ("put32", start_put, args.ops, args.many, 32),
        ("get32", start_get, args.ops, args.many, 32),
    ):
        counters = Counters()
        run = Run(nodes, start, first, count, flight)
        report.load(name, run.results, counters)
        time.sleep(0.5)


def measure_set(nodes, report, members):
    report.phase(f"one key of {members} values")
    key = opendht.InfoHash.get(f"set {members}")
    rates, failed = [], 0

    def start(op, node):
        node.put(key, opendht.Value(b"member-%06d" % op.number), lambda ok, _: op.done(bool(ok)))

    for first in range(0, members, BLOCK):
        began = time.monotonic()
        results = Run(nodes, start, first, BLOCK, 32).results
        failed += sum(not good for _, good in results)
        rates.append(BLOCK / (time.monotonic() - began))
    report.add(f"set{members}_first_per_s", rates[0])
    report.add(f"set{members}_last_per_s", rates[-1])
    report.add(f"set{members}_flatness", min(rates) / max(rates))
    report.add(f"set{members}_failed", failed)
    time.sleep(1)
    counters = Counters()
    found = set()

    def start_whole(op, node):
        def on_value(value):
            found.add(bytes(value.data))
            return True

        node.get(key, on_value, lambda ok, _: op.done(True))

    results = Run(nodes, start_whole, 0, 1, 1, 60).results
    report.load(f"whole{members}", results, counters)
    report.add(f"whole{members}_distinct", len(found))


def measure_watch(nodes, report, first):
    report.phase("100 listeners")
    began, told = {}, {}

    def listen(number):
        expected = value_of(number)

        def on_value(value, expired):
            if not expired and value.data == expected:
                told.setdefault(number, time.perf_counter())
            return True

        return random.choice(nodes).listen(key_of(number), on_value)

    tokens = [listen(number) for number in range(first, first + 100)]
    time.sleep(2)

    def start(op, node):
        began[op.number] = time.perf_counter()
        start_put(op, node)

    Run(nodes, start, first, 100, 1)
    time.sleep(3)
    ms = sorted((told[n] - began[n]) * 1000 for n in told)
    report.add("watch_told", len(ms))
    report.add("watch_p50_ms", quantile(ms, 0.5))
    report.add("watch_p99_ms", quantile(ms, 0.99))
    return tokens


def measure_kill(nodes, report, first):
    report.phase("half of the nodes die, 200 gets at once")
    Run(nodes, start_put, first, 200, 32)
    time.sleep(0.5)
    dying, living = nodes[1::2], nodes[0::2]
    threads = [threading.Thread(target=node.join) for node in dying]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    counters = Counters()
    results = Run(living, start_get, first, 200, 200, 60).results
    report.load("killed", results, counters)


def main():
    args = options()
    phases = args.phases.split(",")
    report = Report(args.deadline)
    report.phase(f"{args.nodes} nodes")
    for node in start_nodes(2):  # so that its code is in memory before its nodes are measured
        time.sleep(0.5)
        node.join()
    before = memory_kib()
    nodes = start_nodes(args.nodes)
    time.sleep(10)
    report.until = None
    if "idle" in phases:
        report.idle(args.idle, args.nodes, before)
    if "values" in phases:
        measure_values(nodes, report, args)
    for members in (1000, 10000):
        if f"set{members}" in phases:
            measure_set(nodes, report, members)
    kept = measure_watch(nodes, report, 1000000) if "watch" in phases else None
    if "kill" in phases:
        measure_kill(nodes, report, 2000000)
    report.until = None
    report.print()
    del kept


if __name__ == "__main__":
    main()
    # Its threads do not always end; there is nothing left to save.
    import os

    os._exit(0)
