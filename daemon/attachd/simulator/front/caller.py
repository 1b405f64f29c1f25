"""Who calls, as far as a request's signature tells: an access key id, a Region, when. Signatures are not checked.

`AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20270115/eu-central-1/connect/aws4_request, …` (AWS: SigV4).
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from attachd.simulator.errors import ApiError
from attachd.simulator.instance import Instance

_SCOPE = re.compile(r"AWS4-[A-Z0-9-]+ Credential=([^/,\s]+)/\d{8}/([^/,\s]+)/")


def require_caller(headers: Mapping[str, str], instance: Instance, access_keys: Mapping[str, str]) -> None:
    """Refuse a caller from another Region or account than the instance's; whoever does not sign may pass.

    A Region knows its own instances only, so that any other answers 404; the code of another account's key is assumed.
    """
    found = _SCOPE.match(headers.get("Authorization", ""))
    if found is None:
        return
    if access_keys.get(found[1], instance.account) != instance.account:
        raise ApiError("AccessDeniedException", "The access key's account may not call this instance")
    if found[2] != instance.region:
        raise ApiError("ResourceNotFoundException", "The instance of this InstanceId is in another Region")


def signed(headers: Mapping[str, str]) -> tuple[str, float | None]:
    """Return the access key with which a request was signed, and when `X-Amz-Date` says it was; raises nothing."""
    found = _SCOPE.match(headers.get("Authorization", ""))
    if found is None:
        return "", None
    try:
        moment = datetime.strptime(headers.get("X-Amz-Date", ""), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return found[1], None
    return found[1], moment.timestamp()
