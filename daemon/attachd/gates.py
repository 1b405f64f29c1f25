"""The gates before the clock: no runtime, no place, no access: no CreateParticipant.

A gate is anything that ``waiting`` may ask whether it is open; several in a row are one gate. Here are those that a
contact passes on its way to a bot: the instance's circuit, the runtime's circuit and its places for hand-offs under
way, the bot's cap on open chats. Who learns something of the other side (an answer, a time-out, an end event) says so
here, and everybody who waits is looked at again.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

import anyio
import structlog

from attachd.circuit import Circuit
from attachd.errors import Permanent, Transient
from attachd.model import Bot
from attachd.places import OpenChats, Places
from attachd.ports import Runtime
from attachd.waiting import Gate

_LOOK_SECONDS: Final = 1.0
#: Chats looked up a second while a bot is full.
_LOOKUPS: Final = 10
_PROBE_SECONDS: Final = 3.0
_TICK_SECONDS: Final = 1e-3  # a wait that rounding has left over must still move the clock
_LONGEST_RETRY_AFTER_SECONDS: Final = 300.0

log = structlog.get_logger(__name__)


class RuntimeGate:
    """One runtime, as those see it who want to hand a chat over.

    Args:
        name: the runtime's name.
        runtime: asked whether it is there before anybody is let in again.
        handoffs: how many may be under way at once.
    """

    def __init__(self, name: str, runtime: Runtime, handoffs: float = inf) -> None:
        self.name = name
        self.runtime = runtime
        self.circuit = Circuit()
        self.places = Places(handoffs)
        self._reached = True

    @property
    def there(self) -> bool:
        """Whether it answered when it was last asked."""
        return self._reached

    def wait(self, now: float) -> float:
        """See ``waiting.Gate``. While the circuit is open, nobody goes in before a probe has come back."""
        if not self._reached:
            return inf
        return max(self.circuit.wait(now), self.places.wait(now))

    def enter(self) -> None:
        """See ``waiting.Gate``."""
        self.circuit.enter()
        self.places.enter()

    def leave(self) -> None:
        """See ``waiting.Gate``."""
        self.circuit.leave()
        self.places.leave()

    def heard(self, error: Transient | Permanent | None, now: float) -> None:
        """Take in how an offer ended."""
        before = self.circuit.why
        match error:
            case None:
                self.circuit.succeeded()
            case Permanent(reason="runtime_retired"):
                self.circuit.open(str(error), now, inf)
            case Permanent():
                self.circuit.succeeded()  # it refused this chat: it is there
            case Transient(after=float(seconds)):
                # Its own word: full, or draining; but not for days.
                self.circuit.open(str(error), now, min(seconds, _LONGEST_RETRY_AFTER_SECONDS))
            case Transient():
                self.circuit.failed(str(error), now)
        self._reached = self.circuit.closed
        if bool(before) is not bool(self.circuit.why):
            self._tell()

    def due(self, now: float) -> float:
        """Seconds until a probe is due; infinity if none is needed."""
        return inf if self._reached else self.circuit.wait(now)

    async def probe(self) -> None:
        """Ask the runtime whether it is there; if so, one contact may try."""
        try:
            with anyio.fail_after(_PROBE_SECONDS):
                await self.runtime.probe()
        except (Transient, Permanent, TimeoutError) as error:
            self.circuit.open(str(error) or "no answer", anyio.current_time())
            log.debug("runtime.probe_failed", runtime=self.name, reason=self.circuit.why)
        else:
            self._reached = True

    def _tell(self) -> None:
        if self.circuit.closed:
            log.info("runtime.circuit_closed", runtime=self.name)
            return
        log.warning(
            "runtime.circuit_open",
            runtime=self.name,
            reason=self.circuit.why,
            next="no participant is made for it until it answers again; chats wait, or go to the rule's next bot",
        )


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """The way of one instance's chats to one bot: a gate of gates; unless it is barred, whoever comes goes through."""

    bot: Bot
    runtime: RuntimeGate
    chats: OpenChats
    gates: tuple[Gate, ...] = field(repr=False)
    barred: bool = True

    def wait(self, now: float) -> float:
        """See ``waiting.Gate``."""
        return max(gate.wait(now) for gate in self.gates) if self.barred else 0.0

    def enter(self) -> None:
        """See ``waiting.Gate``."""
        for gate in self.gates:
            gate.enter()

    def leave(self) -> None:
        """See ``waiting.Gate``."""
        for gate in self.gates:
            gate.leave()


async def _unknown(_: str) -> bool:
    return False


class Gates:
    """All of them. ``run()`` probes the runtimes whose circuits are open, and must be running for any to close.

    Args:
        runtimes: by name, with the cap on hand-offs under way.
        stir: called whenever a gate may have opened.
        over: whether a contact's end is on record (``Claims.over``).
    """

    def __init__(
        self,
        runtimes: Iterable[RuntimeGate],
        caps: Mapping[str, float],
        stir: Callable[[], None],
        over: Callable[[str], Awaitable[bool]] = _unknown,
    ) -> None:
        self.runtimes = {gate.name: gate for gate in runtimes}
        self._caps = caps
        self._chats: dict[str, OpenChats] = {}
        self._ways: dict[tuple[str, bool, tuple[tuple[str, str, bool], ...]], tuple[Way, ...]] = {}
        self._stir = stir
        self._over = over
        self._changed = anyio.Event()

    def ways(
        self,
        instance: str,
        circuit: Circuit,
        bots: Sequence[Bot],
        streaming: Circuit | None = None,
        *,
        barred: bool = True,
    ) -> tuple[Way, ...]:
        """The ways to these bots, in order; the same tuple whenever the same is asked.

        Args:
            instance: whose chats go them.
            circuit: the instance's.
            bots: where they lead.
            streaming: for those whose chats are streamed first, the circuit of that.
            barred: whether gates that are shut are waited for; all that are gone through are entered.
        """
        looks = tuple((bot.name, bot.runtime, bool(bot.recipe.streaming_topic)) for bot in bots)
        key = instance, barred, looks
        if key not in self._ways:
            circuits = (circuit,) if streaming is None else (circuit, streaming)
            self._ways[key] = tuple(
                self._way(circuits if bot.recipe.streaming_topic else circuits[:1], bot, barred=barred)
                for bot in bots
            )
        return self._ways[key]

    def cap(self, caps: Mapping[str, float]) -> None:
        """Let each bot have so many open chats from now on; those without a cap any number."""
        self._caps = caps
        for name, chats in self._chats.items():
            chats.most = caps.get(name, inf)
        self.stir()

    def heard(self, runtime: str, error: Transient | Permanent | None) -> None:
        """Take in how an offer to this runtime ended."""
        self.runtimes[runtime].heard(error, anyio.current_time())
        self.stir()

    def opened(self, bot: str, contact_id: str, told: int | None = None) -> None:
        """The bot has this chat, and so many in all, if its runtime says so: that counts more than what we think."""
        chats, now = self._of(bot), anyio.current_time()
        if told is not None:
            chats.told(max(0, told - 1), now)  # this one is among them
        chats.opened(contact_id, now)  # last: a runtime may answer before it counts this one

    def had(self, bot: str, contact_id: str, seconds: float) -> None:
        """The bot has had this chat for so long: a predecessor of ours handed it over. Told oldest first."""
        self._of(bot).opened(contact_id, anyio.current_time() - seconds)

    def ended(self, contact_id: str) -> None:
        """A chat is over: its place is free."""
        freed = [chats for chats in self._chats.values() if chats.ended(contact_id)]
        if freed:
            self.stir()

    def stir(self) -> None:
        """Something changed: whoever waits at a gate is looked at again."""
        self._changed.set()
        self._changed = anyio.Event()
        self._stir()

    @property
    def trouble(self) -> list[str]:
        """Which runtimes nobody can be handed to, a sentence each."""
        return [
            f"runtime {gate.name}: circuit open: {gate.circuit.why}"
            for gate in self.runtimes.values()
            if not gate.there
        ]

    def open_chats(self, bot: str) -> int:
        """How many chats the bot has, as far as is known."""
        return len(self._chats[bot]) if bot in self._chats else 0

    async def run(self, report: Callable[[], None] = lambda: None) -> None:
        """Probe the runtimes whose circuits are open, and look for ends that others have read, for ever."""
        async with anyio.create_task_group() as tasks:
            for gate in self.runtimes.values():
                tasks.start_soon(self._watch, gate)
            tasks.start_soon(self._learn_of_ends)
            while True:
                report()
                await anyio.sleep(_LOOK_SECONDS)

    async def _watch(self, gate: RuntimeGate) -> None:
        """Probe one runtime whenever that is due. A slow one delays no other."""
        while True:
            changed = self._changed
            due = gate.due(anyio.current_time())
            if due > 0:
                with anyio.move_on_after(max(due, _TICK_SECONDS)):
                    await changed.wait()
                continue
            await gate.probe()
            self._stir()

    async def _learn_of_ends(self) -> None:
        """While a bot is full, look its chats up in turn: an end that another replica read stands in the journal alone."""
        while True:
            await anyio.sleep(_LOOK_SECONDS)
            for chats in list(self._chats.values()):  # a bot may come meanwhile
                for contact_id in chats.to_look_up(_LOOKUPS) if len(chats) >= chats.most else ():
                    try:
                        over = await self._over(contact_id)
                    except Transient as error:
                        log.debug("gates.not_looked_up", contact=contact_id, reason=str(error))
                        break
                    if over:
                        self.ended(contact_id)

    def _way(self, circuits: tuple[Circuit, ...], bot: Bot, *, barred: bool) -> Way:
        runtime = self.runtimes[bot.runtime]
        chats = self._of(bot.name)
        return Way(bot, runtime, chats, (*circuits, runtime, chats), barred)

    def _of(self, bot: str) -> OpenChats:
        return self._chats.setdefault(bot, OpenChats(self._caps.get(bot, inf)))
