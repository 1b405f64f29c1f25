"""An embedded DynamoDB, one request at a time: moto's conditional writes are not atomic between its threads."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import boto3
from moto.server import ThreadedMotoServer


@contextmanager
def dynamodb() -> Iterator[str]:
    """Run it for as long as the block lasts; gives its URL."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request otherwise
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    served = server._server
    if served is None:
        raise RuntimeError("moto did not start")
    served.app = _one_at_a_time(served.app)
    # The first request loads the service, which takes longer than our clients wait.
    session = boto3.Session("demo", "demo", region_name="eu-central-1")
    session.client("dynamodb", endpoint_url=f"http://{host}:{port}").list_tables()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def _one_at_a_time(app: Callable[..., Any]) -> Callable[..., list[bytes]]:
    lock = Lock()

    def answer(*request: Any) -> list[bytes]:
        with lock:
            return list(app(*request))

    return answer
