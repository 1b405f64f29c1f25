"""A chat's metrics, as its last events and DescribeContact tell them. Pure: a contact in, a document out.

Members are the API's; those whose meaning AWS does not say beyond their name (response times, abandonment) are left
out, since every member is optional.
"""

from collections.abc import Iterable
from typing import Any

from attachd.simulator.state.nouns import AGENT, CUSTOM_BOT, CUSTOMER, Contact, Item


def chat_metrics(contact: Contact) -> dict[str, Any]:
    """Return ChatMetrics (AWS: API reference) with timestamps in seconds since the epoch; absent members left out."""
    said = [item for item in contact.transcript if item.content is not None and item.contact_id == contact.id]
    by_bot, by_agent, by_customer = (list(_by(said, role)) for role in (CUSTOM_BOT, AGENT, CUSTOMER))
    whole: dict[str, Any] = {
        "MultiParty": False,
        "TotalMessages": len(said),
        "TotalBotMessages": len(by_bot),
        "TotalBotMessageLengthInChars": _length(by_bot),
        "ConversationTurnCount": _turns(said),
    }
    if by_customer and contact.ended_at is not None:
        whole["ConversationCloseTimeInMillis"] = _millis(contact.ended_at - by_customer[-1].at)
    if by_agent and contact.agent_connected_at is not None:
        whole["AgentFirstResponseTimestamp"] = by_agent[0].at
        whole["AgentFirstResponseTimeInMillis"] = _millis(by_agent[0].at - contact.agent_connected_at)
    metrics = {"ChatContactMetrics": whole}
    for name, kind, items in (
        ("AgentMetrics", "Agent", by_agent),
        ("CustomerMetrics", "Customer", by_customer),
    ):
        if items and items[-1].participant is not None:
            metrics[name] = {
                "ParticipantId": items[-1].participant.id,
                "ParticipantType": kind,
                "MessagesSent": len(items),
                "MessageLengthInChars": _length(items),
                "LastMessageTimestamp": items[-1].at,
            }
    return metrics


def _by(said: Iterable[Item], role: str) -> Iterable[Item]:
    return (item for item in said if item.participant is not None and item.participant.role == role)


def _length(said: Iterable[Item]) -> int:
    return sum(len(item.content or "") for item in said)


def _turns(said: Iterable[Item]) -> int:
    """Count how often the word passes from the customer to somebody else (assumed: a turn is such a pair)."""
    turns, customer_spoke = 0, False
    for item in said:
        customer = item.participant is not None and item.participant.role == CUSTOMER
        turns += customer_spoke and not customer
        customer_spoke = customer
    return turns


def _millis(seconds: float) -> int:
    return round(seconds * 1000)
