"""One call, from bytes to bytes: route, parse, operate, record, answer. No network, no clock: testable at once.

A fault that is done to a call stands between the parsing and the answer; what must be done to a connection, or takes
time, is only said in the Answer.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf
from typing import Any, TypeVar

import structlog

from attachd.simulator.errors import ApiError
from attachd.simulator.faults import AnyFault, Garbled, Reset, Silence
from attachd.simulator.front import enact
from attachd.simulator.front.caller import require_caller, signed
from attachd.simulator.front.control import control
from attachd.simulator.front.rehearsal import rehearse
from attachd.simulator.front.subject import contact_id_of, instance_of
from attachd.simulator.front.wire import Operation, Router, encode, error_answer
from attachd.simulator.instants import http_date
from attachd.simulator.operations import connect, connections, participant
from attachd.simulator.scenario.reading import Unreadable, read_faults
from attachd.simulator.state.dice import likeness
from attachd.simulator.state.fates import SPARED, Fate, Fates, Occasion
from attachd.simulator.state.nouns import Call, Line, Participant
from attachd.simulator.state.quotas import buckets, throttling_code
from attachd.simulator.state.walk import advance
from attachd.simulator.state.world import World
from attachd.simulator.traffic.customers import Customers
from attachd.simulator.traffic.plan import Traffic

_log = structlog.get_logger(__name__)
_JSON = {"Content-Type": "application/json"}
_OPERATIONS = connect.OPERATIONS | participant.OPERATIONS

Announce = Callable[[dict[str, Any]], None]
_T = TypeVar("_T")


@cache
def router() -> Router:
    """Compile the models once a process: the result never changes."""
    return Router({"connect": connect.OPERATIONS, "connectparticipant": participant.OPERATIONS})


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response to be sent."""

    status: int
    headers: dict[str, str]
    body: bytes
    delay_seconds: float = 0.0
    spoiled: Silence | Reset | Garbled | None = None
    """What happens to it on its way."""


class Api:
    """Both services' front door over one world; contact events go to `announce`, which must not block."""

    def __init__(self, world: World, announce: Announce, since: float = 0.0) -> None:
        """Begin at `since`, from which the faults' times count."""
        self._world = world
        self._announce = announce
        self.listeners: list[Callable[[Sequence[Line]], None]] = []
        """Told what has been said and done in chats, after each call; they must not block either."""
        self._router = router()
        self._halfway = False  # through what customers do at one moment
        world.quotas = buckets(frozenset(connect.OPERATIONS), frozenset(participant.OPERATIONS), world.dials)
        self.customers = Customers(world, self._serve_customer, self._operate)
        self.listeners.append(self.customers.hear)
        # Apart from the world's dice, so that a refused call does not change which token comes next.
        self._request_dice = random.Random(f"requests {world.dials.seed}")
        self._fates = Fates((), 0, 0.0)
        self.set_faults(world.dials.faults, since)

    @property
    def faults(self) -> tuple[AnyFault, ...]:
        """What goes wrong."""
        return self._fates.faults

    def set_faults(self, faults: Iterable[AnyFault], now: float) -> None:
        """Have these go wrong from now on, and nothing else; raises ValueError for names that are none, or twice."""
        fates = Fates(faults, self._world.dials.seed, now)
        named = {name for fault in fates.faults for name in fault.operations}
        if not named <= _OPERATIONS.keys():
            raise ValueError(f"no operation to strike: {', '.join(sorted(named - _OPERATIONS.keys()))}")
        self._fates = fates

    def call(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Answer:
        """Answer one request; header names must be found whatever their case. What breaks in here is answered 500.

        `path` may carry a query string.
        """
        operation: Operation | None = None
        try:
            self.advance(now)
            operation, labels = self._router.find(method, path)
            request = operation.parse(labels, headers, body)
            fate = self._fate(operation.name, request, headers, now) if self._fates.faults else SPARED
            return self._carry_out(operation, request, headers, fate, now)
        except Exception as error:  # noqa: BLE001 - a service answers whatever happens to it
            refused = _told(operation, error)
            self.announce_happenings()
            return self._refuse(operation, refused, now)

    def _fate(self, name: str, request: dict[str, Any], headers: Mapping[str, str], now: float) -> Fate:
        access_key, signed_at = signed(headers)
        instance = instance_of(self._world, request)
        return self._fates.of(
            Occasion(
                operation=name,
                about=contact_id_of(self._world, request) or likeness(request),
                instance_id=instance.id,
                region=instance.region,
                at=now,
                access_key=access_key,
                signed_at=signed_at,
            )
        )

    def _carry_out(
        self,
        operation: Operation,
        request: dict[str, Any],
        asked: Mapping[str, str],
        fate: Fate,
        now: float,
    ) -> Answer:
        headers: dict[str, str] = {}
        instance_id = instance_of(self._world, request).id
        contact_id, code, effect = contact_id_of(self._world, request), "", False
        spoiled = enact.spoiling(fate.deed)
        struck = spoiled is not None
        try:
            enact.at_the_door(fate.deed, operation, now)
            self._admit(request, asked)
            failure = enact.failure(fate.deed, operation, "before")
            response = self._operate(operation.name, request, now, failure)
            contact_id, effect = contact_id or response.get("ContactId", ""), True
            if (failure := enact.failure(fate.deed, operation, "after")) is not None:
                raise failure  # noqa: TRY301 - after the effect
            if "Websocket" in response:
                response = connections.addressed(response, asked.get("Host", "127.0.0.1"))
            status, body = 200, encode(response)
        except Exception as broken:  # noqa: BLE001 - recorded as the call it was, with what it did
            error = _told(operation, broken)
            status, headers, body = error_answer(operation, error)
            code, struck = error.code, struck or isinstance(error, enact.Struck)
        if isinstance(spoiled, Silence | Reset):
            status, code = 0, ""
        fault = " + ".join((*fate.marks, fate.name) if struck else fate.marks)
        self._world.calls.append(
            Call(operation.name, now, status, code, contact_id, instance_id, fault, effect)
        )
        self.announce_happenings()
        if fate.skew_seconds:
            headers["Date"] = http_date(now + fate.skew_seconds)
        return self._answer(status, headers, body, fate.delay_seconds, spoiled)

    def _admit(self, request: dict[str, Any], headers: Mapping[str, str]) -> None:
        """Hold the signature of a call to Connect against the instance it names (the Participant Service reads none)."""
        instance = self._world.instances.get(request.get("InstanceId", ""))
        if instance is not None:
            require_caller(headers, instance, self._world.dials.access_keys)

    def _operate(
        self, name: str, request: dict[str, Any], now: float, failure: ApiError | None = None
    ) -> dict[str, Any]:
        """Meter a well-formed call, then let its operation judge it: a call for a chat that has gone spends too.

        `failure` is raised instead of operating.
        """
        bucket = self._world.quotas.get((name, instance_of(self._world, request).id))
        if bucket is not None and not bucket.take(now):
            raise ApiError(throttling_code(name), "Rate exceeded")
        try:
            if failure is not None:
                raise failure
            return _OPERATIONS[name](self._world, request, now)
        except ApiError:
            if bucket is not None and not self._world.dials.refused_calls_spend_quota:
                bucket.give_back()
            raise

    def due_at(self) -> float | None:
        """Return when something is next due, in a flow or to a customer who is played."""
        deadlines, customers_at = self._world.deadlines, self.customers.due_at()
        if customers_at is None:
            return deadlines[0][0] if deadlines else None
        return min(deadlines[0][0], customers_at) if deadlines else customers_at

    def advance(self, now: float, within_seconds: float = inf) -> bool:
        """Let flows and customers go on to where they must be by now, and announce what happened on the way.

        Stops after so many seconds of work; returns whether all is done.
        """
        stop_at = time.perf_counter() + within_seconds
        while (at := self.due_at()) is not None and at <= now:
            if time.perf_counter() > stop_at:
                return False
            if (
                not self._halfway
            ):  # or the order of what happens at one moment would hang on the machine's speed
                advance(self._world, at)
                self.announce_happenings()
            self._halfway = not self.customers.advance(at, stop_at)
            self.announce_happenings()
        return True

    def play(self, traffic: Traffic, now: float) -> None:
        """Let customers come from now on; raises ValueError, before anybody comes, if one kind of them could not."""
        rehearse(traffic, self._world.dials, self._router, now)
        self.customers.play(traffic, now)

    def _serve_customer(self, name: str, request: dict[str, Any], now: float) -> dict[str, Any]:
        """Do what a customer's call would do; it is no client's: no quota, no fault and no record of it."""
        return _OPERATIONS[name](self._world, request, now)

    def perform(self, act: Callable[[World, float], _T], now: float) -> _T:
        """Do what comes by another way than a call, and announce what comes of it; raises what `act` does."""
        self.advance(now)
        done = act(self._world, now)
        self.announce_happenings()
        return done

    def chat_of(self, member: Participant) -> str:
        """Return the initial contact's id of the chat which a participant is in."""
        return self._world.contacts[member.contact_id].initial_contact_id

    def control(self, path: str, body: bytes, now: float) -> Answer:
        """Do what no API does (see `control`), and announce what comes of it."""
        self.advance(now)
        if path == "/_simulator/faults":
            return self._replace_faults(body, now)
        status, told = control(self._world, path, body, now)
        self.announce_happenings()
        return Answer(status, _JSON, encode(told))

    def _replace_faults(self, body: bytes, now: float) -> Answer:
        try:
            self.set_faults(read_faults(body), now)
        except Unreadable as error:
            return Answer(400, _JSON, encode({"message": str(error), "problems": error.problems}))
        return Answer(200, _JSON, encode({"faults": self._fates.names}))

    def refuse(self, error: ApiError, now: float) -> Answer:
        """Answer a request which could not even be read."""
        return self._refuse(None, error, now)

    def _refuse(self, operation: Operation | None, error: ApiError, now: float) -> Answer:
        status, headers, body = error_answer(operation, error)
        self._world.calls.append(Call(operation.name if operation else "", now, status, error.code, ""))
        return self._answer(status, headers, body)

    def _answer(
        self,
        status: int,
        headers: dict[str, str],
        body: bytes,
        delay_seconds: float = 0.0,
        spoiled: Silence | Reset | Garbled | None = None,
    ) -> Answer:
        bits = f"{self._request_dice.getrandbits(128):032x}"
        request_id = f"{bits[:8]}-{bits[8:12]}-{bits[12:16]}-{bits[16:20]}-{bits[20:]}"
        common = {"Content-Type": "application/json", "x-amzn-RequestId": request_id}
        return Answer(status, common | headers, body, delay_seconds, spoiled)

    def announce_happenings(self) -> None:
        """Announce what has happened since the last call, and tell what has been said."""
        while self._world.happenings:
            self._announce(self._world.happenings.popleft())
        if self._world.lines:
            lines = list(self._world.lines)
            self._world.lines.clear()
            for tell in self.listeners:
                tell(lines)


def _told(operation: Operation | None, error: Exception) -> ApiError:
    """Return what the client is told of an error; of one which no rule raised, only the log has the kind."""
    if isinstance(error, ApiError):
        return error
    # its text may quote the request, and with it a token
    _log.error(
        "simulator.call_broken", operation=operation.name if operation else "", error=type(error).__name__
    )
    return ApiError(
        operation.internal_error if operation else "InternalServiceException", "The service failed"
    )
