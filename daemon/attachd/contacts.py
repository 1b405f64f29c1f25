"""What an operator may ask of the journal, beside whoever serves from it: look, forget, have taken up again.

Writes are the journal's short conditional ones, as the daemon's are: of two that write at once one is told that it lost.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from attachd import lifecycle
from attachd.lifecycle import ALL, UNFINISHED, Entry, Stage, Wanted
from attachd.ports import Journal

_TRIES: Final = 5


class NotSo(Exception):
    """What was asked for cannot be; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a contact.

    Attributes:
        entry: what the journal keeps.
        age: seconds since its last change.
        alive: whether the process that has it in hand is at work; None if nobody has.
    """

    entry: Entry
    age: float
    alive: bool | None

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**asdict(self.entry), "age_seconds": round(self.age, 1), "owner_alive": self.alive}


async def known(journal: Journal, now: float, wanted: Wanted = ALL) -> list[Known]:
    """The contacts that are wanted, those that changed last at the end.

    Raises:
        Transient: the journal does not answer.
    """
    entries = [entry async for entry in journal.entries(wanted)]
    entries.sort(key=lambda entry: (entry.changed_at, entry.contact_id))
    return await _judged(journal, now, entries)


async def shown(journal: Journal, now: float, contact_id: str) -> Known:
    """One contact.

    Raises:
        NotSo: the journal does not know it.
        Transient: the journal does not answer.
    """
    return (await _judged(journal, now, [await _entry(journal, contact_id)]))[0]


async def _judged(journal: Journal, now: float, entries: Sequence[Entry]) -> list[Known]:
    at_work = await journal.at_work() if any(map(_in_hand, entries)) else frozenset()
    return [
        Known(entry, now - entry.changed_at, entry.owner in at_work if _in_hand(entry) else None)
        for entry in entries
    ]


def _in_hand(entry: Entry) -> bool:
    return entry.stage in UNFINISHED and entry.owner is not None


async def forget(journal: Journal, contact_id: str) -> Entry:
    """Forget a contact: its next event is served as if it were the first. What was forgotten.

    Raises:
        NotSo: the journal does not know it, or a process at work has it in hand.
        Transient: the journal does not answer.
    """
    for _ in range(_TRIES):
        entry = await _entry(journal, contact_id)
        if _in_hand(entry) and entry.owner in await journal.at_work():
            raise NotSo(f"contact {contact_id} is in the hand of {entry.owner}, which is at work")
        if await journal.forget(entry):
            return entry
    raise NotSo(f"contact {contact_id} changes all the time: it is being served")


async def retry(journal: Journal, contact_id: str, now: float) -> Entry:
    """Have whoever serves take the contact up again; one that was closed without a bot is opened first.

    Raises:
        NotSo: the journal does not know it, or there is nothing to be done for it any more.
        Transient: the journal does not answer.
    """
    for _ in range(_TRIES):
        entry = await _entry(journal, contact_id)
        if entry.stage in {Stage.HANDED_OFF, Stage.ENDED}:
            why = "a bot has it" if entry.stage is Stage.HANDED_OFF else f"it is over ({entry.reason})"
            raise NotSo(f"contact {contact_id} is {entry.stage}: {why}")
        if entry.instance_arn is None:
            raise NotSo(f"contact {contact_id} was recorded without its instance; wait for its next event")
        if entry.stage is Stage.CLOSED:
            opened = lifecycle.reopen(entry, now)
            if await journal.put(opened) != opened:
                continue
            entry = opened
        await journal.recall(contact_id)
        return entry
    raise NotSo(f"contact {contact_id} changes all the time: it is being served")


async def _entry(journal: Journal, contact_id: str) -> Entry:
    entry = await journal.get(contact_id)
    if entry is None:
        raise NotSo(f"the journal does not know contact {contact_id}")
    return entry
