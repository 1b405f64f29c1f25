"""The instances that chats come from: clients, quotas and waiting rooms, made when they are first needed."""

import os
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import anyio
import structlog

from attachd import aws
from attachd import settings as s
from attachd.connect import Connect
from attachd.errors import Misconfigured, Permanent, Transient
from attachd.instances import ACCOUNT_QUOTAS, INSTANCE_QUOTAS, Account, Instance, place
from attachd.metrics import Metrics
from attachd.model import Outcome
from attachd.ports import Attacher
from attachd.quota import Quota, Rate
from attachd.shadow import ShadowConnect
from attachd.waiting import Room
from attachd.wiring.parts import USER_AGENT

#: Service Quotas, "Rate of CreateParticipant API requests"
_QUOTA_CODE: Final = "L-8FE21897"
#: Of the deliveries in hand, so many may wait, since a chat has two opening events; the rest is for those that end chats.
_MAY_WAIT: Final = 0.45

log = structlog.get_logger(__name__)


class Connects:
    """Makes instances.

    Args:
        config: the configuration.
        metrics: where rooms show how they do.
        stack: closes the clients at the end.
        shadow: make no calls.
    """

    def __init__(
        self, config: s.Settings, metrics: Metrics, stack: AsyncExitStack, *, shadow: bool = False
    ) -> None:
        self._shadow = shadow
        self._config = config
        self._metrics = metrics
        self._stack = stack
        self._listed = {table.arn: table for table in config.instances}
        self._accounts: dict[tuple[str, str], Account] = {}
        self._whole: dict[Room, Rate] = {}
        self._scarce: list[Room] = []  # CreateParticipant's: many wait there, and replicas share by demand
        self._share = 1.0, 1
        self._serving = False
        self._started_at = anyio.current_time()  # until then a predecessor may have spent every burst
        self._clients: dict[tuple[str, str | None, str | None], Connect] = {}

    def serve(self) -> None:
        """All that is listed has been made: what fails from now on does not end the process."""
        self._serving = True

    def share(self, share: float, count: int) -> None:
        """Use so much of every quota: there are so many replicas, and this one's share of the rate is this."""
        self._share = share, count
        self._metrics.replicas.set(count)
        self._metrics.quota_share.set(share)
        for room in self._whole:
            self._divide(room)

    def _divide(self, room: Room) -> None:
        """The scarce one by demand; all other quotas evenly, since they are used without waiting long for them."""
        share, count = self._share
        if room not in self._scarce:
            share = 1 / max(1, count)
        room.change(self._whole[room].part(share, 1 / max(1, count)) if share else None)

    def _room(self, name: str, rate: Rate, *, scarce: bool = False) -> Room:
        quota = Quota(rate, spent_at=self._started_at)
        room = Room(quota, name=name, full=self.crowded if scarce else lambda: False)
        if scarce:
            self._scarce.append(room)
        self._whole[room] = rate
        self._divide(room)
        return room

    def crowded(self) -> bool:
        """Of those in hand only a part may wait, in all accounts together."""
        return self.waiting >= _MAY_WAIT * self._config.service.max_in_hand

    @property
    def seats(self) -> int:
        """How many replicas may have a share at once: the smallest burst of all accounts."""
        bursts = [self._whole[room].burst for room in self._scarce]
        return int(min(bursts, default=_asked(self._config.quota).burst))

    @property
    def waiting(self) -> int:
        """Chats that wait for a token or a runtime."""
        return sum(len(room) for room in self._scarce)

    async def instance(self, arn: str) -> Instance:
        """The instance of this ARN.

        Raises:
            Permanent: instances are listed, and this one is not; or it is no instance's ARN.
        """
        if self._listed and arn not in self._listed:
            raise Permanent(Outcome.NO_BOT, "instance_not_listed", f"{arn} is not among [[instances]]")
        account, region = place(arn)
        table = self._listed.get(arn)
        role, endpoint = (table.role, table.endpoint) if table else (None, None)
        made = Instance(
            arn,
            attacher=await self._client(region, role, endpoint),
            account=self._account(account, region, role),
            own_rooms={api: self._room(f"{api} {arn}", rate) for api, rate in INSTANCE_QUOTAS.items()},
        )
        self._metrics.circuits.labels("instance", arn).set_function(lambda: not made.circuit.closed)
        log.info("instance.added", instance=arn, role=role)
        return made

    async def _client(self, region: str, role: str | None, endpoint: str | None) -> Attacher:
        if self._shadow:
            return ShadowConnect()
        key = region, role, endpoint
        if key not in self._clients:
            sessions = partial(aws.session, os.environ, region=region, role=role)
            client = Connect(sessions, USER_AGENT, endpoint_url=endpoint)
            try:
                await self._stack.enter_async_context(client.open())
            except Misconfigured as error:
                if self._serving:  # an instance met on the way: it may be mended while we run
                    raise Transient("credentials", str(error)) from None
                raise
            self._clients[key] = client
        return self._clients[key]

    def _account(self, account: str, region: str, role: str | None) -> Account:
        key = account, region
        if key not in self._accounts:
            table = self._quota(key)
            name = f"{account}/{region}"
            room = self._room(f"CreateParticipant {name}", _usable(table, _asked(table)), scarce=True)
            for gauge, value in (
                (self._metrics.waiting, lambda: len(room)),
                (self._metrics.drain_eta, lambda: room.drain_eta_seconds),
                (self._metrics.granted_rate, lambda: room.granted_rate),
            ):
                gauge.labels(account, region).set_function(value)
            rooms = {
                api: room if api == "CreateParticipant" else self._room(f"{api} {name}", rate)
                for api, rate in ACCOUNT_QUOTAS.items()
            }
            asks = table.rate is None and not self._shadow
            learn = partial(self._learn, room, table, region, role) if asks else None
            self._accounts[key] = Account(name, rooms, learn)
        return self._accounts[key]

    def _quota(self, key: tuple[str, str]) -> s.Quota:
        of_its_own = (t.quota for arn, t in self._listed.items() if place(arn) == key and t.quota is not None)
        return next(of_its_own, self._config.quota)

    async def _learn(self, room: Room, table: s.Quota, region: str, role: str | None) -> None:
        """Read the quota that is in force in the account."""
        try:
            session = aws.session(os.environ, region=region, role=role)
            applied = await aws.applied_quota(session, _QUOTA_CODE, USER_AGENT)
        except Transient as error:
            rate = _asked(table)
            log.info(
                "quota.assumed",
                room=room.name,
                per_second=rate.per_second,
                burst=rate.burst,
                reason=str(error),
            )
            return
        rate = _asked(table, applied)
        self._whole[room] = _usable(table, rate)
        self._divide(room)
        log.info("quota.read", room=room.name, per_second=rate.per_second, burst=rate.burst)


def _asked(table: s.Quota, applied: float | None = None) -> Rate:
    """What the account has: configured, read from Service Quotas, or AWS's default. The burst goes with the rate."""
    default = ACCOUNT_QUOTAS["CreateParticipant"]
    rate = table.rate or applied or default.per_second
    return Rate(rate, table.burst or max(1, round(default.burst * rate / default.per_second)))


def _usable(table: s.Quota, rate: Rate) -> Rate:
    """Less the headroom: of the burst, a call at least, since calls do not all take the same time to arrive."""
    part = 1 - table.headroom
    burst = int(rate.burst * part) if table.headroom else rate.burst
    return Rate(rate.per_second * part, max(1, burst))
