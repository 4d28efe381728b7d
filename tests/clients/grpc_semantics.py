"""Calls the methods of grpc_server.py and prints what a client sees, as one JSON object."""

import json
import sys
import time

import grpc

HANG = "/evenkeel.Test/Hang"


def main():
    channel = grpc.insecure_channel(sys.argv[1])

    def call(method, request=b"", **options):
        return channel.unary_unary(f"/evenkeel.Test/{method}").with_call(request, **{"timeout": 30, **options})

    def events():
        return json.loads(call("Events")[0])

    def until(key, number):
        """The server hears of an end a moment after we do."""
        for _ in range(500):
            if events().get(key, 0) >= number:
                break
            time.sleep(0.02)
        return events().get(key, 0)

    seen = {}
    try:
        call("Fail")
    except grpc.RpcError as error:
        trailers = dict(error.trailing_metadata())
        seen["fail"] = {
            "code": error.code().name,
            "details": error.details(),
            "reason": trailers.get("evenkeel-reason"),
            "binary": trailers.get("evenkeel-trace-bin", b"").hex(),
        }
    try:
        call("NoSuchMethod")
    except grpc.RpcError as error:
        seen["unknown"] = error.code().name
    seen["no_deadline"] = call("Deadline", timeout=None)[0].decode()
    left = float(call("Deadline", timeout=1000)[0])
    # On the wire it is rounded up, to whole seconds at this size or coarser.
    seen["deadline_forwarded"] = 900 < left < 1100
    metadata = json.loads(call("Metadata", metadata=[("evenkeel-a", "b"), ("evenkeel-c-bin", b"\x00\xff")])[0])
    seen["metadata"] = [metadata.get("evenkeel-a"), metadata.get("evenkeel-c-bin")]

    try:
        call("Hang", timeout=0.3)
    except grpc.RpcError as error:
        seen["deadline"] = error.code().name
    seen["server_saw_end"] = until("deadline", 1) + events().get("cancelled", 0)

    futures = [channel.unary_unary(HANG).future(b"", timeout=60) for _ in range(5)]
    until("started", 6)
    for future in futures:
        future.cancel()
    seen["cancelled"] = until("cancelled", 5)
    seen["large"] = len(channel.unary_unary("/evenkeel.Test/Metadata")(b"x" * 3_000_000, timeout=30)) > 0
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
