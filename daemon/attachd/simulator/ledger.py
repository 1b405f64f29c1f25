"""Works out the report of a world: a pure function of it, at the price of what is new since the last look."""

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import islice, pairwise, takewhile
from math import ceil, inf

from attachd.simulator.report import Calls, Chats, Quota, Report, Spread
from attachd.simulator.state.nouns import CHAT, CUSTOM_BOT, Call, Contact, Participant
from attachd.simulator.state.quotas import quota_of
from attachd.simulator.state.world import World

_CREATE = "CreateParticipant"
_PER_SECOND_KEPT = 600


def report(world: World, now: float) -> Report:
    """Judge all that has happened by now."""
    return Ledger(world).report(now)


@dataclass(slots=True)
class _Chat:
    contacts: list[Contact] = field(default_factory=list)
    joined_known: bool = False
    spoke_known: bool = False

    @property
    def over(self) -> bool:
        """Whether none of its contacts is left."""
        return all(contact.ended_at is not None for contact in self.contacts)


class Ledger:
    """Reads one world; chats which are over and calls which were read are not looked at again."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._contacts_read = 0
        self._open: dict[str, _Chat] = {}
        self._over = Chats()
        self._calls = Calls()
        self._answered: Counter[str] = Counter()  # calls carried out, by contact
        self._joined: list[float] = []  # both kept in order
        self._spoke: list[float] = []
        self._last_call: Call | None = None
        self._first_at: float | None = None
        self._quotas: dict[str, Quota] = {}  # by account and Region
        self._whose: dict[str, str] = {}  # an instance's account and Region
        for instance in world.instances.values():
            whose = self._whose[instance.id] = f"{instance.account} {instance.region}"
            self._quotas.setdefault(whose, Quota(*quota_of(_CREATE, world.dials)))
        self._created_from: dict[str, float] = {}
        self.per_second: dict[int, Counter[str]] = {}
        """CreateParticipant calls of the last ten minutes by second: `granted`, `throttled`."""

    def report(
        self,
        now: float,
        customers: Mapping[str, int] | None = None,
        publishing: Mapping[str, int] | None = None,
    ) -> Report:
        """Judge all that has happened by now; what is not of the world is handed in."""
        self._read_calls()
        self._read_contacts()
        chats, calls = copy(self._over), copy(self._calls)
        for initial_id, chat in list(self._open.items()):
            over = chat.over
            self._judge(chat, chats, calls, now, over=over)
            if over:
                self._judge(chat, self._over, self._calls, now, over=over)
                del self._open[initial_id]
                for contact in chat.contacts:
                    self._answered.pop(contact.id, None)
        return Report(
            seconds=0.0 if self._first_at is None else now - self._first_at,
            chats=chats,
            create_participant=calls,
            wasted=calls.wasted,
            wait_for_bot=_spread(self._joined),
            wait_for_message=_spread(self._spoke),
            quota=_together(self._quotas.values()),
            quotas={whose: copy(quota) for whose, quota in self._quotas.items()},
            customers=customers or {},
            publishing=publishing or {},
        )

    # ── chats ──────────────────────────────────────────────────────────────────────────────────

    def _read_contacts(self) -> None:
        for contact in islice(self._world.contacts.values(), self._contacts_read, None):
            self._contacts_read += 1
            if contact.channel == CHAT:
                self._open.setdefault(contact.initial_contact_id, _Chat()).contacts.append(contact)
            if self._first_at is None:
                self._first_at = contact.started_at

    def _judge(self, chat: _Chat, chats: Chats, calls: Calls, now: float, *, over: bool) -> None:
        """Count a chat, and the bots made for it."""
        chats.started += 1
        chats.ended += over
        chats.open += not over
        bots = [_bots(contact) for contact in chat.contacts]
        self._count_bots(chat, bots, calls, now)
        arrived_at = chat.contacts[0].connected_at
        if arrived_at is None:
            chats.no_customer += 1
            return
        connected = [[bot for bot in each if bot.connected_at is not None] for each in bots]
        joined_at = min((bot.connected_at or 0.0 for each in connected for bot in each), default=None)
        spoke_at = _first_word(chat, connected)
        self._note_waits(chat, arrived_at, joined_at, spoke_at)
        chats.attached += joined_at is not None
        chats.on_time += spoke_at is not None
        chats.twice += any(len(each) > 1 for each in connected)
        chats.two_at_once += any(_two_at_once(each) for each in connected)
        if not over:
            chats.waiting += joined_at is None
            return
        chats.never += joined_at is None
        chats.late += joined_at is not None and spoke_at is None
        chats.gave_up += spoke_at is None and chat.contacts[-1].disconnect_reason == "CUSTOMER_DISCONNECT"

    def _count_bots(self, chat: _Chat, bots: Sequence[list[Participant]], calls: Calls, now: float) -> None:
        for contact, made in zip(chat.contacts, bots, strict=True):
            calls.created += len(made)
            calls.replayed += max(0, self._answered.get(contact.id, 0) - len(made))
            for bot in made:
                calls.connected += bot.connected_at is not None
                calls.never_connected += bot.connected_at is None and (
                    bot.disconnected_at is not None or self._world.lapsed(bot, now)
                )

    def _note_waits(
        self, chat: _Chat, arrived_at: float, joined_at: float | None, spoke_at: float | None
    ) -> None:
        """Keep each wait once it is known; a bot which came before the customer kept nobody waiting."""
        if joined_at is not None and not chat.joined_known:
            chat.joined_known = True
            insort(self._joined, max(0.0, joined_at - arrived_at))
        if spoke_at is not None and not chat.spoke_known:
            chat.spoke_known = True
            insort(self._spoke, max(0.0, spoke_at - arrived_at))

    # ── calls ──────────────────────────────────────────────────────────────────────────────────

    def _read_calls(self) -> None:
        last = self._last_call
        new = list(takewhile(lambda call: call is not last, reversed(self._world.calls)))
        for call in reversed(new):
            self._last_call = call
            if call.operation == _CREATE:
                self._count(call)
        for second in list(islice(self.per_second, max(0, len(self.per_second) - _PER_SECOND_KEPT))):
            del self.per_second[second]

    def _count(self, call: Call) -> None:
        calls = self._calls
        throttled = call.status == HTTPStatus.TOO_MANY_REQUESTS
        self.per_second.setdefault(int(call.at), Counter())["throttled" if throttled else "granted"] += 1
        calls.calls += 1
        # one which could not even be read names no instance
        whose = self._whose.get(call.instance_id) or next(iter(self._quotas))
        quota = self._quotas[whose]
        quota.granted += not throttled
        quota.ideal = quota.burst + quota.rate * (call.at - self._created_from.setdefault(whose, call.at))
        if (
            call.effect or call.status == HTTPStatus.OK
        ):  # a fault may have spoiled the answer: it was given all the same
            self._answered[call.contact_id] += 1
        if call.status == HTTPStatus.OK:
            return
        if throttled:
            calls.throttled += 1
        elif call.status >= HTTPStatus.INTERNAL_SERVER_ERROR or not call.status:  # or no answer at all
            calls.failed += 1
        else:
            contact = self._world.contacts.get(call.contact_id)
            ended_at = inf if contact is None or contact.ended_at is None else contact.ended_at
            # in the very instant of the end, nobody could tell which came first
            calls.after_the_end += ended_at < call.at
            calls.refused += ended_at >= call.at


def _together(quotas: Iterable[Quota]) -> Quota:
    """Add up, figure by figure."""
    figures = ((quota.rate, quota.burst, quota.granted, quota.ideal) for quota in quotas)
    return Quota(*map(sum, zip(*figures, strict=True)))


def _bots(contact: Contact) -> list[Participant]:
    return [member for member in contact.participants if member.role == CUSTOM_BOT]


def _first_word(chat: _Chat, connected: Sequence[list[Participant]]) -> float | None:
    """Return when a bot first said something; a persistent chat's transcript begins with another's words."""
    for contact, bots in zip(chat.contacts, connected, strict=True):
        if any(bot.messages_sent for bot in bots):
            return next(
                item.at
                for item in contact.transcript
                if item.content is not None
                and item.contact_id == contact.id
                and item.participant is not None
                and item.participant.role == CUSTOM_BOT
            )
    return None


def _two_at_once(bots: Sequence[Participant]) -> bool:
    spoke = sorted((bot for bot in bots if bot.messages_sent), key=lambda bot: bot.connected_at or 0.0)
    return any(
        later.connected_at is not None
        and (earlier.disconnected_at is None or later.connected_at < earlier.disconnected_at)
        for earlier, later in pairwise(spoke)
    )


def _spread(ordered: Sequence[float]) -> Spread:
    if not ordered:
        return Spread()
    p50, p90, p99 = (ordered[ceil(share * len(ordered)) - 1] for share in (0.5, 0.9, 0.99))
    return Spread(len(ordered), p50, p90, p99, ordered[-1])
