"""AWS clients and calls for this room: what their errors mean to us, in one place.

The SDK's own retries are off: whoever calls knows better when the next try is due.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError

from attachd.errors import Misconfigured, Transient

AWS_ERRORS: Final = (ClientError, BotoCoreError, aiohttp.ClientError, OSError)
NOT_FOUND: Final = "not_found"
CONFLICT: Final = "conflict"
IN_USE: Final = "in_use"
_REASONS: Final = {
    "ProvisionedThroughputExceededException": "throttled",
    "LimitExceededException": "throttled",
    "ThrottlingException": "throttled",
    "RequestLimitExceeded": "throttled",
    "KMSThrottlingException": "throttled",
    "ExpiredIteratorException": "iterator_expired",
    "ExpiredNextTokenException": "token_expired",
    "ResourceNotFoundException": NOT_FOUND,
    "ResourceInUseException": IN_USE,
    "ConditionalCheckFailedException": CONFLICT,
    "AccessDeniedException": "access_denied",
}


@asynccontextmanager
async def client(
    session: AioSession,
    service: str,
    *,
    user_agent: str,
    read_seconds: float = 10.0,
    connections: int = 100,
    region: str | None = None,
) -> AsyncIterator[Any]:
    """A client, made once. Region, endpoint and credentials come from where every AWS tool takes them.

    Args:
        session: where clients come from.
        service: ``kinesis`` …
        user_agent: sent with every call.
        read_seconds: for an answer, or its next piece.
        connections: how many at once.
        region: where an ARN names one.

    Raises:
        Misconfigured: there is no Region.
    """
    config = AioConfig(
        user_agent=user_agent,
        read_timeout=read_seconds,
        connect_timeout=2,
        retries={"total_max_attempts": 1},
        max_pool_connections=connections,
    )
    try:
        context = session.create_client(service, config=config, region_name=region)
        made = await context.__aenter__()
    except BotoCoreError as error:
        raise Misconfigured([f"AWS: {error} (set AWS_REGION, or a profile that has a region)"]) from None
    try:
        yield made
    finally:
        await context.__aexit__(None, None, None)


async def call(operation: Any, what: str, **parameters: Any) -> dict[str, Any]:
    """One call, once.

    Args:
        operation: a client's method.
        what: the same for people.
        parameters: the request.

    Raises:
        Transient: it failed. The reason is ours where it makes a difference to us, and AWS's code otherwise.
    """
    try:
        return dict(await operation(**parameters))
    except Exception as error:  # noqa: BLE001 - botocore's parser raises anything over a body that is not AWS's
        raise transient(error, what) from None


def transient(error: Exception, what: str) -> Transient:
    """A foreign exception as ours."""
    if isinstance(error, Transient):
        return error
    if isinstance(error, ClientError):
        details = error.response.get("Error", {})
        code = str(details.get("Code", "unknown"))[:60]
        return Transient(_REASONS.get(code, code), f"{what}: {details.get('Message') or code}")
    if isinstance(error, AWS_ERRORS):
        return Transient(type(error).__name__, f"{what}: {error}", ambiguous=True)
    return Transient("malformed_reply", f"{what}: {type(error).__name__}", ambiguous=True)
