"""A WebSocket client (RFC 6455): so many text messages, each echoed, then a clean close. Prints JSON."""

import base64
import hashlib
import json
import os
import socket
import sys

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(opcode, payload):
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked


def main():
    host, port = sys.argv[1].split(":")
    messages = int(sys.argv[2])
    stream = socket.create_connection((host, int(port)), timeout=20)
    key = base64.b64encode(os.urandom(16)).decode()
    stream.sendall(
        f"GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    reader = stream.makefile("rb")
    status = reader.readline().split()[1].decode()
    headers = {}
    while line := reader.readline().strip():
        name, value = line.decode().split(":", 1)
        headers[name.lower()] = value.strip()
    expected = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
    echoed = 0
    for number in range(messages):
        text = b"message %d" % number
        stream.sendall(frame(1, text))
        head = reader.read(2)
        echoed += reader.read(head[1] & 0x7F) == text
    stream.sendall(frame(8, b""))
    closed = reader.read(2)[:1] == b"\x88" and reader.read() == b""
    accepted = headers.get("sec-websocket-accept") == expected
    print(json.dumps({"status": status, "accepted": accepted, "echoed": echoed, "closed": closed}))


if __name__ == "__main__":
    main()
