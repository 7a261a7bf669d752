#!/usr/bin/env python3
"""libtorrent as a rival, by Debian's python3-libtorrent.

rival_libtorrent.py make FILE TRACKER OUT       a torrent of a file, with pieces of 256 KiB
rival_libtorrent.py seed TORRENT FILE ADDRESS   until it is killed; "ready" when it listens
rival_libtorrent.py get TORRENT DIR ADDRESS [PEER...]
    "ready" when the session is there; a line on standard input starts it; then "done SECONDS" when all pieces are checked,
    and it stays as a seed

Set as for a fast local network: no uTP, no encryption, no limits, connections at once, peers named beforehand.
"""
import os
import sys
import time

import libtorrent as lt

PORT = 6881


def session(address):
    return lt.session({
        "listen_interfaces": f"{address}:{PORT}", "enable_dht": False, "enable_lsd": False, "enable_upnp": False,
        "enable_natpmp": False, "enable_incoming_utp": False, "enable_outgoing_utp": False, "alert_mask": 0,
        "unchoke_slots_limit": 20, "allow_multiple_connections_per_ip": True, "connection_speed": 100,
        "in_enc_policy": 2, "out_enc_policy": 2, "torrent_connect_boost": 50, "smooth_connects": False,
        "min_reconnect_time": 1})


def make(file, tracker, out):
    storage = lt.file_storage()
    lt.add_files(storage, file)
    torrent = lt.create_torrent(storage, 256 << 10, flags=lt.create_torrent.v1_only)
    torrent.add_tracker(tracker)
    lt.set_piece_hashes(torrent, os.path.dirname(file))
    with open(out, "wb") as output:
        output.write(lt.bencode(torrent.generate()))


def add(running, torrent, folder, peers=(), seeding=False):
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(torrent)
    parameters.save_path = folder
    parameters.flags &= ~(lt.torrent_flags.paused | lt.torrent_flags.auto_managed)
    if seeding:
        parameters.flags |= lt.torrent_flags.seed_mode
    handle = running.add_torrent(parameters)
    for peer in peers:
        handle.connect_peer((peer, PORT))
    return handle


def seed(torrent, file, address):
    running = session(address)
    add(running, torrent, os.path.dirname(file), seeding=True)
    print("ready", flush=True)
    time.sleep(100000)


def get(torrent, folder, address, *peers):
    running = session(address)
    print("ready", flush=True)
    sys.stdin.readline()
    begin = time.monotonic()
    handle = add(running, torrent, folder, peers)
    while not handle.status().is_seeding:
        time.sleep(0.01)
    print(f"done {time.monotonic() - begin:.3f}", flush=True)
    time.sleep(100000)


if len(sys.argv) < 5:
    sys.exit(__doc__)
{"make": make, "seed": seed, "get": get}[sys.argv[1]](*sys.argv[2:])
