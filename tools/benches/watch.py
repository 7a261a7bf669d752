#!/usr/bin/env python3
"""watch.py PID...: looks at the anonymous memory of processes until it is ended, and then prints by how many MB (10^6) each
has grown at most since the beginning, the most of them last."""
import signal
import sys
import time


def anonymous(pid):
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) * 1024
    except (OSError, StopIteration):
        return 0


def end(*_):
    grown = sorted((peak[pid] - idle[pid]) / 1e6 for pid in idle)
    print(*(f"{value:.1f}" for value in grown), flush=True)
    sys.exit()


idle = {pid: anonymous(pid) for pid in sys.argv[1:]}
peak = dict(idle)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
while True:
    for pid in peak:
        peak[pid] = max(peak[pid], anonymous(pid))
    time.sleep(0.02)
