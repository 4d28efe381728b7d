"""A TCP client that decides itself where every segment begins and ends, in which order they leave, and which leave
twice: raw sockets and the least of TCP (RFC 9293) that a server will talk to.

    segments.py TARGET CASE [SEED]

What it sends is fixed before the connection is made, and the server acknowledges all of it, so that the number of
requests in it is the truth. Prints {"streams", "connections", "segments", "answered", "left_out": 0} as JSON.

The kernel knows nothing of these connections and would reset them: whoever runs this drops outgoing RSTs.
"""

import json
import random
import select
import socket
import struct
import sys
import time

import http2_bytes as h2

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
FIRST_PORT = 20000
MSS = 1460
# Nobody here loses packets; whoever waits this long waits in vain.
PATIENCE = 20


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Wire:
    """Where segments leave and arrive."""

    def __init__(self, target):
        host, port = target.split(":")
        self.peer, self.peer_port = host, int(port)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))
            self.address = probe.getsockname()[0]
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.connect((host, 0))
        self.sent = 0

    def send(self, port, flags, sequence, acknowledged, payload=b"", options=b""):
        offset = (5 + len(options) // 4) << 4
        header = struct.pack(
            "!HHIIBBHHH", port, self.peer_port, sequence, acknowledged, offset, flags, 65535, 0, 0
        ) + options
        pseudo = socket.inet_aton(self.address) + socket.inet_aton(self.peer)
        pseudo += struct.pack("!BBH", 0, 6, len(header) + len(payload))
        value = checksum(pseudo + header + payload)
        self.socket.send(header[:16] + struct.pack("!H", value) + header[18:] + payload)
        self.sent += bool(payload)

    def receive(self, wait):
        """The next segment for us as (our port, flags, sequence, acknowledged, payload); None if there is none."""
        if not select.select([self.socket], [], [], wait)[0]:
            return None
        packet = self.socket.recv(65536)
        tcp = packet[(packet[0] & 15) * 4 :]
        source, port, sequence, acknowledged, offset, flags = struct.unpack("!HHIIBB", tcp[:14])
        if source != self.peer_port:
            return None
        return port, flags, sequence, acknowledged, tcp[(offset >> 4) * 4 :]


class Connection:
    """`data` in `segments` (pairs of begin and end), in that order; it is over once `answers` streams have ended."""

    def __init__(self, data, segments, answers):
        self.data, self.segments, self.answers = data, segments, answers
        self.ended = set()
        self.received = b""
        self.state = "new"

    def open(self, wire, port, first):
        self.wire, self.port = wire, port
        self.first, self.next, self.acknowledged = first, 0, 0
        self.state = "opening"
        wire.send(port, SYN, first, 0, options=struct.pack("!BBH", 2, 4, MSS))

    def sequence(self, at):
        return (self.first + 1 + at) & 0xFFFFFFFF

    def acknowledge(self, flags=0):
        self.wire.send(self.port, ACK | flags, self.sequence(len(self.data)), self.next)

    def take(self, flags, sequence, acknowledged, payload):
        if flags & RST:
            raise SystemExit(f"port {self.port} was reset after {len(self.ended)} answers: {self.segments}")
        if self.state == "opening" and flags & SYN:
            self.next = (sequence + 1) & 0xFFFFFFFF
            self.state = "open"
            self.wire.send(self.port, ACK, self.sequence(0), self.next)
            for begin, end in self.segments:
                piece = self.data[begin:end]
                self.wire.send(self.port, ACK | PSH, self.sequence(begin), self.next, piece)
            return
        ahead = (self.next - sequence) & 0xFFFFFFFF
        if ahead < 1 << 31 and len(payload) > ahead:
            payload = payload[ahead:]
            self.received += payload
            self.next = (self.next + len(payload)) & 0xFFFFFFFF
            self.acknowledge()
            self.read()
        at_end = sequence + len(payload) & 0xFFFFFFFF == self.next or not payload
        self.acknowledged = max(self.acknowledged, (acknowledged - self.sequence(0)) & 0xFFFFFFFF)
        if flags & FIN and at_end and self.state == "closing":
            self.next = (self.next + 1) & 0xFFFFFFFF
            self.wire.send(self.port, ACK, self.sequence(len(self.data) + 1), self.next)
            self.state = "closed"
        if self.state == "open" and self.answers <= self.ended:
            self.acknowledge(FIN)
            self.state = "closing"

    def read(self):
        frames, self.received = h2.frames_of(self.received)
        for kind, flags, stream in frames:
            if kind in (h2.HEADERS, h2.DATA) and flags & h2.END_STREAM:
                self.ended.add(stream)
            if kind == h2.GOAWAY and self.state == "open":
                raise SystemExit(f"port {self.port} got a GOAWAY: {self.segments}")


def run(wire, connections, at_once=16):
    """All of them, some at once; the first sequence numbers are such that every second one wraps around."""
    waiting = list(enumerate(connections))
    open_now = {}
    last = time.monotonic()
    while waiting or open_now:
        while waiting and len(open_now) < at_once:
            index, connection = waiting.pop(0)
            connection.open(wire, FIRST_PORT + index, [1_000_000, 0xFFFFFFFF - 60][index % 2])
            open_now[FIRST_PORT + index] = connection
        segment = wire.receive(0.5)
        if segment and segment[0] in open_now:
            last = time.monotonic()
            open_now[segment[0]].take(*segment[1:])
            if open_now[segment[0]].state == "closed":
                del open_now[segment[0]]
        if time.monotonic() - last > PATIENCE:
            states = {port: (it.state, len(it.ended), it.acknowledged) for port, it in open_now.items()}
            raise SystemExit(f"no answer any more: {states}")


def requests(target, count, body=0):
    """The bytes of a connection with so many requests, and their ids."""
    ids = range(1, 2 * count, 2)
    each = [h2.post(it, target, bytes(0x80 | at * 7 & 0x7F for at in range(body))) if body else h2.get(it, target)
            for it in ids]
    return h2.opening() + b"".join(each), set(ids)


def cut(length, sizes):
    """Segments from end to end whose lengths `sizes` gives."""
    segments, at = [], 0
    while at < length:
        end = min(length, at + sizes())
        segments.append((at, end))
        at = end
    return segments


def every_offset(target, _):
    """Two segments, cut at every offset there is."""
    data, ids = requests(target, 4)
    return [Connection(data, [(0, at), (at, len(data))], ids) for at in range(1, len(data))]


def every_length(target, _):
    """Segments that all have the same length, from 1 to 40 bytes: every frame header is split everywhere."""
    data, ids = requests(target, 8)
    return [Connection(data, cut(len(data), lambda: size), ids) for size in range(1, 41)]


def retransmitted(target, random):
    """Every segment again, some later, with other ends than the first time."""
    connections = []
    for _ in range(40):
        data, ids = requests(target, 30)
        segments = []
        for begin, end in cut(len(data), lambda: random.randint(1, 120)):
            segments.append((begin, end))
            if random.random() < 0.5:
                again = max(0, begin - random.randint(0, 200))
                segments.append((again, random.randint(again + 1, end)))
        connections.append(Connection(data, segments, ids))
    return connections


def reordered(target, random):
    """One request a segment, of which one in ten comes up to three segments late."""
    connections = []
    for _ in range(40):
        data, ids = requests(target, 50)
        each = (len(data) - len(h2.opening())) // 50
        begin = len(data) - 50 * each
        segments = [(0, begin)] + [(at, at + each) for at in range(begin, len(data), each)]
        at = 1
        while at < len(segments) - 6:
            if random.random() < 0.1:
                late = segments.pop(at)
                at += random.randint(1, 3)
                segments.insert(at, late)
            at += 1
        connections.append(Connection(data, segments, ids))
    return connections


def reordered_bulk(target, random):
    """Full segments of requests with bodies, of which one in twenty comes up to three segments late."""
    connections = []
    for _ in range(10):
        data, ids = requests(target, 20, body=3000)
        segments = cut(len(data), lambda: 1448)
        at = 1
        while at < len(segments) - 6:
            if random.random() < 0.05:
                late = segments.pop(at)
                at += random.randint(1, 3)
                segments.insert(at, late)
            at += 1
        connections.append(Connection(data, segments, ids))
    return connections


CASES = {it.__name__: it for it in (every_offset, every_length, retransmitted, reordered, reordered_bulk)}


def main():
    target, case = sys.argv[1:3]
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    connections = CASES[case](target, random.Random(seed))
    wire = Wire(target)
    run(wire, connections)
    print(
        json.dumps(
            {
                "streams": sum(len(it.answers) for it in connections),
                "answered": sum(len(it.ended) for it in connections),
                "connections": len(connections),
                "segments": wire.sent,
                "left_out": 0,
            }
        )
    )


if __name__ == "__main__":
    main()
