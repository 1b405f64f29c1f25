"""Every outcome has one disposition, and it is this one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attachd.disposition import dispose, severity
from attachd.model import Acknowledge, Outcome, Quarantine, Release

RELEASED = {Outcome.DEFERRED, Outcome.FAILED, Outcome.INTERRUPTED}
QUARANTINED = {Outcome.NOT_JSON, Outcome.NOT_A_CONTACT_EVENT, Outcome.TOO_LARGE, Outcome.NO_CONTACT_ID}


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_has_exactly_one_disposition(outcome: Outcome) -> None:
    disposition = dispose(outcome, "why", None, release_seconds=5.0)
    expected = Release if outcome in RELEASED else Quarantine if outcome in QUARANTINED else Acknowledge
    assert type(disposition) is expected


@pytest.mark.parametrize("outcome", [Outcome.DEFERRED, Outcome.FAILED])
@given(after=st.none() | st.floats(0, 1e6), default=st.floats(0, 1e6))
def test_what_failed_stays_away_as_long_as_it_was_told_or_the_default(
    outcome: Outcome, after: float | None, default: float
) -> None:
    expected = default if after is None else after
    assert dispose(outcome, "", after, release_seconds=default) == Release(expected)


def test_told_to_come_back_at_once_is_at_once_and_not_the_default() -> None:
    assert dispose(Outcome.DEFERRED, "", 0.0, release_seconds=5.0) == Release(0.0)


def test_what_a_drain_interrupts_is_free_for_another_consumer_at_once() -> None:
    assert dispose(Outcome.INTERRUPTED, "", 30.0, release_seconds=5.0) == Release(0.0)


@pytest.mark.parametrize("outcome", sorted(QUARANTINED))
def test_a_quarantined_body_keeps_its_reason(outcome: Outcome) -> None:
    assert dispose(outcome, "the reason", None, release_seconds=5.0) == Quarantine("the reason")


def test_what_may_cost_a_chat_its_bot_is_never_below_a_warning() -> None:
    quiet = {outcome for outcome in Outcome if severity(outcome) == "info"}
    assert quiet == {
        Outcome.ATTACHED,
        Outcome.DUPLICATE,
        Outcome.NO_BOT,
        Outcome.NOTED,
        Outcome.IGNORED,
        Outcome.UNKNOWN_TYPE,
        Outcome.ENDED,
        Outcome.QUEUED,
        Outcome.AGENT_JOINED,
        Outcome.INTERRUPTED,
    }
    assert severity(Outcome.FAILED) == "error"
