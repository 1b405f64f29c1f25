"""Which contacts get no bot unless a rule says so, and which never do.

The first are defaults: kinds of contact that open as a chat does and are hardly meant. A rule includes them by name.
The others are what Connect refuses; no rule can ask for them.
"""

from typing import Final

from attachd.model import Contact

#: As which participant a bot joins a contact of a channel (API reference, CreateParticipant).
ROLES: Final = {"CHAT": "CUSTOM_BOT", "VOICE": "CUSTOMER"}

#: What a rule may include, and why it is left out otherwise. Source: admin guide, "Amazon Connect contact events",
#: initiationMethod, and "Step-by-step guides": every guide runs as a chat contact.
INCLUDABLE: Final = {
    "guides": "a step-by-step guide runs as a chat, but no customer is in it",
    "transfers": "it was handed over to a person: an agent is there, or expected",
    "monitors": "a supervisor listens in: an agent is there",
    "disconnect_flows": "it is what follows after an agent has left, such as a survey",
    "updates": "CONTACT_DATA_UPDATED opens no chat, but tells that one has changed",
}

_BY_METHOD: Final = {
    "TRANSFER": "transfers",
    "QUEUE_TRANSFER": "transfers",
    "MONITOR": "monitors",
    "DISCONNECT": "disconnect_flows",
}


def kinds(contact: Contact) -> frozenset[str]:
    """Which of ``INCLUDABLE`` a contact is; a rule must include them all."""
    of_method = _BY_METHOD.get(contact.initiation_method or "")
    of_subtype = "guides" if contact.subtype == "connect:Guide" else None
    return frozenset(kind for kind in (of_subtype, of_method) if kind is not None)


def reason(kind: str, contact: Contact) -> str:
    """Why such a contact gets no bot, unless a rule includes it."""
    method = contact.initiation_method or ""
    told = f"initiation method is {method}: " if _BY_METHOD.get(method) == kind else ""
    return told + INCLUDABLE[kind]


def impossible(contact: Contact) -> str | None:
    """Why no bot can be attached to such a contact, whatever the rules say; None if one can.

    Of calls only a WebRTC one takes a further participant, and by its initial contact. Each that joins makes a contact
    of its own, which must not be given another in turn (admin guide, "Integrate in-app, web, video calling, and
    screen sharing").
    """
    if contact.channel not in ROLES:
        return f"channel is {contact.channel or 'missing'}: only CHAT takes a custom bot"
    if contact.channel == "CHAT":
        return None
    if contact.initiation_method != "WEBRTC_API":
        return (
            f"initiation method is {contact.initiation_method}: of calls, only WEBRTC_API takes a participant"
        )
    if contact.previous_id is not None or contact.initial_id != contact.id:
        return "not the call's initial contact: somebody joined by it"
    return None
