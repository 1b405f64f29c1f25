"""Probes and metrics over real sockets."""

import socket

import aiohttp
import pytest

from attachd.errors import Misconfigured
from attachd.health import serving
from attachd.metrics import Metrics

pytestmark = pytest.mark.real_time


class Service:
    """What the probes ask about."""

    def __init__(self) -> None:
        self.stalled: list[str] = []
        self.trouble: list[str] = []
        self.metrics = Metrics()


async def _get(service: Service, *paths: str, listen: str = "127.0.0.1:0") -> list[tuple[int, str, str]]:
    answers = []
    async with (
        serving(
            listen,
            stalled=lambda: service.stalled,
            trouble=lambda: service.trouble,
            metrics=service.metrics,
        ) as address,
        aiohttp.ClientSession() as client,
    ):
        for path in paths:
            async with client.get(address + path) as response:
                answers.append((response.status, await response.text(), response.content_type))
    return answers


async def test_a_service_that_gets_on_and_takes_chats_is_alive_and_ready() -> None:
    assert await _get(Service(), "/healthz", "/readyz") == [(200, "ok\n", "text/plain")] * 2


async def test_the_tasks_that_do_not_get_on_are_named() -> None:
    service = Service()
    service.stalled = ["journal", "pull sqs"]
    (alive, ready) = await _get(service, "/healthz", "/readyz")
    assert alive[:2] == (503, "journal does not get on\npull sqs does not get on\n")
    assert ready[0] == 200


async def test_why_no_chats_are_taken_is_said() -> None:
    service = Service()
    service.trouble = ["draining: no new chats are taken", "source sqs: ü not polled yet"]
    (alive, ready) = await _get(service, "/healthz", "/readyz")
    assert alive[0] == 200
    assert ready[:2] == (503, "draining: no new chats are taken\nsource sqs: ü not polled yet\n")


async def test_metrics_are_prometheus_text() -> None:
    service = Service()
    service.metrics.received.labels("sqs").inc(3)
    ((status, body, kind),) = await _get(service, "/metrics")
    assert (status, kind) == (200, "text/plain")
    assert 'attachd_deliveries_received_total{source="sqs"} 3.0\n' in body


async def test_anything_else_is_not_found() -> None:
    assert [status for status, _, _ in await _get(Service(), "/nothing", "/metrics/more")] == [404, 404]


async def test_a_port_in_use_is_a_misconfiguration_that_names_it() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(Misconfigured) as refusal:
            await _get(Service(), listen=listen)
    (problem,) = refusal.value.problems
    assert problem.startswith(f"[health] listen {listen}: ")
    assert "another process listens there" in problem
    assert "ATTACHD_HEALTH__LISTEN=" in problem


@pytest.mark.parametrize("listen", ["192.0.2.1:0", "no.such.host.invalid:0", f"{'x' * 70}:0"])
async def test_an_address_that_is_not_ours_is_a_misconfiguration(listen: str) -> None:
    with pytest.raises(Misconfigured, match="listen"):
        await _get(Service(), listen=listen)


async def test_the_port_is_free_again_afterwards() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{probe.getsockname()[1]}"
    await _get(Service(), "/healthz", listen=listen)
    await _get(Service(), "/healthz", listen=listen)


def _ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _ipv6(), reason="no IPv6 here")
async def test_an_ipv6_address_is_listened_on_and_given_as_a_url() -> None:
    assert (await _get(Service(), "/healthz", listen="[::1]:0"))[0][0] == 200
