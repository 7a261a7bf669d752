#!/usr/bin/python3
"""libtorrent's DHT (Debian's python3-libtorrent) measured as dhtbench measures cmig: 50 sessions in one process.

Its immutable items are what a put and a get are compared with; it has neither sets nor a way to be told of changes."""

import os
import random
import time

import libtorrent

from rival import Counters, Report, memory_kib, options, say, value_of

OP_TIMEOUT_S = 10

SETTINGS = {
    "listen_interfaces": "127.0.0.1:0",
    "enable_dht": True,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "dht_bootstrap_nodes": "",
    # All nodes have one address, which it would take for an attack.
    "dht_restrict_routing_ips": False,
    "dht_restrict_search_ips": False,
    "dht_prefer_verified_node_ids": False,
    "dht_ignore_dark_internet": False,
    # Its own limits are made for home connections.
    "dht_upload_rate_limit": 1000000000,
    "dht_block_ratelimit": 1000000,
    "dht_max_dht_items": 100000,
    "alert_mask": libtorrent.alert.category_t.dht_notification | libtorrent.alert.category_t.error_notification,
    "alert_queue_size": 100000,
}


def start_sessions(count):
    sessions = [libtorrent.session(SETTINGS) for _ in range(count)]
    time.sleep(1)
    for session in sessions[1:]:
        session.add_dht_node(("127.0.0.1", sessions[0].listen_port()))
    # They learn of each other slowly where nothing is looked up: as in the comparison of others, each is told of some.
    for session in sessions:
        for other in random.sample(sessions, min(len(sessions), 16)):
            if other is not session:
                session.add_dht_node(("127.0.0.1", other.listen_port()))
    return sessions


class Op:
    def __init__(self, number, session):
        self.number, self.session = number, session
        self.began = time.perf_counter()


def finished(alert):
    """The key and whether it worked, of an alert that ends an operation."""
    if isinstance(alert, libtorrent.dht_put_alert):
        return str(alert.target), alert.num_success > 0, None
    if isinstance(alert, libtorrent.dht_immutable_item_alert):
        return str(alert.target), True, alert.item["value"]
    return None


def run(sessions, targets, is_put, first, count, flight):
    results, waiting = [], {}
    number = first
    while len(results) < count:
        while number < first + count and len(waiting) < flight:
            session = random.choice(sessions)
            op = Op(number, session)
            if is_put:
                targets[number] = session.dht_put_immutable_item(value_of(number))
            else:
                session.dht_get_immutable_item(targets[number])
            waiting[(id(session), str(targets[number]))] = op
            number += 1
        if flight == 1 and waiting:
            next(iter(waiting.values())).session.wait_for_alert(100)
        for session in {op.session for op in waiting.values()}:
            for alert in session.pop_alerts():
                end = finished(alert)
                op = waiting.pop((id(session), end[0]), None) if end else None
                if not op:
                    continue
                good = end[1] and (is_put or end[2] == value_of(op.number))
                results.append(((time.perf_counter() - op.began) * 1000, good))
        now = time.perf_counter()
        for key in [key for key, op in waiting.items() if now - op.began > OP_TIMEOUT_S]:
            del waiting[key]
            results.append((0, False))
    return results


def measure_values(sessions, report, args, targets):
    report.phase("put and get")
    for name, is_put, first, count, flight in (
        ("put1", True, 0, args.ops, 1),
        ("get1", False, 0, args.ops, 1),
        ("put32", True, args.ops, args.many, 32),
        ("get32", False, args.ops, args.many, 32),
    ):
        counters = Counters()
        results = run(sessions, targets, is_put, first, count, flight)
        report.load(name, results, counters)
        time.sleep(0.5)


def measure_kill(sessions, report, targets):
    report.phase("half of the nodes die, 200 gets at once")
    first = 1000000
    run(sessions, targets, True, first, 200, 32)
    time.sleep(0.5)
    for session in sessions[1::2]:
        session.stop_dht()
    counters = Counters()
    results = run(sessions[0::2], targets, False, first, 200, 200)
    report.load("killed", results, counters)


def main():
    args = options()
    phases = args.phases.split(",")
    report = Report(args.deadline)
    report.phase(f"{args.nodes} nodes")
    start_sessions(2)  # so that its code is in memory before its sessions are measured
    before = memory_kib()
    targets = {}
    sessions = start_sessions(args.nodes)
    time.sleep(10)
    report.until = None
    if "idle" in phases:
        report.idle(args.idle, args.nodes, before)
    if "values" in phases:
        measure_values(sessions, report, args, targets)
    if "kill" in phases:
        measure_kill(sessions, report, targets)
    report.until = None
    report.print()
    os._exit(0)  # ending 50 sessions in order takes longer than all of the above


if __name__ == "__main__":
    main()
