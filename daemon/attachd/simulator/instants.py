"""Seconds since the epoch in the forms AWS writes them. Nothing here reads a clock."""

from datetime import UTC, datetime
from email.utils import format_datetime


def iso_milliseconds(at: float) -> str:
    """Write `2026-01-31T09:30:00.125Z`: Participant Service items, credentials' Expiry, event details."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def iso_seconds(at: float) -> str:
    """Write `2026-01-31T09:30:00Z`: the EventBridge envelope."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def compact(at: float) -> str:
    """Write `20260131T093000Z`: Signature Version 4."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y%m%dT%H%M%SZ")


def http_date(at: float) -> str:
    """Write `Sat, 31 Jan 2026 09:30:00 GMT`: HTTP's Date header."""
    return format_datetime(datetime.fromtimestamp(at, UTC), usegmt=True)


def from_iso(text: str) -> float:
    """Read ISO 8601, UTC unless it says otherwise; raises ValueError."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
