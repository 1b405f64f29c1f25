"""attachd as a process that dies at a given await of a delivery: forked from one that has everything imported.

Reads a JSON document a line on standard input, forks for each a child that is attachd, and writes one for each child that
has ended. A delivery is a task; each await at which it is suspended is two points: right after it has been
suspended, with whatever it sent on its way and no answer yet, and right before it goes on, with the answer there and
nothing done about it. The child kills itself there, with SIGKILL; nothing of it runs any more.
"""

import asyncio
import json
import os
import selectors
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import anyio

from attachd import logs, settings, wiring

Side = Literal["suspended", "resumed"]


@dataclass
class Steps(Coroutine[Any, Any, Any]):
    """A delivery's coroutine, step by step."""

    inner: Coroutine[Any, Any, Any]
    die: Callable[[int, Side], None]
    taken: int = 0

    def send(self, value: Any) -> Any:
        self.taken += 1
        self.die(self.taken, "resumed")
        found = self.inner.send(value)
        self.die(self.taken, "suspended")
        return found

    def throw(self, *error: Any) -> Any:
        return self.inner.throw(*error)

    def close(self) -> None:
        self.inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield from self.inner.__await__())


def _is_delivery(coroutine: Any) -> bool:
    """Whether it is the service's coroutine for one delivery, which anyio has wrapped in one of its own."""
    frame = getattr(coroutine, "cr_frame", None)
    told = list(frame.f_locals.values()) if frame is not None else []
    told += [each._coro for each in told if hasattr(each, "_coro")]
    return any("Service._see_through" in str(getattr(each, "__qualname__", "")) for each in told)


async def _serve(config: settings.Settings, at: int, side: Side | None, count: int) -> None:
    """Be attachd; die there, or tell how many steps its first delivery took."""
    deliveries: list[Steps] = []

    def die(step: int, on: Side) -> None:
        if (step, on) == (at, side):
            os.kill(os.getpid(), signal.SIGKILL)

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
        if _is_delivery(coroutine):
            coroutine = Steps(coroutine, die if not deliveries else lambda *_: None)
            deliveries.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **more)

    asyncio.get_running_loop().set_task_factory(factory)
    await wiring.run(config)
    os.write(count, json.dumps(deliveries[0].taken if deliveries else 0).encode())


def _child(order: dict[str, Any], count: int) -> None:
    log = os.open(f"{order['logs']}/{os.getpid()}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(order["environment"])
    config = settings.load(Path(order["config"]))
    source = config.source
    assert source is not None
    # Shorter than may be configured: what is held here is that the event comes back, not how soon.
    config = config.model_copy(
        update={"source": source.model_copy(update={"visibility": order["visibility"]})}
    )
    logs.configure("info", "json")
    anyio.run(_serve, config, order.get("at", 0), order.get("side"), count)


def _forked(order: dict[str, Any]) -> tuple[int, int]:
    """A child's id, and where it tells what it counted: at its end that is closed."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        status = 1
        try:
            os.close(read)
            _child(order, write)
            status = 0
        except BaseException:  # noqa: BLE001 - it is told in its log, and the parent sees the status
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write)
    return child, read


def _tell(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _main() -> None:
    """No event loop and no thread here: a child must begin with neither."""
    at_work = selectors.DefaultSelector()
    at_work.register(sys.stdin, selectors.EVENT_READ)
    while True:
        for key, _ in at_work.select():
            if key.data is None:
                if not (line := os.read(0, 65_536)):
                    return
                for one in line.splitlines():
                    order = json.loads(one)
                    child, read = _forked(order)
                    at_work.register(read, selectors.EVENT_READ, (order["name"], child))
                    _tell(name=order["name"], started=child)
            else:
                name, child = key.data
                steps = os.read(key.fd, 100)
                at_work.unregister(key.fd)
                os.close(key.fd)
                ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                _tell(name=name, ended=ended, steps=json.loads(steps or b"null"))


if __name__ == "__main__":
    _main()
