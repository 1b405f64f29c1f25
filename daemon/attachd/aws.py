"""Where AWS sessions come from: the environment, the files and the roles that every AWS tool takes them from.

attachd adds no way of its own; what is here only makes botocore read what the others read, and assume a role.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import anyio
from aiobotocore.config import AioConfig
from aiobotocore.credentials import (
    AioAssumeRoleCredentialFetcher,
    AioCredentialResolver,
    AioDeferredRefreshableCredentials,
)
from aiobotocore.session import AioSession, get_session
from botocore.exceptions import NoCredentialsError

from attachd.errors import Transient

_ASK_SECONDS: Final = 5.0
_ROLE_SESSION_NAME: Final = "attachd"

NewSession = Callable[[], AioSession]


def session(environ: Mapping[str, str], *, region: str | None = None, role: str | None = None) -> AioSession:
    """A new session, which reads credentials anew.

    Args:
        environ: ``AWS_REGION`` is read from it: botocore, alone among AWS tools, knows only ``AWS_DEFAULT_REGION``.
        region: instead of the configured one.
        role: the ARN of a role to assume, with the credentials that are there otherwise; renewed by itself.
    """
    made = get_session()
    if chosen := region or environ.get("AWS_REGION"):
        made.set_config_variable("region", chosen)
    if role is None:
        return made
    assuming = get_session()
    assuming.set_config_variable("region", made.get_config_variable("region"))
    assuming.register_component("credential_provider", AioCredentialResolver([_Role(made, role)]))
    return assuming


class _Role:
    """A credential provider, as botocore understands one: AssumeRole, again whenever the credentials run out."""

    METHOD = CANONICAL_NAME = "assume-role"

    def __init__(self, source: AioSession, role: str) -> None:
        self._source = source
        self._role = role

    async def load(self) -> AioDeferredRefreshableCredentials:
        """The role's credentials; nothing is asked of STS before they are needed."""
        return AioDeferredRefreshableCredentials(refresh_using=self._fetch, method=self.METHOD)

    async def _fetch(self) -> Any:
        credentials = await self._source.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        fetcher = AioAssumeRoleCredentialFetcher(
            self._source.create_client,
            credentials,
            self._role,
            extra_args={"RoleSessionName": _ROLE_SESSION_NAME},
        )
        return await fetcher.fetch_credentials()


async def applied_quota(made: AioSession, code: str, user_agent: str) -> float:
    """An Amazon Connect quota's value that is in force in the account (Service Quotas, GetServiceQuota).

    Args:
        made: whose account and Region.
        code: such as ``L-8FE21897``, "Rate of CreateParticipant API requests".
        user_agent: of the call.

    Raises:
        Transient: it could not be read, with the reason; the permission is ``servicequotas:GetServiceQuota``.
    """
    config = AioConfig(
        connect_timeout=_ASK_SECONDS,
        read_timeout=_ASK_SECONDS,
        retries={"total_max_attempts": 1, "mode": "standard"},
        user_agent=user_agent,
    )
    try:
        with anyio.fail_after(2 * _ASK_SECONDS):
            async with made.create_client("service-quotas", config=config) as client:
                answer = await client.get_service_quota(ServiceCode="connect", QuotaCode=code)
                return float(answer["Quota"]["Value"])
    except Exception as error:  # noqa: BLE001 - a convenience: whatever goes wrong, the default stands
        raise Transient("quota_not_read", type(error).__name__) from None  # its text may quote a credential
