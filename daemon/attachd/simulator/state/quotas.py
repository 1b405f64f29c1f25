"""How often each API may be called, as AWS documents it, and the buckets which hold a world to it.

Connect's operations are metered per API, account and Region, which the instances there share; the Participant
Service's per API and instance (AWS: service quotas).
"""

from collections.abc import Mapping
from types import MappingProxyType

from attachd.simulator.dials import Dials
from attachd.simulator.state.bucket import Bucket

Buckets = dict[tuple[str, str], Bucket]
"""By API and instance id."""

UNLISTED = (2.0, 5.0)

CONCURRENT_CHATS = 500
"""AWS: service quotas: active chats an instance may have at once; SMS, guides and idle ones count."""

# AWS: StartChatContact: "API TPS throttling returns a TooManyRequests exception"
_THROTTLED_AS: Mapping[str, str] = MappingProxyType({"StartChatContact": "TooManyRequestsException"})

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


def throttling_code(operation: str) -> str:
    """Return the code of the refusal of a call beyond its API's quota."""
    return _THROTTLED_AS.get(operation, "ThrottlingException")


def quota_of(operation: str, dials: Dials) -> tuple[float, float]:
    """Return an API's calls per second and at once: the dial's, else the documented ones, else the default."""
    if operation in dials.quotas:
        return dials.quotas[operation]
    if operation == "CreateParticipant":
        return dials.rate, dials.burst
    return DOCUMENTED.get(operation, UNLISTED)


def buckets(connect: frozenset[str], participant: frozenset[str], dials: Dials) -> Buckets:
    """Make the bucket of every metered API of the two services; raises ValueError for one that is not simulated."""
    operations, asked = connect | participant, frozenset(dials.quotas) | (dials.metered or frozenset())
    if not asked <= operations:
        raise ValueError(f"no operation to meter: {', '.join(sorted(asked - operations))}")
    metered = operations if dials.metered is None else asked
    made: Buckets = {}
    for name in sorted(metered):
        shared: dict[tuple[str, ...], Bucket] = {}
        for instance in dials.existing():
            whose = (instance.account, instance.region) if name in connect else (instance.id,)
            if whose not in shared:
                shared[whose] = Bucket(
                    *quota_of(name, dials), throttled_calls_spend=dials.throttled_calls_spend_quota
                )
            made[name, instance.id] = shared[whose]
    if dials.send_message_and_send_event_share_a_quota and "SendMessage" in metered:
        made |= {("SendEvent", each.id): made["SendMessage", each.id] for each in dials.existing()}
    return made
