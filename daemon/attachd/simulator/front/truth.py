"""What really happened, for a test to compare with what the daemon believes. Tokens appear as SHA-256 only."""

from dataclasses import asdict
from hashlib import sha256
from typing import Any

from attachd.simulator.outlets.publish import Publisher
from attachd.simulator.state.nouns import CUSTOM_BOT, Contact, Participant
from attachd.simulator.state.world import World


def truth(world: World) -> dict[str, Any]:
    """Return contacts, participants, messages and calls; times are seconds since the epoch."""
    contacts = list(world.contacts.values())
    return {
        "instances": [instance.arn for instance in world.instances.values()],
        "contacts": [_contact(contact) for contact in contacts],
        "participants": [_participant(member) for contact in contacts for member in contact.participants],
        "messages": [line for contact in contacts for line in _messages(contact)],
        "calls": [asdict(call) for call in world.calls],
    }


def published(publisher: Publisher) -> dict[str, Any]:
    """Return what befell the events announced, in their order, and the counts."""
    deliveries = [
        {
            "event_id": sent.item["id"],
            "contact_id": sent.item["detail"]["contactId"],
            "event_type": sent.item["detail"]["eventType"],
            "lost": not sent.delays,
            "delays": sent.delays,
            "delivered_at": sent.delivered_at,
        }
        for sent in publisher.sent
    ]
    return {"publishing": publisher.counts(), "deliveries": deliveries}


def _contact(contact: Contact) -> dict[str, Any]:
    bots = [member for member in contact.participants if member.role == CUSTOM_BOT]
    return {
        "id": contact.id,
        "instance_arn": contact.instance.arn,
        "channel": contact.channel,
        "state": contact.stage.value,
        "initial_contact_id": contact.initial_contact_id,
        "previous_contact_id": contact.previous_contact_id,
        "related_contact_id": contact.related_contact_id,
        "initiation_method": contact.initiation_method,
        "started_at": contact.started_at,
        "connected_at": contact.connected_at,
        "enqueued_at": contact.enqueued_at,
        "agent_connected_at": contact.agent_connected_at,
        "ended_at": contact.ended_at,
        "disconnect_reason": contact.disconnect_reason,
        "attributes": contact.attributes,
        "segment_attributes": contact.segment_attributes,
        "tags": contact.tags,
        "step": type(contact.steps[0]).__name__ if contact.steps else None,
        "branches": contact.branches,
        "streams": [asdict(stream) for stream in contact.streams.values()],
        "timers": [
            {"role": role, "type": kind, "minutes": minutes}
            for (role, kind), minutes in contact.timers.items()
        ],
        "custom_bots": {
            "existed": len(bots),
            "connected": sum(bot.connected_at is not None for bot in bots),
            "spoke": sum(bot.messages_sent > 0 for bot in bots),
        },
    }


def _participant(member: Participant) -> dict[str, Any]:
    return {
        "id": member.id,
        "contact_id": member.contact_id,
        "role": member.role,
        "display_name": member.display_name,
        "token_sha256": sha256(member.token.encode()).hexdigest(),
        "created_at": member.created_at,
        "connected_at": member.connected_at,
        "disconnected_at": member.disconnected_at,
        "messages_sent": member.messages_sent,
        "sockets": member.sockets,
        "capabilities": member.capabilities or {},
    }


def _messages(contact: Contact) -> list[dict[str, Any]]:
    return [
        {
            "id": item.id,
            "contact_id": contact.id,
            "participant_id": item.participant.id if item.participant else None,
            "role": item.participant.role if item.participant else None,
            "at": item.at,
            "content_type": item.content_type,
            "content": item.content,
        }
        for item in contact.transcript
        if item.content is not None and item.contact_id == contact.id
    ]
