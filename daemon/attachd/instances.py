"""The Amazon Connect instances that chats come from, and what of Connect each of them may use.

Quotas are per API, account and Region, shared by all instances of it; the Participant Service's are per instance
(admin guide, "Connect Customer service quotas"). So an instance is a client, a circuit, and one waiting room an API,
some of them shared. Made once each, at the first contact event of an instance or at the start if it is listed.
"""

import re
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import anyio
import structlog

from attachd.circuit import Circuit
from attachd.errors import Permanent, Transient
from attachd.failures import OF_THE_INSTANCE
from attachd.model import Outcome
from attachd.ports import Attacher
from attachd.quota import Rate
from attachd.waiting import Room

#: Calls a second and at once, by API (admin guide, "Connect Customer service quotas").
ACCOUNT_QUOTAS: Final[Mapping[str, Rate]] = MappingProxyType(
    {
        "CreateParticipant": Rate(5, 8),
        "StartContactStreaming": Rate(5, 8),
        "UpdateParticipantRoleConfig": Rate(5, 8),
        "DescribeContact": Rate(10, 15),
        "GetContactAttributes": Rate(10, 15),
    }
)
INSTANCE_QUOTAS: Final[Mapping[str, Rate]] = MappingProxyType(
    {"CreateParticipantConnection": Rate(6, 9), "DisconnectParticipant": Rate(3, 5)}
)

_BEFORE_THE_CLOCK: Final = (
    "GetContactAttributes",
    "StartContactStreaming",
    "UpdateParticipantRoleConfig",
    "CreateParticipant",
)
_ARN: Final = re.compile(r"arn:aws[\w-]*:connect:([a-z0-9-]+):(\d{12}):instance/[\w-]{1,100}")
_LOOK_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Account:
    """One account in one Region: what its instances share.

    Attributes:
        name: ``ACCOUNT/REGION``.
        rooms: the waiting rooms of its quotas, by API.
        learn: what is still to be found out about it, in the background.
    """

    name: str
    rooms: Mapping[str, Room]
    learn: Callable[[], Coroutine[Any, Any, None]] | None = None


@dataclass(slots=True, eq=False)
class Instance:
    """One instance.

    Attributes:
        arn: ``arn:P:connect:R:A:instance/I``.
        attacher: its Amazon Connect.
        account: whose quotas it uses.
        own_rooms: the waiting rooms of the quotas that it has for itself, by API.
        circuit: open while Connect denies us access to it.
        streaming: the same for StartContactStreaming alone, which not every bot needs.
    """

    arn: str
    attacher: Attacher
    account: Account
    own_rooms: Mapping[str, Room]
    circuit: Circuit = field(default_factory=lambda: Circuit(failures=1, first=2.0, longest=30.0))
    streaming: Circuit = field(default_factory=lambda: Circuit(failures=1, first=2.0, longest=30.0))

    @property
    def rooms(self) -> Mapping[str, Room]:
        """The waiting rooms of the quotas that it uses, by API."""
        return {**self.account.rooms, **self.own_rooms}

    def heard(self, error: Exception | None, now: float, *, streaming: bool = False) -> None:
        """Take in how a call to Connect ended: denied access, or no credentials, tells of all that would follow."""
        circuit = self.streaming if streaming else self.circuit
        before = circuit.why
        match error:
            case Transient() if error.reason in OF_THE_INSTANCE:
                circuit.failed(str(error), now)
            case None | Permanent():
                circuit.succeeded()
            case _:
                return
        if circuit.why and not before:
            log.error(
                "instance.circuit_open",
                instance=self.arn,
                reason=circuit.why,
                next="chats that need it wait; one of them tries again after 2 s, 4 s … 30 s",
            )
        elif before and not circuit.why:
            log.info("instance.circuit_closed", instance=self.arn)


class Instances:
    """All of them. ``run()`` keeps their waiting rooms and must be running for anybody to be admitted.

    Args:
        make: makes the instance of an ARN, once; raises ``Permanent`` for one that is not to be served.
        reporter: gives each room a function to report its progress with.
    """

    def __init__(
        self,
        make: Callable[[str], Awaitable[Instance]],
        reporter: Callable[[str], Callable[[], None]] = lambda _: lambda: None,
    ) -> None:
        self._make = make
        self._reporter = reporter
        self._made: dict[str, Instance] = {}
        self._making = anyio.Lock()
        self._new = anyio.Event()

    async def of(self, arn: str) -> Instance:
        """The instance of this ARN.

        Raises:
            Permanent: attachd is not to serve it.
            Transient: its clients cannot be made now.
        """
        if arn not in self._made:
            async with self._making:
                if arn not in self._made:
                    self._made[arn] = await self._make(arn)
                    self._new.set()
        return self._made[arn]

    def __iter__(self) -> Iterator[Instance]:
        return iter(self._made.values())

    def call_away(self, contact_id: str, outcome: Outcome) -> None:
        """Let the contact leave whatever room it waits in to be attached; what is under way for it goes on."""
        for account in {instance.account: None for instance in self}:
            for api in _BEFORE_THE_CLOCK:
                account.rooms[api].call_away(contact_id, outcome)

    def stir(self) -> None:
        """A gate may have opened: whoever waits is looked at again."""
        for room in self.rooms():
            room.stir()

    def rooms(self) -> dict[Room, None]:
        """Every room there is, once, in the order of making."""
        return {room: None for instance in self for room in instance.rooms.values()}

    async def run(self, report: Callable[[], None] = lambda: None) -> None:
        """Let every room call its contacts in, those of instances to come as well, for ever."""
        started: set[object] = set()
        async with anyio.create_task_group() as rooms:
            while True:
                report()
                self._new = anyio.Event()
                for account in {instance.account: None for instance in self}:
                    if account.learn is not None and account not in started:
                        rooms.start_soon(account.learn)
                    started.add(account)
                for room in self.rooms():
                    if room not in started:
                        rooms.start_soon(room.run, self._reporter(f"waiting room {room.name}"))
                    started.add(room)
                with anyio.move_on_after(_LOOK_SECONDS):
                    await self._new.wait()

    @property
    def trouble(self) -> list[str]:
        """Which instances Connect denies us, a sentence each."""
        return [
            f"instance {instance.arn}: {circuit.why}"
            for instance in self
            for circuit in (instance.circuit, instance.streaming)
            if not circuit.closed
        ]


def place(arn: str) -> tuple[str, str]:
    """An instance's account and Region.

    Raises:
        Permanent: this is not the ARN of an instance.
    """
    found = _ARN.fullmatch(arn)
    if found is None:
        raise Permanent(Outcome.NO_BOT, "no_instance", f"not the ARN of an instance: {arn[:120]!r}")
    return found[2], found[1]
