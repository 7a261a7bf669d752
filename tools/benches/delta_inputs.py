#!/usr/bin/env python3
"""Versions of files for tools/bench delta, the same ones each time on the same machine.

delta_inputs.py mixed DIR [MIB]   old, and what became of it: pages, insert, edits
delta_inputs.py live FILE         a process with about 195 MB of objects, which changes a few of them at each SIGUSR1 and
                                  says so in the file

old, 256 MiB: 3/8 programs and libraries of this machine, 2/8 text (Python, Perl, C), 2/8 memory of a process with small
objects (addresses, counts, empty pages; made up), 1/8 random bytes. pages: 1 % of its pages of 4 KiB are random now.
insert: 10 bytes more near the beginning. edits: 64 bytes are random now within each of the same pages.
"""
import os
import random
import signal
import sys

PAGE = 4096
SHARE = {"programs": 3, "text": 2, "memory": 2, "random": 1}
ROOTS = {"programs": ["/usr/bin", "/usr/lib/x86_64-linux-gnu", "/usr/lib", "/usr/sbin"],
         "text": ["/usr/lib/python3", "/usr/lib/python3.11", "/usr/share/perl", "/usr/include", "/usr/share"]}
TEXT = (".py", ".pl", ".pm", ".h", ".c", ".txt", ".html", ".sh")


def files_under(root):
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield path


def collect(kind, size):
    taken, seen = bytearray(), set()
    for root in ROOTS[kind]:
        for path in files_under(root):
            if path in seen or (kind == "text") != path.endswith(TEXT):
                continue
            seen.add(path)
            with open(path, "rb") as file:
                taken += file.read(min(8 << 20, size - len(taken)))
            if len(taken) >= size:
                return bytes(taken)
    print(f"delta_inputs.py: only {len(taken) >> 20} MiB of {kind} here, the rest is random", file=sys.stderr)
    return bytes(taken) + random.Random(kind).randbytes(size - len(taken))


def memory(size):
    """Words of a heap: two in five are addresses of few types or near ones, two in five small numbers, one is random."""
    draw = random.Random(2)
    types = [0x955000 + 0x1A0 * i for i in range(60)]
    pages, near = [], 0x7F3A10000000
    for _ in range(size // PAGE):
        if draw.random() < 0.18:
            pages.append(bytes(PAGE))
            continue
        words = []
        for _ in range(PAGE // 40):
            near += draw.choice((16, 32, 48, 64, 112))
            words += (1 + (draw.random() < 0.1), draw.choice(types), near, draw.choice((0, 1, 5, 28)), draw.getrandbits(64))
        words += [0] * (PAGE // 8 - len(words))
        pages.append(b"".join(word.to_bytes(8, "little") for word in words))
    return b"".join(pages)


def write(folder, name, content):
    with open(os.path.join(folder, name), "wb") as file:
        file.write(content)


def mixed(folder, mib="256"):
    part = (int(mib) << 20) // 8
    old = (collect("programs", 3 * part) + collect("text", 2 * part) + memory(2 * part) + random.Random(3).randbytes(part))
    draw = random.Random(4)
    chosen = sorted(draw.sample(range(len(old) // PAGE), len(old) // PAGE // 100))
    pages, edits = bytearray(old), bytearray(old)
    for page in chosen:
        pages[page * PAGE:(page + 1) * PAGE] = draw.randbytes(PAGE)
        at = page * PAGE + draw.randrange(PAGE - 64)
        edits[at:at + 64] = draw.randbytes(64)
    write(folder, "old", old)
    write(folder, "pages", pages)
    write(folder, "edits", edits)
    write(folder, "insert", old[:1000] + draw.randbytes(10) + old[1000:])


def live():
    draw = random.Random(5)
    numbers = [draw.random() for _ in range(2_600_000)]
    strings = [f"{draw.getrandbits(64):016x} of {i}" for i in range(700_000)]
    blobs = [draw.randbytes(PAGE) for _ in range(6_000)]

    def change(*_):
        for _ in range(3000):
            numbers[draw.randrange(len(numbers))] = draw.random()
        for i in range(600):
            strings[draw.randrange(len(strings))] = f"{draw.getrandbits(64):016x} now {i}"
        for _ in range(50):
            blobs[draw.randrange(len(blobs))] = draw.randbytes(PAGE)
        with open(sys.argv[2], "a", encoding="ascii") as told:
            told.write("changed\n")

    signal.signal(signal.SIGUSR1, change)
    with open(sys.argv[2], "w", encoding="ascii") as told:
        told.write("ready\n")
    while True:
        signal.pause()


if len(sys.argv) < 3:
    sys.exit(__doc__)
if sys.argv[1] == "mixed":
    mixed(*sys.argv[2:])
else:
    live()
