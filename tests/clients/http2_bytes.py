"""The bytes of an HTTP/2 client, frame by frame (RFC 9113), with HPACK's static table only (RFC 7541 appendix A)."""

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x4, 0x8, 0x20


def frame(kind, flags, stream, payload=b""):
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def block(method, target, extra=b""):
    """A header block: `:method`, `:scheme http`, `:path /` and `:authority`, then literals as they are."""
    authority = target.encode()
    return {"GET": b"\x82", "POST": b"\x83"}[method] + b"\x86\x84\x41" + bytes([len(authority)]) + authority + extra


def literal(name, value):
    """A field that enters no table (RFC 7541 section 6.2.2); both shorter than 127 bytes."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def opening():
    """The preface, and SETTINGS that open the windows for whatever is answered."""
    settings = struct.pack("!HIHI", 2, 0, 4, 1 << 20)  # ENABLE_PUSH 0, INITIAL_WINDOW_SIZE 1 MiB
    return PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", 1 << 24))


def get(stream, target):
    return frame(HEADERS, END_STREAM | END_HEADERS, stream, block("GET", target))


def post(stream, target, body, piece=16384):
    """A request with a body, in DATA frames of `piece` bytes."""
    frames = frame(HEADERS, END_HEADERS, stream, block("POST", target))
    for at in range(0, len(body), piece):
        flags = END_STREAM if at + piece >= len(body) else 0
        frames += frame(DATA, flags, stream, body[at : at + piece])
    return frames


def padded(kind, flags, stream, payload, padding):
    """HEADERS or DATA with padding (RFC 9113 section 6.1)."""
    return frame(kind, flags | PADDED, stream, bytes([padding]) + payload + bytes(padding))


def frames_of(data):
    """The whole frames at the front of `data`, as (kind, flags, stream), and what is left."""
    found = []
    while len(data) >= 9:
        length = int.from_bytes(data[:3], "big")
        if len(data) < 9 + length:
            break
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big") & 0x7FFFFFFF))
        data = data[9 + length :]
    return found, data
