"""An HTTP/2 client that makes every frame itself: what real clients send rarely, and what none sends.

    frames.py TARGET CASE

Prints {"streams", "connections", "answered", "segments": 0, "left_out"} as JSON: the requests that it opened are the
truth; `left_out` is the number of ids below the highest that it did not use.
"""

import json
import random
import socket
import struct
import sys

import http2_bytes as h2

CONNECTIONS = 20
REQUESTS = 60


def talk(target, data, ids):
    """One connection that sends `data`; returns how many of the streams `ids` were answered to their end."""
    host, port = target.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(data)
        ended, received = set(), b""
        while not ids <= ended:
            more = connection.recv(65536)
            if not more:
                raise SystemExit(f"closed after {len(ended)} of {len(ids)} answers")
            frames, received = h2.frames_of(received + more)
            for kind, flags, stream in frames:
                if kind == h2.GOAWAY:
                    raise SystemExit(f"GOAWAY after {len(ended)} of {len(ids)} answers")
                if kind == h2.SETTINGS and not flags & 1:
                    connection.sendall(h2.frame(h2.SETTINGS, 1, 0))
                if kind in (h2.HEADERS, h2.DATA) and flags & h2.END_STREAM:
                    ended.add(stream)
        return len(ended)


def priority(target, chance):
    """PRIORITY of streams open, closed and idle (RFC 9113 section 5.3.2), and HEADERS that carry it."""
    for stream in range(1, 2 * REQUESTS, 2):
        idle = 2 * chance.randrange(1 << 20) + 1001
        for named in (stream + 2, idle, max(1, stream - 2)):
            yield h2.frame(h2.PRIORITY, 0, named, struct.pack("!IB", 0, chance.randrange(256)))
        block = struct.pack("!IB", 0, 15) + h2.block("GET", target)
        yield h2.frame(h2.HEADERS, h2.END_STREAM | h2.END_HEADERS | h2.HAS_PRIORITY, stream, block)


def unknown(target, chance):
    """Frames of types that nobody defined, on any stream, with any flags and payload: to be ignored (section 4.1)."""
    for stream in range(1, 2 * REQUESTS, 2):
        for _ in range(3):
            kind, flags = chance.randrange(0x20, 0x100), chance.randrange(256)
            yield h2.frame(kind, flags, chance.randrange(1 << 31), chance.randbytes(chance.randrange(300)))
        yield h2.get(stream, target)


def padding(target, chance):
    """HEADERS and DATA with 0 to 255 bytes of padding (sections 6.1 and 6.2)."""
    for stream in range(1, 2 * REQUESTS, 2):
        yield h2.padded(h2.HEADERS, h2.END_HEADERS, stream, h2.block("POST", target), chance.randrange(256))
        for _ in range(chance.randrange(4)):
            yield h2.padded(h2.DATA, 0, stream, bytes(chance.randrange(500)), chance.randrange(256))
        yield h2.padded(h2.DATA, h2.END_STREAM, stream, b"", chance.randrange(256))


def continuation(target, chance):
    """Header blocks in up to five frames, also empty ones (section 6.10); more is a flood to some servers."""
    for stream in range(1, 2 * REQUESTS, 2):
        extra = b"".join(h2.literal(b"x-%d" % at, bytes([97 + at]) * 100) for at in range(5))
        block = h2.block("GET", target, extra)
        cuts = sorted(chance.randrange(len(block)) for _ in range(chance.randrange(1, 5)))
        pieces = [block[begin:end] for begin, end in zip([0] + cuts, cuts + [len(block)])]
        yield h2.frame(h2.HEADERS, h2.END_STREAM, stream, pieces[0])
        for piece in pieces[1:-1]:
            yield h2.frame(h2.CONTINUATION, 0, stream, piece)
        yield h2.frame(h2.CONTINUATION, h2.END_HEADERS, stream, pieces[-1])


def connection_frames(target, chance):
    """SETTINGS, PING and WINDOW_UPDATE between requests."""
    for stream in range(1, 2 * REQUESTS, 2):
        yield h2.frame(h2.SETTINGS, 0, 0, struct.pack("!HI", 4, 1 << 20))
        yield h2.frame(h2.PING, 0, 0, chance.randbytes(8))
        yield h2.frame(h2.WINDOW_UPDATE, 0, 0, struct.pack("!I", 1))
        yield h2.get(stream, target)


def nested(target, chance):
    """Bodies that are HTTP/2 connections themselves, with streams of higher ids."""
    inner = h2.opening() + b"".join(h2.get(stream, target) for stream in range(1001, 1101, 2))
    for stream in range(1, 21, 2):
        yield h2.post(stream, target, inner, piece=chance.randrange(200, 4000))


def gaps(target, chance):
    """Ids that leave others out."""
    stream = 1
    for _ in range(REQUESTS):
        yield h2.get(stream, target)
        stream += 2 * chance.randrange(1, 50)


CASES = {it.__name__: it for it in (priority, unknown, padding, continuation, connection_frames, nested, gaps)}


def main():
    target, case = sys.argv[1:3]
    chance = random.Random(7)
    streams = answered = highest = 0
    for _ in range(CONNECTIONS):
        frames = list(CASES[case](target, chance))
        opened = {stream for kind, _, stream in h2.frames_of(b"".join(frames))[0] if kind == h2.HEADERS}
        streams += len(opened)
        highest += (max(opened) + 1) // 2
        answered += talk(target, h2.opening() + b"".join(frames), opened)
    truth = {"streams": streams, "connections": CONNECTIONS, "answered": answered, "segments": 0}
    print(json.dumps(truth | {"left_out": highest - streams}))


if __name__ == "__main__":
    main()
