"""What Amazon Connect tells of a contact when it is asked: DescribeContact's Contact, and SearchContacts's summary.

Both have the same members, as far as they are read here (API reference, Contact, ContactSearchSummary).
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from attachd.model import Contact

_NEVER: Final = 86_400  # Connect writes 1970-01-01T00:00:00.001Z for "it has not happened"


def contact(summary: Mapping[str, Any], instance_arn: str) -> Contact:
    """The contact, as its own events would describe it.

    Raises:
        LookupError: a required member is missing.
    """
    attributes = summary.get("SegmentAttributes") or {}
    return Contact(
        id=summary["Id"],
        instance_arn=instance_arn,
        channel=summary["Channel"],
        initial_id=summary.get("InitialContactId") or summary["Id"],
        previous_id=summary.get("PreviousContactId"),
        initiation_method=summary.get("InitiationMethod"),
        initiated_at=moment(summary.get("InitiationTimestamp")),
        segment_attributes={
            name: value["ValueString"] for name, value in attributes.items() if "ValueString" in value
        },
        tags=dict(summary.get("Tags") or {}),
    )


def queued(summary: Mapping[str, Any]) -> bool:
    """Whether it has been in a queue."""
    return moment((summary.get("QueueInfo") or {}).get("EnqueueTimestamp")) is not None


def with_agent(summary: Mapping[str, Any]) -> bool:
    """Whether an agent has joined it."""
    return moment((summary.get("AgentInfo") or {}).get("ConnectedToAgentTimestamp")) is not None


def ended(summary: Mapping[str, Any]) -> bool:
    """Whether it is over."""
    return moment(summary.get("DisconnectTimestamp")) is not None


def moment(value: datetime | None) -> float | None:
    """When it happened, in seconds since the epoch; None if it has not."""
    return value.timestamp() if value is not None and value.timestamp() > _NEVER else None
