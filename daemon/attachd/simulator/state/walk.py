"""A contact's way through its flow, into queues, to agents and into the contacts that follow it.

What a flow consists of is `flow`'s, what a move does to a contact is `world`'s; here is only which comes when. Time
passes when somebody looks: `advance` lets everything that was due happen, at the moment it was due.
"""

from heapq import heappop

from attachd.simulator.flow import (
    LONGEST_WAIT_SECONDS,
    Disconnect,
    EnterQueue,
    Flow,
    Hold,
    Step,
    WaitForBot,
)
from attachd.simulator.state.life import IllegalMove, Stage
from attachd.simulator.state.nouns import CUSTOMER, ENDED, TRANSFERRED, Contact
from attachd.simulator.state.world import World

# The branches of a Wait block, as AWS's page spells them
BOT_DISCONNECTED = "Bot participant disconnected"
NOT_FOUND = "Participant not found"
EXPIRED = "Time expired"
ERROR = "Error"


def begin(world: World, contact: Contact, flow: Flow, now: float) -> None:
    """Send a connected contact into a flow."""
    contact.steps = flow
    _go_on(world, contact, now)


def advance(world: World, now: float) -> None:
    """Let all happen that was due by `now`, in the order it was due."""
    while world.deadlines and world.deadlines[0][0] <= now:
        at, number, contact_id, what = heappop(world.deadlines)
        contact = world.contacts[contact_id]
        if contact.timer != number:
            continue
        contact.timer = None
        if what == "agent":
            world.join_agent(contact, at)
        elif what == "complete":
            world.happen("COMPLETED", contact, at)
        elif isinstance(contact.steps[0], WaitForBot):
            _branch(world, contact, EXPIRED, at)  # AWS: Wait block: the bot is not disconnected
        else:
            _leave(contact)
            _go_on(world, contact, at)


def bot_came(world: World, contact: Contact, now: float) -> None:
    """Tell the flow that a custom bot has been created."""
    if contact.steps and isinstance(contact.steps[0], Hold) and contact.steps[0].until_bot:
        _leave(contact)
        _go_on(world, contact, now)


def bot_left(world: World, contact: Contact, now: float) -> None:
    """Tell the flow that a custom bot has disconnected; the contact does not end by it."""
    if contact.steps and isinstance(contact.steps[0], WaitForBot):
        _branch(world, contact, BOT_DISCONNECTED, now)


def agent_joins(world: World, contact: Contact, now: float) -> None:
    """Bring an agent, by way of a queue if the contact is in none yet."""
    if contact.stage is Stage.CONNECTED:
        world.enqueue(contact, "standard", now)
    world.join_agent(contact, now)


def agent_leaves(world: World, contact: Contact, now: float) -> Contact | None:
    """End an agent's contact; the customer goes through the disconnect flow, as a new contact, if there is one."""
    if contact.stage is not Stage.WITH_AGENT:
        raise IllegalMove(contact.stage, "left by its agent")
    flow = world.dials.disconnect_flow
    if not flow:
        world.end(contact, "AGENT_DISCONNECT", now)
        return None
    following = _succeed(world, contact, "DISCONNECT", "AGENT_DISCONNECT", now)
    begin(world, following, flow, now)
    return following


def transfer(world: World, contact: Contact, now: float) -> Contact:
    """Transfer to another queue, or from an agent by quick connect; the answer is the new contact.

    AWS: contact events: TRANSFER results in a new contact record, QUEUE_TRANSFER is "already queued, moved to
    another queue". The reason of the old contact's end is undocumented, hence absent.
    """
    if contact.stage is Stage.WITH_AGENT:
        following = _succeed(world, contact, "TRANSFER", None, now)
        begin(world, following, world.dials.transfer_flow, now)
    elif contact.stage is Stage.QUEUED:
        following = _succeed(world, contact, "QUEUE_TRANSFER", None, now)
        world.enqueue(following, "other", now)
    else:
        raise IllegalMove(contact.stage, "transferred")
    return following


def _succeed(world: World, old: Contact, method: str, reason: str | None, now: float) -> Contact:
    """Let a new contact follow an old one: same chat, customer and transcript; previous and initial ids set."""
    following = Contact(
        id=world.new_id(),
        started_at=now,
        expires_at=old.expires_at,
        attributes=old.attributes,
        segment_attributes=old.segment_attributes,
        tags=old.tags,
        initial_contact_id=old.initial_contact_id,
        previous_contact_id=old.id,
        related_contact_id=old.related_contact_id,
        initiation_method=method,
    )
    world.start(following)
    customers = [member for member in old.participants if member.role == CUSTOMER]
    old.participants = [member for member in old.participants if member.role != CUSTOMER]
    world.end(old, reason, now, last=TRANSFERRED if reason is None else ENDED)
    following.transcript = list(old.transcript)
    following.participants = customers
    for customer in customers:
        customer.contact_id = following.id
    world.establish(following, now)
    return following


def _go_on(world: World, contact: Contact, now: float) -> None:
    """Take steps until one stands; a flow without more steps disconnects (AWS: flows end in a terminal block)."""
    while contact.stage is Stage.CONNECTED:
        if not contact.steps:
            world.end(contact, "CONTACT_FLOW_DISCONNECT", now)
        elif _stands(world, contact, contact.steps[0], now):
            return


def _stands(world: World, contact: Contact, step: Step, now: float) -> bool:
    """Take one step; True if the contact stays in it."""
    match step:
        case Hold(seconds=seconds, until_bot=until_bot):
            if until_bot and world.bot_slot_taken(contact, now):
                _leave(contact)
                return False
            _set_timer(world, contact, seconds, "go on", now)
            return True
        case WaitForBot(seconds=seconds):
            branch = _branch_at_once(world, contact, seconds, now)
            if branch is not None:
                _take(contact, step, branch)
                return False
            _set_timer(world, contact, seconds, "go on", now)
            return True
        case EnterQueue(queue=queue, agent_after_seconds=seconds):
            world.enqueue(contact, queue, now)
            _set_timer(world, contact, seconds, "agent", now)
        case Disconnect():
            world.end(contact, "CONTACT_FLOW_DISCONNECT", now)
    return False


def _branch_at_once(world: World, contact: Contact, seconds: float | None, now: float) -> str | None:
    """Tell which branch a Wait block takes without waiting, if any."""
    if seconds is not None and seconds > LONGEST_WAIT_SECONDS:
        return ERROR
    return None if world.bot_slot_taken(contact, now) else NOT_FOUND


def _branch(world: World, contact: Contact, branch: str, now: float) -> None:
    step = contact.steps[0]
    if isinstance(step, WaitForBot):
        _take(contact, step, branch)
        _go_on(world, contact, now)


def _take(contact: Contact, step: WaitForBot, branch: str) -> None:
    """Put a branch's steps before those that follow its block."""
    ways = {
        BOT_DISCONNECTED: step.disconnected,
        NOT_FOUND: step.not_found,
        EXPIRED: step.expired,
        ERROR: step.error,
    }
    _leave(contact)
    contact.steps = ways[branch] + contact.steps
    contact.branches = (*contact.branches, branch)


def _leave(contact: Contact) -> None:
    contact.steps = contact.steps[1:]
    contact.timer = None


def _set_timer(world: World, contact: Contact, seconds: float | None, what: str, now: float) -> None:
    if seconds is not None:
        world.by(now + seconds, contact, what)
