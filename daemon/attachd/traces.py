"""A span a delivery, for whoever collects traces: the canonical line again, with a beginning and an end.

Off unless the ``otel`` extra is installed and OpenTelemetry's own environment names an endpoint
(``OTEL_EXPORTER_OTLP_ENDPOINT`` or ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT``). Everything else is set by that
environment too: attachd adds no way of its own.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from attachd.disposition import severity
from attachd.errors import Misconfigured
from attachd.model import Outcome

Trace = Callable[[Mapping[str, Any]], None]

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@contextmanager
def exporting(environ: Mapping[str, str] = os.environ) -> Iterator[Trace]:
    """A function that takes canonical lines, until the end, when what is still unsent is sent.

    Raises:
        Misconfigured: an endpoint is named and the extra is not installed.
    """
    if not any(environ.get(name) for name in _ENDPOINTS):
        yield lambda _: None
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - an extra
    except ImportError:
        raise Misconfigured(
            ["OTEL_EXPORTER_OTLP_ENDPOINT is set, but the extra is missing: pip install 'attachd[otel]'"]
        ) from None
    provider = TracerProvider(resource=Resource.create({"service.name": "attachd"}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield spans(provider)
    finally:
        provider.shutdown()


def spans(provider: Any) -> Trace:
    """Turns canonical lines into spans of an OpenTelemetry ``TracerProvider``."""
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - an extra

    tracer = provider.get_tracer("attachd")

    def trace(line: Mapping[str, Any]) -> None:
        ended = time.time_ns()
        span = tracer.start_span(
            "delivery",
            start_time=ended - int(line["total_ms"] * 1e6),
            attributes={f"attachd.{key}": value for key, value in line.items()},
        )
        if severity(Outcome(line["outcome"])) != "info":
            span.set_status(Status(StatusCode.ERROR, line["reason"]))
        span.end(end_time=ended)

    return trace
