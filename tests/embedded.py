"""Embedded AWS services for tests: moto's real server, behind a door of ours."""

import json
import logging
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from threading import Event, Lock
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

from attachd.demo import aws

Application = Callable[..., Any]


@contextmanager
def dynamodb() -> Iterator[str]:
    """DynamoDB for as long as the block lasts, one request at a time: moto's conditional writes are not atomic
    between its threads. Gives its URL."""
    with tables() as made:
        yield made.url


@dataclass
class Tables:
    """DynamoDB, and how it takes requests: ``throttled``, all of these operations are refused."""

    url: str = ""
    throttled: set[str] = field(default_factory=set)

    def before(self, app: Application) -> Application:
        """A door that lets one request in at a time, and none of those that are throttled."""
        lock = Lock()

        def answer(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
            operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
            if operation in self.throttled:
                code = "ProvisionedThroughputExceededException"
                return _failed(start, "400 Bad Request", code, environ)
            with lock:
                return list(app(environ, start))

        return answer


@contextmanager
def tables() -> Iterator[Tables]:
    """The same, to be throttled."""
    made = Tables()
    with server(made.before) as made.url:
        # The first request loads the service, which takes longer than our clients wait.
        _session().client("dynamodb", endpoint_url=made.url).list_tables()
        yield made


@dataclass
class Queues:
    """SQS, and how it takes the next messages: ``throttled``, ``slow``, ``broken``; all others it accepts.

    Attributes:
        expired: access keys that it takes no more.
    """

    url: str = ""
    expired: set[str] = field(default_factory=set)
    answers: deque[str] = field(default_factory=deque)
    slow_seconds: float = 3.0

    @property
    def environment(self) -> dict[str, str]:
        """For AWS clients to find it by."""
        return aws.credentials() | {"AWS_ENDPOINT_URL_SQS": self.url}

    @cached_property
    def client(self) -> Any:
        """For the hand that moves the world."""
        return _session().client("sqs", endpoint_url=self.url)

    def before(self, app: Application) -> Application:
        """A door that answers in SQS's stead when told to."""

        def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
            key = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].partition("/")[0]
            if key in self.expired:
                return _failed(start, "403 Forbidden", "ExpiredToken", environ)
            sends = environ.get("HTTP_X_AMZ_TARGET", "").endswith(".SendMessage")
            match self.answers.popleft() if self.answers and sends else None:
                case "throttled":
                    return _failed(start, "400 Bad Request", "RequestThrottled", environ)
                case "broken":
                    return _failed(start, "500 Internal Server Error", "InternalFailure", environ)
                case "slow":
                    Event().wait(self.slow_seconds)
            return app(environ, start)

        return answer


def _failed(start: Callable[..., Any], status: str, code: str, environ: dict[str, Any]) -> list[bytes]:
    """An error of AWS's, which quotes the request."""
    asked = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()
    start(status, [("Content-Type", "application/x-amz-json-1.0")])
    return [json.dumps({"__type": code, "message": f"you asked: {asked}"}).encode()]


@contextmanager
def sqs() -> Iterator[Queues]:
    """SQS for as long as the block lasts."""
    made = Queues()
    with server(made.before) as made.url:
        made.client.list_queues()
        yield made


@contextmanager
def server(door: Callable[[Application], Application] = lambda app: app) -> Iterator[str]:
    """Embedded AWS, all of it, behind a door; gives its URL."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request otherwise
    made = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    served = made._server
    if served is None:
        raise RuntimeError("moto did not start")
    served.app = door(served.app)
    try:
        yield f"http://{host}:{port}"
    finally:
        made.stop()


def _session() -> boto3.Session:
    return boto3.Session("demo", "demo", region_name="eu-central-1")
