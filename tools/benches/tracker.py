#!/usr/bin/env python3
"""tracker.py ADDRESS PORT: a BitTorrent tracker that knows everybody who has asked, for rivals in a lab (BEP 3, BEP 23)."""
import http.server
import socket
import sys
import urllib.parse

swarms = {}


class Tracker(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query, encoding="latin-1")
        peers = swarms.setdefault(query["info_hash"][0], set())
        me = socket.inet_aton(self.client_address[0]) + int(query["port"][0]).to_bytes(2, "big")
        others = b"".join(sorted(peers - {me}))
        if query.get("event", [""])[0] == "stopped":
            peers.discard(me)
        else:
            peers.add(me)
        answer = b"d8:intervali5e12:min intervali1e5:peers%d:%se" % (len(others), others)
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Tracker).serve_forever()
