"""choose, if a rule cannot tell without them: the contact's user attributes, which no event holds.

Read once a contact, with a token of their own quota (GetContactAttributes), and remembered for as long as the chat's other
opening event may take; whoever asks meanwhile waits for the answer under way.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

import anyio

from attachd.instances import Instance
from attachd.model import Contact
from attachd.retry import Backoff, retrying

_API: Final = "GetContactAttributes"
_BACKOFF: Final = Backoff(first=0.2, cap=2.0)
_REMEMBERED_SECONDS: Final = 300.0
_REMEMBERED: Final = 1_000  # contacts; each has up to 32 KB (admin guide, "Connect Customer service quotas")


@dataclass(frozen=True, slots=True)
class _Read:
    attributes: Mapping[str, str]
    at: float


class Attributes:
    """What has been read of late.

    Args:
        dice: jitter.
    """

    def __init__(self, dice: Random) -> None:
        self._dice = dice
        self._read: OrderedDict[tuple[str, str], _Read] = OrderedDict()
        self._reading: dict[tuple[str, str], anyio.Event] = {}

    async def of(
        self, instance: Instance, contact: Contact, *, priority: int, since: float, until: float
    ) -> Mapping[str, str]:
        """The contact's attributes: those of its chat, which all its segments share.

        Args:
            instance: where it is.
            contact: whose.
            priority: higher goes first, when there are more than the quota allows.
            since: the contact's age is counted from here.
            until: tries end here, on the event loop's clock.

        Raises:
            Permanent: Connect does not know the contact; or it left, or ran out of patience, while it waited.
            Transient: they cannot be read now.
        """
        key = instance.arn, contact.initial_id
        while (under_way := self._reading.get(key)) is not None:
            await under_way.wait()
        known = self._read.get(key)
        if known is not None and anyio.current_time() < known.at + _REMEMBERED_SECONDS:
            return known.attributes
        done = self._reading[key] = anyio.Event()

        async def one_try() -> Mapping[str, str]:
            room = instance.rooms[_API]
            await room.admit(contact.id, gates=(), priority=priority, since=since, until=until)
            with room.spending():
                return await instance.attacher.read_attributes(contact.instance_id, contact.initial_id)

        try:
            found = await retrying(one_try, backoff=_BACKOFF, until=until, dice=self._dice)
        finally:
            del self._reading[key]
            done.set()
        self._read[key] = _Read(found, anyio.current_time())
        self._read.move_to_end(key)
        while len(self._read) > _REMEMBERED:
            self._read.popitem(last=False)
        return found

    def forget(self, contact: Contact) -> None:
        """They may have changed."""
        self._read.pop((contact.instance_arn, contact.initial_id), None)
