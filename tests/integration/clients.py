"""Three clients of AWS behind one face: aiobotocore, boto3 and the `aws` command."""

import ast
import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import anyio
import boto3
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from anyio import to_thread
from botocore import UNSIGNED, xform_name
from botocore.config import Config
from botocore.exceptions import ClientError

SESSION = get_session()  # one of each, since they remember the service models they have read
KEYS = {"aws_access_key_id": "OURS", "aws_secret_access_key": "secret"}
ONCE = {"total_max_attempts": 1}


@dataclass(frozen=True)
class Ask:
    """One call: `connect` or `connectparticipant`, an operation, its members, the Region to sign for."""

    service: str
    operation: str
    members: Mapping[str, Any]
    region: str = "eu-central-1"


@dataclass(frozen=True)
class Answer:
    """What a client made of the response; `code` is empty for a success."""

    status: int
    request_id: str
    body: dict[str, Any] = field(default_factory=dict)
    code: str = ""
    message: str = ""


class Client(Protocol):
    """Asks the simulator at a URL, once, without retries."""

    async def ask(self, url: str, ask: Ask) -> Answer:
        """Return the answer, be it a refusal."""


class Aiobotocore:
    """The SDK which the daemon uses."""

    async def ask(self, url: str, ask: Ask) -> Answer:
        signature = {"signature_version": UNSIGNED} if ask.service == "connectparticipant" else {}
        config = AioConfig(retries=ONCE, **signature)
        where = {"region_name": ask.region, "endpoint_url": url}
        async with SESSION.create_client(ask.service, config=config, **where, **KEYS) as client:
            try:
                return _answered(await getattr(client, xform_name(ask.operation))(**ask.members))
            except ClientError as error:
                return _refused(error)


class Boto3:
    """The SDK of everybody else."""

    def __init__(self) -> None:
        self._session = boto3.Session(**KEYS)
        self._clients: dict[tuple[str, str, str], Any] = {}

    async def ask(self, url: str, ask: Ask) -> Answer:
        return await to_thread.run_sync(self._ask, self._client(url, ask), ask)

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def _client(self, url: str, ask: Ask) -> Any:
        key = (url, ask.service, ask.region)
        if key not in self._clients:
            signature = {"signature_version": UNSIGNED} if ask.service == "connectparticipant" else {}
            config = Config(retries=ONCE, **signature)
            made = self._session.client(ask.service, ask.region, endpoint_url=url, config=config)
            self._clients[key] = made
        return self._clients[key]

    def _ask(self, client: Any, ask: Ask) -> Answer:
        try:
            return _answered(getattr(client, xform_name(ask.operation))(**ask.members))
        except ClientError as error:
            return _refused(error)


class Cli:
    """The `aws` command as a process, two at a time; what it does not print it tells in its debug log."""

    def __init__(self, home: Path) -> None:
        (home / "config").write_text("[default]\ncli_timestamp_format = iso8601\n")
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "AWS_CONFIG_FILE": str(home / "config"),
            "AWS_ACCESS_KEY_ID": KEYS["aws_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": KEYS["aws_secret_access_key"],
            "AWS_MAX_ATTEMPTS": "1",
        }
        self._room = anyio.CapacityLimiter(2)

    async def ask(self, url: str, ask: Ask) -> Answer:
        unsigned = ["--no-sign-request"] if ask.service == "connectparticipant" else []
        command = [
            *(
                Path(sys.executable).with_name("aws"),
                "--debug",
                "--no-paginate",
                "--output",
                "json",
                *unsigned,
            ),
            *("--region", ask.region, "--endpoint-url", url, ask.service, xform_name(ask.operation, "-")),
            *("--cli-input-json", json.dumps(ask.members, default=datetime.isoformat)),
        ]
        async with self._room:
            done = await anyio.run_process(command, env=self._environment, check=False)
        log = done.stderr.decode()
        headers = ast.literal_eval(_only(r"Response headers: (\{.*\})", log))
        told = {
            "status": int(_only(r'HTTP/1\.1" (\d{3}) ', log)),
            "request_id": headers["x-amzn-RequestId"],
        }
        if done.returncode == 0:
            return Answer(**told, body=json.loads(done.stdout or b"{}"))
        failed = re.search(
            r"An error occurred \((\w+)\) when calling the \w+ operation(?: \(reached max retries: 0\))?: (.*)",
            log,
        )
        assert failed is not None, log[-2000:]
        return Answer(**told, code=failed[1], message=failed[2])


def _only(pattern: str, log: str) -> str:
    found = set(re.findall(pattern, log))  # a refusal is parsed, and logged, twice
    assert len(found) == 1, log[-2000:]
    return str(found.pop())


def _answered(response: dict[str, Any]) -> Answer:
    metadata = response.pop("ResponseMetadata")
    return Answer(metadata["HTTPStatusCode"], metadata["RequestId"], response)


def _refused(error: ClientError) -> Answer:
    metadata, told = error.response["ResponseMetadata"], error.response["Error"]
    return Answer(
        metadata["HTTPStatusCode"], metadata["RequestId"], code=told["Code"], message=told["Message"]
    )
