"""A grpcio client of the echo service; generic calls with raw bytes, so no generated code.

Prints one JSON object: what it got back. With --pause FILE it stops half way until that file exists.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import sys
import time

import grpc

UNARY = "/evenkeel.Echo/Unary"
STREAM = "/evenkeel.Echo/Stream"


def channel(target):
    # Channels with equal arguments share a connection unless they have a subchannel pool of their own.
    return grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)])


def metadata_of(call, name="evenkeel-backend"):
    return dict(call.initial_metadata()).get(name, "none")


class Result:
    def __init__(self):
        self.ok = 0
        self.failed = collections.Counter()
        self.per_backend = collections.Counter()

    def count(self, call, good):
        if good:
            self.ok += 1
            self.per_backend[metadata_of(call)] += 1
        else:
            self.failed["mismatch"] += 1


def unary(target_channel, number, result):
    method = target_channel.unary_unary(UNARY)
    for sequence in range(number):
        message = b"message %d" % sequence
        try:
            answer, call = method.with_call(message, timeout=30)
            result.count(call, answer == message)
        except grpc.RpcError as error:
            result.failed[f"{error.code().name}: {error.details()}"] += 1


def bidi(target_channel, number, messages, result):
    method = target_channel.stream_stream(STREAM)
    for _ in range(number):
        sent = [b"x" * (size + 1) for size in range(messages)]
        call = method(iter(sent), timeout=30)
        try:
            result.count(call, list(call) == sent)
        except grpc.RpcError as error:
            result.failed[f"{error.code().name}: {error.details()}"] += 1


def run(arguments, target_channel):
    result = Result()
    half = arguments.number // 2
    some(arguments, target_channel, half, result)
    if arguments.pause:
        print("paused", file=sys.stderr, flush=True)
        while not os.path.exists(arguments.pause):
            time.sleep(0.02)
    some(arguments, target_channel, arguments.number - half, result)
    return result


def some(arguments, target_channel, number, result):
    if arguments.kind == "unary":
        unary(target_channel, number, result)
    else:
        bidi(target_channel, number, arguments.messages, result)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["unary", "bidi"])
    parser.add_argument("target")
    parser.add_argument("--number", type=int, default=100, help="RPCs on each connection")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--messages", type=int, default=5, help="messages in a bidirectional stream")
    parser.add_argument("--pause", metavar="FILE", help="stop half way until this file exists")
    arguments = parser.parse_args()

    channels = [channel(arguments.target) for _ in range(arguments.connections)]
    with concurrent.futures.ThreadPoolExecutor(len(channels)) as pool:
        results = list(pool.map(lambda it: run(arguments, it), channels))
    total = Result()
    for result in results:
        total.ok += result.ok
        total.failed += result.failed
        total.per_backend += result.per_backend
    print(json.dumps({"ok": total.ok, "failed": total.failed, "per_backend": total.per_backend}))


if __name__ == "__main__":
    main()
