"""A client whose connection is old when someone begins to look, and whose next sign of life names no stream.

    late.py TARGET GO

Opens `BEFORE` streams, says "paused" on standard error, waits for the file GO, sends a PING alone and, once that is
answered, opens `SINCE` more. Prints {"before", "since"} as JSON.
"""

import json
import os
import socket
import sys
import time

import http2_bytes as h2

BEFORE, SINCE = 5000, 40


class Connection:
    def __init__(self, target):
        host, port = target.split(":")
        self.target = target
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.socket.sendall(h2.opening())

    def read(self):
        """The next frames, whose acknowledgements are sent."""
        more = self.socket.recv(65536)
        if not more:
            raise SystemExit("closed")
        frames, self.received = h2.frames_of(self.received + more)
        for kind, flags, _ in frames:
            if kind == h2.SETTINGS and not flags & 1:
                self.socket.sendall(h2.frame(h2.SETTINGS, 1, 0))
        return frames

    def request(self, number):
        """One stream, to the end of its answer."""
        stream = 2 * number + 1
        self.socket.sendall(h2.get(stream, self.target))
        while not any(it[2] == stream and it[1] & h2.END_STREAM for it in self.read() if it[0] <= h2.HEADERS):
            pass

    def ping(self):
        self.socket.sendall(h2.frame(h2.PING, 0, 0, bytes(8)))
        while not any(kind == h2.PING and flags & 1 for kind, flags, _ in self.read()):
            pass


def main():
    target, go = sys.argv[1:3]
    connection = Connection(target)
    for number in range(BEFORE):
        connection.request(number)
    print("paused", file=sys.stderr, flush=True)
    while not os.path.exists(go):
        time.sleep(0.01)
    connection.ping()
    for number in range(BEFORE, BEFORE + SINCE):
        connection.request(number)
    print(json.dumps({"before": BEFORE, "since": SINCE}))


if __name__ == "__main__":
    main()
