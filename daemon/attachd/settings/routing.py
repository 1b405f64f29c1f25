"""Which chat gets what: ``[[rules]]`` and ``[otherwise]``, as the file has them."""

from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from attachd import schedules
from attachd.settings.fields import (
    DisplayNames,
    EventPath,
    Hour,
    Moment,
    Name,
    Names,
    Pattern,
    Seconds,
    Table,
    TimeZone,
    TopicArn,
    listed,
    tabled,
)

INITIAL_CONTACT: Final = "detail.initialContactId"


class Active(Table):
    """When a rule holds. What is left out does not matter."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)

    time_zone: TimeZone = Field(description="whose wall clock counts, such as Europe/Berlin")
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = Field(
        schedules.DAYS, min_length=1, description="days of the week"
    )
    hours: Annotated[tuple[Hour, ...], BeforeValidator(listed), Field(min_length=1)] = Field(
        ("00:00-24:00",),
        description="'09:00-17:00', or several; '22:00-06:00' goes through midnight and belongs to the day it begins on",
    )
    begins: Moment | None = Field(
        None, alias="from", description="from this moment on; local unless it says otherwise"
    )
    ends: Moment | None = Field(None, alias="until", description="before this moment")

    @model_validator(mode="after")
    def _some_time_passes(self) -> Self:
        window = self.window()
        if window.begins is not None and window.ends is not None and window.begins >= window.ends:
            raise ValueError("'until' is not after 'from'")
        return self

    def window(self) -> schedules.Window:
        """As the rules know it."""
        zone = schedules.time_zone(self.time_zone)

        def seconds(moment: datetime | None) -> float | None:
            if moment is None:
                return None
            return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()

        return schedules.Window(
            zone,
            frozenset(schedules.DAYS.index(day) for day in self.days),
            tuple(schedules.Hours.of(text) for text in self.hours),
            seconds(self.begins),
            seconds(self.ends),
        )


class Asked(Table):
    """Which chats a rule is for."""

    name: Name = Field(description="what logs call it")
    when: Pattern = Field('{"detail":{"channel":["CHAT"]}}', description="an EventBridge event pattern")
    active: Annotated[tuple[Active, ...], BeforeValidator(tabled)] = Field(
        (), description="only then, by the event's time: a table, or several"
    )
    percent: float = Field(
        100, ge=0, le=100, description="only so many of a hundred chats; the others go on to the next rule"
    )


class Decision(Table):
    """What a chat gets."""

    bot: Names = Field(
        (), description="one of [[bots]], or several: the first whose runtime is there and has a place"
    )
    split: dict[Name, Annotated[int, Field(ge=0, le=1_000_000)]] = Field(
        {}, description="bots and their weights: one is drawn, and goes before those of 'bot'"
    )
    no_bot: bool = Field(default=False, description="no bot, and no later rule is asked")
    sticky: EventPath = Field(
        INITIAL_CONTACT,
        description="the same value there, the same draw; where there is none, the chat's first contact counts",
    )
    salt: str | None = Field(
        None, description="keeps this rule's draws apart from others'; default: its name"
    )
    priority: int = Field(0, ge=-100, le=100, description="higher goes first when chats wait")
    attach_within: Seconds = Field(60, description="an event older than this gets no bot any more")
    fallback: Name | None = Field(
        None,
        description="one of [runtimes.…]: offered a participant that the bot's own runtime does not take",
    )
    include: tuple[Literal["guides", "transfers", "monitors", "disconnect_flows", "updates"], ...] = Field(
        (), description="kinds of contact that are left out otherwise: docs/rules.md"
    )
    display_name: DisplayNames = Field(
        {}, description="instead of the bot's: one, or by language: { de = 'Ava (Bot)', default = 'Ava' }"
    )
    language: EventPath = Field("detail.tags.language", description="where the chat's language tag stands")
    streaming_topic: TopicArn | None = Field(None, description="instead of the bot's")

    @model_validator(mode="after")
    def _says_what(self) -> Self:
        if self.no_bot and (self.bot or self.split):
            raise ValueError("'no_bot' beside 'bot' or 'split': one of them can be meant")
        if self.no_bot and self.fallback:
            raise ValueError("'fallback' beside 'no_bot': there is no participant to be offered")
        if not (self.no_bot or self.bot or self.split):
            raise ValueError("what does the chat get? Write 'bot', 'split' or 'no_bot = true'")
        if self.split and not any(self.split.values()):
            raise ValueError("'split' has no weight above 0")
        return self


class Rule(Decision, Asked):
    """Which bot for which chat; the first rule that matches decides."""


class Otherwise(Decision):
    """What a chat gets that no rule matches."""
