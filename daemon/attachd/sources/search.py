"""SearchContacts: which chats of an instance are open and wait for nobody (API reference, ContactSearchSummary)."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

from attachd import aws, summaries
from attachd.aws import NewSession
from attachd.sources.calls import call, transient
from attachd.sources.sweep import Page

_SIZE: Final = 100  # the most that a page may have


class ConnectSearch:
    """SearchContacts of one instance. See ``sweep.Search``.

    Args:
        sessions: where clients come from; in the instance's Region.
        instance_arn: the instance.
        endpoint_url: instead of where AWS tools would go.
        user_agent: sent with every call.
    """

    def __init__(
        self, sessions: NewSession, instance_arn: str, *, endpoint_url: str | None, user_agent: str
    ) -> None:
        self._sessions = sessions
        self._instance_arn = instance_arn
        self._endpoint_url = endpoint_url
        self._user_agent = user_agent
        self._client: Any = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """See ``sweep.Search``."""
        made = aws.client(
            self._sessions, "connect", endpoint_url=self._endpoint_url, user_agent=self._user_agent
        )
        async with made as self._client:
            yield

    async def page(self, since: float, until: float, token: str | None) -> Page:
        """See ``sweep.Search``."""
        answer = await call(
            self._client.search_contacts,
            "SearchContacts",
            InstanceId=self._instance_arn.rpartition("/")[2],
            TimeRange={
                "Type": "INITIATION_TIMESTAMP",
                "StartTime": datetime.fromtimestamp(since, UTC),
                "EndTime": datetime.fromtimestamp(until, UTC),
            },
            SearchCriteria={"Channels": ["CHAT"]},
            MaxResults=_SIZE,
            # Who came last is most likely still there.
            Sort={"FieldName": "INITIATION_TIMESTAMP", "Order": "DESCENDING"},
            **({} if token is None else {"NextToken": token}),
        )
        try:
            listed = answer.get("Contacts") or []
            waiting = [summary for summary in listed if _waits(summary)]
            chats = tuple(summaries.contact(summary, self._instance_arn) for summary in waiting)
            return Page(chats, len(listed), answer.get("NextToken"))
        except (AttributeError, LookupError, TypeError) as error:
            raise transient(error, "SearchContacts") from None


def _waits(summary: Mapping[str, Any]) -> bool:
    """Whether the chat is open, and waits neither for an agent nor with one."""
    return not (summaries.ended(summary) or summaries.with_agent(summary) or summaries.queued(summary))
