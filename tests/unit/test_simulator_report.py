"""What the final report says of a run, figure by figure."""

from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from attachd.simulator.faults import Error
from attachd.simulator.flow import EnterQueue, Hold
from attachd.simulator.ledger import Ledger, report
from attachd.simulator.report import Report
from attachd.simulator.state.nouns import Call
from attachd.simulator.traffic.arrivals import Poisson
from attachd.simulator.traffic.plan import Traffic, Uniform
from unit.account import Account, Refused


@pytest.fixture
def aws() -> Account:
    return Account(rate=1000.0, burst=1000.0)


def told(aws: Account) -> Report:
    return report(aws.world, aws.now)


def counted(record: msgspec.Struct) -> dict[str, Any]:
    """What is not zero."""
    return {name: value for name, value in msgspec.to_builtins(record).items() if value}


def test_a_run_in_which_nothing_happened_has_a_report_of_zeros(aws: Account) -> None:
    empty = told(aws)
    assert counted(empty.chats) == counted(empty.create_participant) == {}
    assert empty.wait_for_bot.p50 is None


# ── chats ──────────────────────────────────────────────────────────────────────────────────────


def test_a_chat_is_on_time_once_its_bot_has_spoken(aws: Account) -> None:
    chat, _ = aws.chat()
    assert counted(told(aws).chats) == {"started": 1, "open": 1, "waiting": 1}
    aws.now += 2
    bot = aws.join(aws.bot_token(chat))
    assert counted(told(aws).chats) == {"started": 1, "open": 1, "attached": 1}
    aws.now += 1
    aws.say(bot)
    judged = told(aws)
    assert counted(judged.chats) == {"started": 1, "open": 1, "attached": 1, "on_time": 1}
    assert (judged.wait_for_bot.max, judged.wait_for_message.max) == (2, 3)


def test_a_customer_who_leaves_before_the_bot_has_spoken_makes_it_late(aws: Account) -> None:
    chat, customer = aws.chat()
    aws.join(aws.bot_token(chat))
    aws.leave(customer)
    assert counted(told(aws).chats) == {"started": 1, "ended": 1, "attached": 1, "late": 1, "gave_up": 1}


def test_a_chat_that_ended_without_a_bot_never_had_one(aws: Account) -> None:
    chat, customer = aws.chat()
    aws.create(chat)  # a bot that does not connect is none
    aws.leave(customer)
    other, _ = aws.chat()
    aws.stop(other)
    assert counted(told(aws).chats) == {"started": 2, "ended": 2, "never": 2, "gave_up": 1}


def test_a_chat_without_a_customer_is_owed_no_bot(aws: Account) -> None:
    aws.stop(aws.start()["ContactId"])
    aws.start()
    assert counted(told(aws).chats) == {"started": 2, "open": 1, "ended": 1, "no_customer": 2}


def test_a_bot_that_came_before_the_customer_kept_nobody_waiting(aws: Account) -> None:
    started = aws.start()
    aws.say(aws.join(aws.bot_token(started["ContactId"])))
    aws.now += 4
    aws.connect(started["ParticipantToken"])
    judged = told(aws)
    assert judged.chats.on_time == 1
    assert judged.wait_for_bot.max == judged.wait_for_message.max == 0


def test_two_bots_of_one_contact_are_told_though_one_came_after_the_other(aws: Account) -> None:
    chat, _ = aws.chat()
    for _ in range(2):
        bot = aws.join(aws.bot_token(chat))
        aws.say(bot)
        aws.leave(bot)
    judged = told(aws).chats
    assert (judged.twice, judged.two_at_once) == (1, 0)


def test_two_bots_that_spoke_at_the_same_time_are_told(aws: Account) -> None:
    """No rule of the simulator allows it; the report must not rely on that."""
    chat, _ = aws.chat()
    contact = aws.world.contacts[chat]
    aws.say(aws.join(aws.bot_token(chat)))
    second = aws.world.add(contact, "CUSTOM_BOT", "Eve", aws.now)
    assert (told(aws).chats.twice, told(aws).chats.two_at_once) == (0, 0)
    aws.now += 1
    aws.say(aws.join(second.token))
    assert (told(aws).chats.twice, told(aws).chats.two_at_once) == (1, 1)


def test_a_chat_with_its_transfers_is_one_and_a_bot_for_each_contact_is_not_twice(aws: Account) -> None:
    chat, _ = aws.chat()
    aws.say(aws.join(aws.bot_token(chat)))
    aws.control(chat, "queue")
    following = aws.control(chat, "transfer")["contact_id"]
    aws.say(aws.join(aws.bot_token(following)))
    judged = told(aws).chats
    assert counted(judged) == {"started": 1, "open": 1, "attached": 1, "on_time": 1}


def test_a_persistent_chat_is_another_and_what_was_said_before_is_not_its_bots_word(aws: Account) -> None:
    chat, customer = aws.chat()
    aws.say(aws.join(aws.bot_token(chat)))
    aws.leave(customer)
    again = aws.start(PersistentChat={"RehydrationType": "ENTIRE_PAST_SESSION", "SourceContactId": chat})
    aws.connect(again["ParticipantToken"])
    aws.join(aws.bot_token(again["ContactId"]))
    judged = told(aws).chats
    assert (judged.started, judged.attached, judged.on_time) == (2, 2, 1)


# ── calls ──────────────────────────────────────────────────────────────────────────────────────


def test_every_call_of_create_participant_has_its_outcome() -> None:
    aws = Account(rate=1.0, burst=7.0)
    (good, _), (slow, _), (gone, _), (held, _) = (aws.chat() for _ in range(4))
    aws.join(aws.bot_token(good, ClientToken="a"))
    aws.create(good, ClientToken="a")  # replayed
    aws.create(slow)  # lets its time pass
    aws.control(held, "agent")
    aws.stop(gone)
    aws.now += 0.1
    for chat in (gone, held, "nobody's"):  # after the end, refused, refused
        with pytest.raises(Refused):
            aws.create(chat)
    aws.now += 15
    assert counted(told(aws).create_participant)["never_connected"] == 1
    for _ in range(8):  # the first is refused for the bot that is there
        with pytest.raises(Refused):
            aws.create(good)
    calls, quota = told(aws).create_participant, told(aws).quota
    assert counted(calls) == {
        "calls": 14,
        "created": 2,
        "connected": 1,
        "never_connected": 1,
        "replayed": 1,
        "throttled": 1,
        "after_the_end": 1,
        "refused": 9,
    }
    assert told(aws).wasted == calls.wasted == 13
    assert (quota.rate, quota.burst, quota.granted, round(quota.ideal, 6)) == (1, 7, 13, 22.1)


def test_an_answer_5xx_is_a_failure_and_a_bot_it_made_is_no_replay(aws: Account) -> None:
    chat, _ = aws.chat()
    aws.create(chat, ClientToken="a")
    aws.world.calls[-1] = Call("CreateParticipant", aws.now, 500, "InternalServiceException", chat)
    aws.create(chat, ClientToken="a")
    assert counted(told(aws).create_participant) == {"calls": 2, "created": 1, "failed": 1}


def test_a_replay_counts_though_a_fault_lost_the_first_answer() -> None:
    aws = Account(faults=(Error(when="after", operations=("CreateParticipant",), tries=(1,)),))
    chat, _ = aws.chat()
    with pytest.raises(Refused):
        aws.create(chat, ClientToken="a")
    aws.create(chat, ClientToken="a")
    assert counted(told(aws).create_participant) == {"calls": 2, "created": 1, "failed": 1, "replayed": 1}


def test_waits_are_by_nearest_rank(aws: Account) -> None:
    for seconds in range(1, 101):
        chat, _ = aws.chat()
        aws.now += seconds
        aws.join(aws.bot_token(chat))
    waits = told(aws).wait_for_bot
    assert (waits.count, waits.p50, waits.p90, waits.p99, waits.max) == (100, 50, 90, 99, 100)


# ── the law ────────────────────────────────────────────────────────────────────────────────────

HANDS = st.sampled_from(["bot", "bot", "bot", "say", "leave", "queue", "agent", "transfer", "end"])


@settings(max_examples=60)
@given(st.lists(st.tuples(HANDS, st.integers(0, 30), st.floats(0, 6), st.booleans()), max_size=80))
@example([("agent", 0, 5.0, False), ("bot", 0, 0.0, True), ("transfer", 0, 0.0, False)])  # all in one instant
def test_a_ledger_that_was_looked_at_on_the_way_says_what_a_fresh_one_says(
    script: list[tuple[str, int, float, bool]],
) -> None:
    """And its verdicts add up."""
    aws = Account(rate=1.0, burst=4.0, flow=(Hold(60), EnterQueue(agent_after_seconds=5)))
    aws.api.play(Traffic(Poisson(1), chats=15, patience=Uniform(1, 20), never_connects=0.1), aws.now)
    ledger, bearers = Ledger(aws.world), list[str]()
    for verb, which, seconds, look in script:
        aws.pass_time(seconds)
        chats = list(aws.world.contacts)
        try:
            if not chats:
                continue
            if verb == "bot":
                bearers.append(aws.join(aws.bot_token(chats[which % len(chats)], ClientToken=str(which % 3))))
            elif verb in {"say", "leave"}:
                if bearers:
                    getattr(aws, verb)(bearers[which % len(bearers)])
            else:
                aws.control(chats[which % len(chats)], verb)
        except Refused:
            pass
        if look:
            ledger.report(aws.now)
    aws.pass_time(100)
    told = ledger.report(aws.now)
    assert told == report(aws.world, aws.now)
    chats_told, calls = told.chats, told.create_participant
    assert chats_told.started == chats_told.open + chats_told.ended
    pending = chats_told.attached - chats_told.on_time - chats_told.late
    assert pending >= 0
    assert (
        chats_told.started
        == chats_told.no_customer + chats_told.attached + chats_told.waiting + chats_told.never
    )
    assert calls.calls == sum(
        (calls.created, calls.replayed, calls.throttled, calls.failed, calls.after_the_end, calls.refused)
    )
    assert calls.wasted <= calls.calls
