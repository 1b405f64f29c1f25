"""What the errors of AWS calls mean to sources, in one place."""

from typing import Any, Final

import aiohttp
from botocore.exceptions import BotoCoreError, ClientError

from attachd import aws
from attachd.errors import Transient

AWS_ERRORS: Final = (ClientError, BotoCoreError, aiohttp.ClientError, OSError)
NOT_FOUND: Final = "not_found"
CONFLICT: Final = "conflict"
IN_USE: Final = "in_use"
NOT_OURS: Final = "not_ours"  # the service knows it: somebody else has it by now
_SQS_LEGACY: Final = "AWS.SimpleQueueService."  # before some codes, as the query protocol had them
_REASONS: Final = {
    "ProvisionedThroughputExceededException": "throttled",
    "LimitExceededException": "throttled",
    "ThrottlingException": "throttled",
    "RequestThrottled": "throttled",
    "KmsThrottled": "throttled",
    "TooManyRequestsException": "throttled",
    "RequestLimitExceeded": "throttled",
    "KMSThrottlingException": "throttled",
    "ExpiredIteratorException": "iterator_expired",
    "ExpiredNextTokenException": "token_expired",
    "ResourceNotFoundException": NOT_FOUND,
    "ResourceInUseException": IN_USE,
    "ConditionalCheckFailedException": CONFLICT,
    "AccessDeniedException": "access_denied",
    "AccessDenied": "access_denied",
    "NonExistentQueue": NOT_FOUND,
    "QueueDoesNotExist": NOT_FOUND,
    "InvalidAddress": NOT_FOUND,
    "MessageNotInflight": NOT_OURS,
    "ReceiptHandleIsInvalid": NOT_OURS,
    **dict.fromkeys(aws.REFUSED, "credentials"),
}


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


def reason_of(code: str) -> str:
    """An AWS code, as ours where it makes a difference to us."""
    code = code.removeprefix(_SQS_LEGACY)[:60]
    return _REASONS.get(code, code)


def transient(error: Exception, what: str) -> Transient:
    """A foreign exception as ours."""
    if isinstance(error, Transient):
        return error
    if isinstance(error, ClientError):
        details = error.response.get("Error", {})
        code = str(details.get("Code", "unknown"))
        return Transient(reason_of(code), f"{what}: {details.get('Message') or code[:60]}")
    if isinstance(error, AWS_ERRORS):
        return Transient(type(error).__name__, f"{what}: {error}", ambiguous=True)
    return Transient("malformed_reply", f"{what}: {type(error).__name__}", ambiguous=True)
