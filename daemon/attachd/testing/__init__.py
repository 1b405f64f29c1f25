"""Public in-memory ports, and a line over them, for this project's tests and for yours."""

from attachd.testing.line import Line
from attachd.testing.ports import MemoryConnect, MemoryRuntime, MemorySource, MemoryTable
from attachd.testing.streams import MemoryLeases, MemoryStream

__all__ = [
    "Line",
    "MemoryConnect",
    "MemoryLeases",
    "MemoryRuntime",
    "MemorySource",
    "MemoryStream",
    "MemoryTable",
]
