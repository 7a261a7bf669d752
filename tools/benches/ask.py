#!/usr/bin/env python3
"""ask.py SOCKET DIGEST: have a node fetch an object, as a client that runs already; prints the milliseconds from its
request to the node's verdict, which comes when the object is verified and on disk."""
import socket
import sys
import time

path, digest = sys.argv[1:]
node = socket.socket(socket.AF_UNIX)
node.connect(path)
request = f"POST /v1/objects/{digest}/fetch HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" \
    "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
answer = b""
begin = time.monotonic()
node.sendall(request.encode())
while b'"event":"result"' not in answer and (more := node.recv(65536)):
    answer += more
took = time.monotonic() - begin
if b'"event":"result"' not in answer:
    sys.exit(answer.decode(errors="replace"))
print(f"{took * 1000:.2f}")
