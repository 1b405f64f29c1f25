"""A span a delivery."""

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from attachd import traces
from attachd.errors import Misconfigured

LINE = {"outcome": "attached", "reason": "rule 'chat'", "contact": "c-1", "total_ms": 250.0, "settled": True}


def test_a_canonical_line_becomes_a_span_of_its_length_with_its_fields() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traces.spans(provider)(LINE)
    traces.spans(provider)(LINE | {"outcome": "unserved", "reason": "nobody took it"})
    good, bad = exporter.get_finished_spans()
    assert good.name == "delivery"
    assert good.start_time is not None
    assert good.end_time is not None
    assert good.end_time - good.start_time == 250_000_000
    assert good.attributes is not None
    assert good.attributes["attachd.contact"] == "c-1"
    assert good.status.is_ok
    assert not bad.status.is_ok
    assert bad.status.description == "nobody took it"


def test_nothing_is_exported_unless_an_endpoint_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)  # nor is the extra needed
    line = LINE.copy()
    with traces.exporting({}) as trace:
        trace(line)
    assert line == LINE


def test_an_endpoint_without_the_extra_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with (
        pytest.raises(Misconfigured, match=r"attachd\[otel\]"),
        traces.exporting({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}),
    ):
        pass


@pytest.fixture
def collector() -> Iterator[tuple[str, list[str]]]:
    seen: list[str] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()
        thread.join()


def test_what_is_unsent_at_the_end_is_sent(
    collector: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, seen = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    with traces.exporting() as trace:
        trace(LINE)
    assert seen == ["/v1/traces"]
