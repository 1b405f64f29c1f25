"""How often each API may be called, as AWS documents it, and the buckets which hold a world to it.

Connect's operations are metered per API, account and Region; the Participant Service's per API and instance (AWS:
service quotas). A world is one instance in one Region of one account, so both are one bucket an API here.
"""

from collections.abc import Mapping
from types import MappingProxyType

from attachd.simulator.dials import Dials
from attachd.simulator.state.bucket import Bucket

UNLISTED = (2.0, 5.0)

# AWS: Amazon Connect service quotas; calls a second, calls at once
DOCUMENTED: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "CreateParticipant": (5, 8),
        "StartChatContact": (5, 8),
        "StartContactStreaming": (5, 8),
        "StopContactStreaming": (5, 8),
        "UpdateParticipantRoleConfig": (5, 8),
        "DescribeContact": (10, 15),
        "GetContactAttributes": (10, 15),
        "UpdateContactAttributes": (10, 15),
        "StopContact": (10, 15),
        "TagContact": (20, 25),
        "SearchContacts": (0.5, 1),
        "CreateParticipantConnection": (6, 9),
        "DisconnectParticipant": (3, 5),
        "SendMessage": (10, 15),
        "SendEvent": (10, 15),
        "GetTranscript": (8, 12),
    }
)


def quota_of(operation: str, dials: Dials) -> tuple[float, float]:
    """Return an API's calls per second and at once: the dial's, else the documented ones, else the default."""
    if operation in dials.quotas:
        return dials.quotas[operation]
    if operation == "CreateParticipant":
        return dials.rate, dials.burst
    return DOCUMENTED.get(operation, UNLISTED)


def buckets(operations: frozenset[str], dials: Dials) -> dict[str, Bucket]:
    """Make the bucket of every API that is metered; raises ValueError for one that is not simulated."""
    asked = frozenset(dials.quotas) | (dials.metered or frozenset())
    if not asked <= operations:
        raise ValueError(f"no operation to meter: {', '.join(sorted(asked - operations))}")
    metered = operations if dials.metered is None else asked
    made = {
        name: Bucket(*quota_of(name, dials), throttled_calls_spend=dials.throttled_calls_spend_quota)
        for name in sorted(metered)
    }
    if dials.send_message_and_send_event_share_a_quota and "SendMessage" in made:
        made["SendEvent"] = made["SendMessage"]
    return made
