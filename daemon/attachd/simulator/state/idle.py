"""How long a participant may say nothing: the timers of UpdateParticipantRoleConfig, as they run.

All rules are of AWS's "Set up chat timeouts" unless they name another source. What follows an automatic disconnection
is `walk`'s.
"""

from attachd.simulator.state.nouns import (
    AGENT,
    CUSTOM_BOT,
    CUSTOMER,
    IDLE,
    RETURNED,
    Contact,
    Participant,
)
from attachd.simulator.state.world import World

BECOMES_IDLE = "IDLE"
DISCONNECTS_OTHERS = "DISCONNECT_NONCUSTOMER"


def begin(world: World, contact: Contact, now: float) -> None:
    """Start all timers anew, as they are configured now, if the customer and a bot or an agent are there.

    With a bot alone only the customer's run (AWS: custom participants). A configuration that comes while they are
    there is stored, and applied when the next one joins.
    """
    stop(contact)
    roles = {member.role for member in contact.participants if member.present}
    if contact.timers and CUSTOMER in roles and roles & {AGENT, CUSTOM_BOT}:
        contact.timers_running = contact.timers
        for role in sorted(roles & {CUSTOMER, AGENT}):
            _restart(world, contact, role, now)


def stop(contact: Contact) -> None:
    """Stop all timers, since the customer is alone."""
    for role, timer in contact.timers_running:
        contact.due.pop(f"{timer} {role}", None)
    contact.timers_running = {}
    contact.idle.clear()


def spoke(world: World, speaker: Participant, now: float) -> None:
    """Start the timers of a participant who has sent a message anew; one who was idle is so no longer."""
    contact = world.contacts[speaker.contact_id]
    if not contact.timers_running:
        return
    if speaker.role in contact.idle:
        contact.idle.remove(speaker.role)
        world.note(contact, now, content_type=RETURNED, participant=speaker)
    _restart(world, contact, speaker.role, now)


def fell_idle(world: World, contact: Contact, role: str, now: float) -> None:
    """Tell everyone that a participant is idle; only now does the other timer of its role begin."""
    contact.idle.add(role)
    world.note(contact, now, content_type=IDLE, participant=member(contact, role))
    _start(world, contact, role, DISCONNECTS_OTHERS, now)


def member(contact: Contact, role: str) -> Participant:
    """Return the participant of this role who is there."""
    return next(each for each in contact.participants if each.role == role and each.present)


def _restart(world: World, contact: Contact, role: str, now: float) -> None:
    """Start a role's first timer; if it has both, the one for being idle comes first."""
    contact.due.pop(f"{DISCONNECTS_OTHERS} {role}", None)
    if not _start(world, contact, role, BECOMES_IDLE, now):
        _start(world, contact, role, DISCONNECTS_OTHERS, now)


def _start(world: World, contact: Contact, role: str, timer: str, now: float) -> bool:
    minutes = contact.timers_running.get((role, timer))
    if minutes is not None:
        world.by(now + 60 * minutes, contact, f"{timer} {role}")
    return minutes is not None
