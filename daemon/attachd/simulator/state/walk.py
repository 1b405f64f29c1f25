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
from attachd.simulator.state import idle
from attachd.simulator.state.life import IllegalMove, Stage
from attachd.simulator.state.nouns import (
    AUTODISCONNECTED,
    CUSTOM_BOT,
    CUSTOMER,
    TRANSFERRED,
    Contact,
    Participant,
)
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
        if contact.due.get(what) == number:
            del contact.due[what]
            _fall_due(world, contact, what, at)


def _fall_due(world: World, contact: Contact, what: str, at: float) -> None:
    match what.split():
        case ["step"]:
            _step_is_over(world, contact, at)
        case ["agent"]:
            _agent_comes(world, contact, at)
        case ["complete"]:
            world.happen("COMPLETED", contact, at)
        # AWS: contact records, DisconnectReason, for both
        case ["customer"]:
            world.end(contact, "CUSTOMER_CONNECTION_NOT_ESTABLISHED", at)
        case ["duration"]:
            world.end(contact, "EXPIRED", at)
        case [idle.BECOMES_IDLE, role]:
            idle.fell_idle(world, contact, role, at)
        case [idle.DISCONNECTS_OTHERS, role]:
            _disconnect_others(world, contact, role, at)


def connect(world: World, participant: Participant, now: float) -> None:
    """Let a participant be there; the flow begins with the first customer, idle timers with who joins one."""
    contact = world.contacts[participant.contact_id]
    first = contact.stage is Stage.STARTED and participant.role == CUSTOMER
    world.connect(participant, now)
    idle.begin(world, contact, now)
    if first:
        begin(world, contact, world.dials.flow, now)


def bot_came(world: World, contact: Contact, now: float) -> None:
    """Tell the flow that a custom bot has been created."""
    if contact.steps and isinstance(contact.steps[0], Hold) and contact.steps[0].until_bot:
        _leave(contact)
        _go_on(world, contact, now)


def bot_left(world: World, contact: Contact, now: float) -> None:
    """Tell the flow that a custom bot has disconnected; the contact does not end by it."""
    idle.stop(contact)
    if contact.steps and isinstance(contact.steps[0], WaitForBot):
        _branch(world, contact, BOT_DISCONNECTED, now)


def agent_joins(world: World, contact: Contact, now: float) -> None:
    """Bring an agent, by way of a queue if the contact is in none yet."""
    if contact.stage is Stage.CONNECTED:
        world.enqueue(contact, "standard", now)
    _agent_comes(world, contact, now)


def _agent_comes(world: World, contact: Contact, now: float) -> None:
    world.join_agent(contact, now)
    idle.begin(world, contact, now)


def agent_leaves(
    world: World, contact: Contact, now: float, reason: str = "AGENT_DISCONNECT"
) -> Contact | None:
    """End an agent's contact; the customer goes through the disconnect flow, as a new contact, if there is one."""
    if contact.stage is not Stage.WITH_AGENT:
        raise IllegalMove(contact.stage, "left by its agent")
    flow = world.dials.disconnect_flow
    if not flow:
        world.end(contact, reason, now)
        return None
    following = _succeed(world, contact, "DISCONNECT", reason, now)
    begin(world, following, flow, now)
    return following


def _disconnect_others(world: World, contact: Contact, role: str, now: float) -> None:
    """Disconnect everyone but the customer, since one was idle too long (AWS: set up chat timeouts).

    An agent's contact goes through the disconnect flow, if there is one; a bot's flow goes on.
    """
    world.note(contact, now, content_type=AUTODISCONNECTED, participant=idle.member(contact, role))
    if contact.stage is Stage.WITH_AGENT:
        agent_leaves(world, contact, now, "IDLE_DISCONNECT")
        return
    for bot in contact.participants:
        if bot.role == CUSTOM_BOT:
            world.disconnect(bot, now)
    bot_left(world, contact, now)


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
    """Let a new contact follow an old one: same chat, customer, transcript, timers; previous and initial ids set.

    The chat goes on, so a transfer closes the old contact's transcript, and a disconnect flow leaves it open:
    `chat.ended` makes amazon-connect-chatjs hang up.
    """
    following = Contact(
        id=world.new_id(old, "contact"),
        instance=old.instance,
        started_at=now,
        expires_at=old.expires_at,
        attributes=old.attributes,
        segment_attributes=old.segment_attributes,
        tags=old.tags,
        channel=old.channel,
        initial_contact_id=old.initial_contact_id,
        previous_contact_id=old.id,
        related_contact_id=old.related_contact_id,
        customer_id=old.customer_id,
        initiation_method=method,
        timers=old.timers,  # AWS: ParticipantTimerConfiguration: they persist across contacts of the chain
    )
    world.start(following)
    customers = [member for member in old.participants if member.role == CUSTOMER and member.present]
    old.participants = [member for member in old.participants if member not in customers]
    world.end(old, reason, now, last=TRANSFERRED if reason is None else None)
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
            _set_timer(world, contact, seconds, "step", now)
            return True
        case WaitForBot(seconds=seconds):
            branch = _branch_at_once(world, contact, seconds, now)
            if branch is not None:
                _take(contact, step, branch)
                return False
            _set_timer(world, contact, seconds, "step", now)
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


def _step_is_over(world: World, contact: Contact, now: float) -> None:
    if isinstance(contact.steps[0], WaitForBot):
        _branch(world, contact, EXPIRED, now)  # AWS: Wait block: the bot is not disconnected
    else:
        _leave(contact)
        _go_on(world, contact, now)


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
    contact.due.pop("step", None)


def _set_timer(world: World, contact: Contact, seconds: float | None, what: str, now: float) -> None:
    if seconds is not None:
        world.by(now + seconds, contact, what)
