"""Where AWS sessions and clients come from: the environment, the files and the roles that every AWS tool takes them from.

attachd adds no way of its own; what is here only makes botocore read what the others read, and assume a role.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Final

import anyio
import structlog
from aiobotocore.config import AioConfig
from aiobotocore.credentials import (
    AioAssumeRoleCredentialFetcher,
    AioCredentialResolver,
    AioDeferredRefreshableCredentials,
)
from aiobotocore.session import AioSession, get_session
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
)

from attachd.errors import Misconfigured, Transient

#: AWS's codes for credentials that it does not take, or takes no more.
REFUSED: Final = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_CONNECT_SECONDS: Final = 2.0
_RENEW_SECONDS: Final = 10.0
_ASK_SECONDS: Final = 5.0
_ROLE_SESSION_NAME: Final = "attachd"

log = structlog.get_logger(__name__)

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


def region_of(url: str) -> str | None:
    """The Region that a queue's URL names, if it is one of AWS's own."""
    found = re.match(r"https://sqs\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?/", url)
    return found[1] if found else None


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


@asynccontextmanager
async def client(
    sessions: NewSession,
    service: str,
    *,
    region: str | None = None,
    endpoint_url: str | None = None,
    **config: Any,
) -> AsyncIterator[Any]:
    """A client, whose calls are as any client's; it is made anew once its credentials are refused.

    botocore reads credentials once for each session: rotated ones, in a file or the environment, only a new one sees.
    The SDK's retries are off unless ``config`` has some: whoever calls knows better when the next try is due.

    Args:
        sessions: makes a new session.
        service: ``sqs`` …
        region: instead of the configured one.
        endpoint_url: instead of where AWS tools would go.
        config: of botocore's ``Config``.

    Raises:
        Misconfigured: there is no Region.
    """
    defaults = {"connect_timeout": _CONNECT_SECONDS, "retries": {"total_max_attempts": 1}}
    settings = AioConfig(**(defaults | config))
    where = {"region_name": region, "endpoint_url": endpoint_url}
    made = _Client(lambda: sessions().create_client(service, config=settings, **where))
    try:
        await made.make()
    except BotoCoreError as error:
        raise Misconfigured([f"AWS: {error} (set AWS_REGION, or a profile that has a region)"]) from None
    try:
        yield made
    finally:
        await made.close()


class _Client:
    def __init__(self, make: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._make = make
        self._made: list[tuple[AbstractAsyncContextManager[Any], Any]] = []
        self._made_at = 0.0
        self._refused = False
        self._making = anyio.Lock()

    def __getattr__(self, operation: str) -> Callable[..., Awaitable[Any]]:
        return partial(self._call, operation)

    @property
    def current(self) -> Any:
        """The client itself, for what is no call, such as its waiters."""
        return self._made[-1][1]

    async def _call(self, operation: str, **parameters: Any) -> Any:
        async with self._making:
            if self._refused and anyio.current_time() >= self._made_at + _RENEW_SECONDS:
                log.info("aws.client_renewed", operation=operation, reason="the credentials were refused")
                await self.make()
            current = self.current
        try:
            return await getattr(current, operation)(**parameters)
        except Exception as error:
            self._refused = self._refused or _of_credentials(error)
            raise

    async def make(self) -> None:
        """Make it. The former one stays open for the calls that it is in the middle of."""
        context = self._make()
        self._made.append((context, await context.__aenter__()))
        self._made_at, self._refused = anyio.current_time(), False
        if len(self._made) > 2:  # noqa: PLR2004 - this one, and the one before it
            await self._made.pop(0)[0].__aexit__(None, None, None)

    async def close(self) -> None:
        while self._made:
            await self._made.pop()[0].__aexit__(None, None, None)


def _of_credentials(error: Exception) -> bool:
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "")) in REFUSED
    return isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError)
