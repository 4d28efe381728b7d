"""A grpcio server for what an echo cannot show: errors with trailers, deadlines, cancellation.

Generic handlers with raw bytes, so no generated code. Methods of /evenkeel.Test/:

  Fail      status 9 with details and trailing metadata
  Hang      answers nothing until the client cancels or its deadline passes, and counts that
  Deadline  the seconds left until the client's deadline, as text; `none` without one
  Metadata  the request's metadata as JSON
  Events    the counts so far as JSON
"""

import collections
import concurrent.futures
import json
import signal
import sys
import threading

import grpc

cancelled = collections.Counter()
lock = threading.Lock()


def fail(request, context):
    context.set_trailing_metadata([("evenkeel-reason", "wanted"), ("evenkeel-trace-bin", b"\x00\x01\xff")])
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "so wanted")


def hang(request, context):
    ended = threading.Event()
    context.add_callback(ended.set)
    started = context.time_remaining()
    with lock:
        cancelled["started"] += 1
    ended.wait(60)
    with lock:
        cancelled["deadline" if started is not None and context.time_remaining() <= 0 else "cancelled"] += 1
    return b""


def deadline(request, context):
    left = context.time_remaining()
    # Some versions of grpcio say "for ever" with a number.
    return b"none" if left is None or left > 1e9 else str(left).encode()


def metadata(request, context):
    def text(value):
        return value.hex() if isinstance(value, bytes) else value

    return json.dumps({key: text(value) for key, value in context.invocation_metadata()}).encode()


def events(request, context):
    with lock:
        return json.dumps(cancelled).encode()


METHODS = {"Fail": fail, "Hang": hang, "Deadline": deadline, "Metadata": metadata, "Events": events}


def main():
    handlers = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in METHODS.items()}
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(32))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("evenkeel.Test", handlers)])
    server.add_insecure_port(sys.argv[1])
    server.start()
    print("listening", file=sys.stderr, flush=True)
    signal.sigwait([signal.SIGTERM])
    server.stop(1).wait()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    main()
