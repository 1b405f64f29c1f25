"""Embedded AWS: moto's server with the queue, the dead-letter queue and the very rule that ``config/`` ships."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

import boto3
from moto.server import ThreadedMotoServer

REGION: Final = "eu-central-1"
_MAX_RECEIVES: Final = "5"


@dataclass(frozen=True, slots=True)
class Aws:
    """Where the embedded AWS is, and what was made in it."""

    url: str
    queue_url: str
    quarantine_url: str
    dead_letter_url: str

    @property
    def environment(self) -> dict[str, str]:
        """What points any AWS tool at it."""
        return credentials() | {
            "AWS_ENDPOINT_URL_SQS": self.url,
            "AWS_ENDPOINT_URL_SNS": self.url,
            "AWS_ENDPOINT_URL_EVENTBRIDGE": self.url,
            "AWS_ENDPOINT_URL_DYNAMODB": self.url,
        }


def credentials() -> dict[str, str]:
    """Credentials that are none, and nothing of this machine's own AWS configuration."""
    return {
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "demo",
        "AWS_SECRET_ACCESS_KEY": "demo",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


@contextmanager
def embedded(rule: Path) -> Iterator[Aws]:
    """Run it for as long as the block lasts.

    Args:
        rule: the EventBridge event pattern that feeds the queue.
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request otherwise
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    _forget_everything(host, port)
    try:
        yield _furnished(f"http://{host}:{port}", rule.read_text())
    finally:
        _forget_everything(host, port)
        server.stop()


def _forget_everything(host: str, port: int) -> None:
    """What is made belongs to the process and outlives its servers (moto documentation, "Reset API")."""
    connection = HTTPConnection(host, port, timeout=5)
    connection.request("POST", "/moto-api/reset")
    connection.getresponse().read()
    connection.close()


def _furnished(url: str, pattern: str) -> Aws:
    session = boto3.Session("demo", "demo", region_name=REGION)
    sqs, events = session.client("sqs", endpoint_url=url), session.client("events", endpoint_url=url)

    def queue(name: str, **attributes: str) -> tuple[str, str]:
        made = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        wanted = sqs.get_queue_attributes(QueueUrl=made, AttributeNames=["QueueArn"])
        return made, wanted["Attributes"]["QueueArn"]

    dead_letter_url, dead_letter_arn = queue("contact-events-dead-letters")
    quarantine_url, _ = queue("contact-events-quarantine")
    redrive = {"deadLetterTargetArn": dead_letter_arn, "maxReceiveCount": _MAX_RECEIVES}
    queue_url, queue_arn = queue("contact-events", RedrivePolicy=json.dumps(redrive))
    events.put_rule(Name="attachd", EventPattern=pattern)
    events.put_targets(Rule="attachd", Targets=[{"Id": "queue", "Arn": queue_arn}])
    return Aws(url, queue_url, quarantine_url, dead_letter_url)
