"""Where in a TOML text a key stands. `tomllib` does not tell, so it is asked: with a line more each time."""

import tomllib
from collections.abc import Mapping
from typing import Any

Path = tuple[str | int, ...]


def line_of(text: str, path: Path) -> int:
    """Return the number of the line, from 1, on which the value at this path begins, or what is there of its path.

    `text` is well-formed. Its first lines up to some line are either well-formed, too, or end within a value.
    """
    lines = text.splitlines(keepends=True)
    while path and not _has(tomllib.loads(text), path):
        path = path[:-1]
    begins = 1
    for number in range(1, len(lines) + 1):
        try:
            so_far = tomllib.loads("".join(lines[:number]))
        except tomllib.TOMLDecodeError:
            continue
        if _has(so_far, path):
            return begins
        begins = number + 1
    return begins


def _has(document: Any, path: Path) -> bool:
    for step in path:
        if isinstance(step, int):
            if not isinstance(document, list) or step >= len(document):
                return False
        elif not isinstance(document, Mapping) or step not in document:
            return False
        document = document[step]
    return True
