#!/usr/bin/env python3
"""Packets and streams whose fate can be told, for the tests of the network lab.

probe.py count PORT SECONDS          datagrams that come until none has come for so long: how many, how many out of order
probe.py datagrams HOST PORT N SIZE  send so many, numbered
probe.py take PORT                   one stream: bytes, seconds from the first byte to the last, SHA-256
probe.py stream HOST PORT FILE       send a file
"""
import hashlib
import json
import socket
import sys
import time


def count(port, patience):
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE, which the module has no name for
    receiver.bind(("", int(port)))
    print("ready", flush=True)
    received, overtaken, highest = 0, 0, -1
    receiver.settimeout(20)
    while True:
        try:
            number = int.from_bytes(receiver.recv(65536)[:4], "big")
        except TimeoutError:
            break
        receiver.settimeout(float(patience))
        received += 1
        overtaken += number < highest
        highest = max(highest, number)
    print(json.dumps({"received": received, "overtaken": overtaken}))


def datagrams(host, port, number, size):
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for i in range(int(number)):
        sender.sendto(i.to_bytes(4, "big").ljust(int(size), b"."), (host, int(port)))
        if i % 50 == 49:
            time.sleep(0.005)  # not faster than the device's own queue is emptied


def take(port):
    listener = socket.create_server(("", int(port)))
    print("ready", flush=True)
    stream, _ = listener.accept()
    digest, size, begin = hashlib.sha256(), 0, None
    while part := stream.recv(1 << 18):
        begin = begin or time.monotonic()
        digest.update(part)
        size += len(part)
    print(json.dumps({"bytes": size, "seconds": time.monotonic() - begin, "sha256": digest.hexdigest()}))


def stream(host, port, file):
    with open(file, "rb") as content, socket.create_connection((host, int(port))) as sender:
        sender.sendfile(content)


if len(sys.argv) < 3:
    sys.exit(__doc__)
{"count": count, "datagrams": datagrams, "take": take, "stream": stream}[sys.argv[1]](*sys.argv[2:])
