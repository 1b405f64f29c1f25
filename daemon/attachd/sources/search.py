"""SearchContacts: which chats of an instance are open and wait for nobody (API reference, ContactSearchSummary)."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

from attachd import aws
from attachd.aws import NewSession
from attachd.model import Contact
from attachd.sources.calls import call, transient
from attachd.sources.sweep import Page

_SIZE: Final = 100  # the most that a page may have
_NEVER: Final = 86_400  # Connect writes 1970-01-01T00:00:00.001Z for "it has not happened"


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
            chats = tuple(self._contact(summary) for summary in listed if _waits(summary))
            return Page(chats, len(listed), answer.get("NextToken"))
        except (AttributeError, LookupError, TypeError) as error:
            raise transient(error, "SearchContacts") from None

    def _contact(self, summary: Mapping[str, Any]) -> Contact:
        attributes = summary.get("SegmentAttributes") or {}
        return Contact(
            id=summary["Id"],
            instance_arn=self._instance_arn,
            channel=summary["Channel"],
            initial_id=summary.get("InitialContactId") or summary["Id"],
            previous_id=summary.get("PreviousContactId"),
            initiation_method=summary.get("InitiationMethod"),
            initiated_at=_moment(summary.get("InitiationTimestamp")),
            segment_attributes={
                name: value["ValueString"] for name, value in attributes.items() if "ValueString" in value
            },
            tags=dict(summary.get("Tags") or {}),
        )


def _waits(summary: Mapping[str, Any]) -> bool:
    """Whether the chat is open, and waits neither for an agent nor with one."""
    moments = (
        summary.get("DisconnectTimestamp"),
        (summary.get("AgentInfo") or {}).get("ConnectedToAgentTimestamp"),
        (summary.get("QueueInfo") or {}).get("EnqueueTimestamp"),
    )
    return all(_moment(moment) is None for moment in moments)


def _moment(value: datetime | None) -> float | None:
    return value.timestamp() if value is not None and value.timestamp() > _NEVER else None
