"""Chance that stays: which share of the chats a rule is for, and which bot each of them gets.

Arithmetic on text, no dice: the same salt and key draw the same number on every machine and after every restart. What
keys are, and what is done with the numbers, is ``rules``'s business. The vectors in docs/rules.md hold it to that.

A bot is chosen by weighted rendezvous: each draws a number for the key, and the one with the most luck for its weight
wins (Thaler and Ravishankar's highest random weight, with a logarithm for the weights). So a bot whose weight grows
only wins keys and loses none, and the others exchange none among themselves. Whether a key is in at all is drawn apart
from that, so that the share has no say in who wins.
"""

from collections.abc import Mapping
from hashlib import sha256
from math import log

_BITS = 52  # as many as leave room for the half in a double


def draw(salt: str, what: str, key: str) -> float:
    r"""A number above 0 and below 1, as good as chance.

    The first 52 bits of the SHA-256 of ``SALT\nWHAT\nKEY`` in UTF-8 as an integer, plus a half, over 2**52.
    """
    digest = sha256(f"{salt}\n{what}\n{key}".encode("utf-8", "surrogatepass")).digest()
    return ((int.from_bytes(digest[:8], "big") >> (64 - _BITS)) + 0.5) / (1 << _BITS)


def within(percent: float, salt: str, key: str) -> bool:
    """Whether the key is among so many of a hundred. Who is stays, when there are more."""
    return draw(salt, "percent", key) * 100 < percent


def winner(weights: Mapping[str, int], salt: str, key: str) -> str:
    """Which of the names the key falls to: each as often as its weight says.

    Args:
        weights: at least one above 0. Their order does not matter.
        salt: keeps one split apart from another.
        key: what is to stay with its name.
    """
    lots = {name: -log(draw(salt, f"bot {name}", key)) / weight for name, weight in weights.items() if weight}
    return min(lots, key=lambda name: (lots[name], name))
