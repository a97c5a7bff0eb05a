# -*- test-case-name: mailgate.test.process.workers.test_messages -*-
"""
The messages between the master, the zygote of the keeper and the keeper, besides those that it shares with workers.

They contain operators' words only, no user names and no addresses of clients. These travel over the keeper's socket.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from attrs import Factory, field, frozen

from mailgate.system.fields import flag, jsonValue, number, slotNumber, text, word

__all__ = [
    "LONGEST_ANSWER",
    "ORPHANED_FOR",
    "Configure",
    "Duty",
    "Event",
    "Instruct",
    "NotStarted",
    "Request",
    "Result",
    "Taken",
]

LONGEST_ANSWER = 512 * 1024
"""Bytes of the JSON of an answer to an operator."""

ORPHANED_FOR = 30.0
"""Seconds that a keeper whose zygote has died waits for the next keeper."""

_LONGEST_ARGUMENTS = 4096
_LONGEST_LABELS = 1024
_LONGEST_REASONS = 32_768
_LONGEST_REASON = 4000


class Duty(str, Enum):
    """What one keeper has to do."""

    SERVE = "serve"
    """Accept members and clients; no earlier keeper runs any more."""
    TAKE_OVER = "take over"
    """Accept them. An earlier keeper, which still runs, hands its state over."""
    HAND_OVER = "hand over"
    """Stop accepting, hand the state over to the keeper that accepts now, and exit."""


@frozen
class Configure:
    """
    Master to zygote: a new configuration, for the keepers that are forked from now on.

    @ivar file: the path of the configuration.
    @ivar text: the text of the configuration.
    """

    file: str = text()
    text: str = text()


@frozen
class Instruct:
    """
    Master to zygote, which passes it on to one keeper: what it has to do.

    @ivar duty: its duty.
    @ivar slot: the number of the keeper.
    """

    duty: Duty = field(converter=Duty)
    slot: int = number()


@frozen
class NotStarted:
    """
    Keeper to zygote, which passes it on to the master: it cannot start, and exits.

    @ivar reason: why, with a line for each error.
    @ivar slot: the number of the keeper; L{None} from the keeper itself.
    """

    reason: str = text(_LONGEST_REASON)
    slot: int | None = slotNumber()


@frozen
class Taken:
    """
    Keeper to zygote, which passes it on to the master: its predecessor has handed over, is gone, or is late.

    @ivar slot: the number of the keeper; L{None} from the keeper itself.
    """

    slot: int | None = slotNumber()


@frozen
class Event:
    """
    Master to zygote, which passes it on to each keeper: something has happened that metrics count.

    @ivar name: the name of a metric (L{mailgate.watch.metrics}).
    @ivar labels: the values of its labels.
    @ivar reasons: why it has happened.
    """

    name: str = word("[a-z_]{1,80}")
    labels: list[Any] = jsonValue(_LONGEST_LABELS, list)
    reasons: list[Any] = jsonValue(_LONGEST_REASONS, list, Factory(list))


@frozen
class Request:
    """
    Keeper to zygote, which passes it on to the master: an operator's order.

    @ivar id: the number of the request.
    @ivar command: a name of L{COMMANDS<mailgate.process.commands.COMMANDS>}.
    @ivar arguments: the arguments, by name.
    @ivar slot: the number of the keeper; L{None} from the keeper itself.
    """

    id: int = number()
    command: str = word("[a-z ]{1,40}")
    arguments: dict[str, Any] = jsonValue(_LONGEST_ARGUMENTS, dict)
    slot: int | None = slotNumber()


@frozen
class Result:
    """
    Master to zygote, which passes it on to one keeper: the answer to a L{Request}.

    @ivar id: the number of the request.
    @ivar slot: the number of the keeper.
    @ivar done: whether the order was carried out.
    @ivar answer: the fields of the L{Answer<mailgate.process.answer.Answer>}.
    """

    id: int = number()
    slot: int = number()
    done: bool = flag()
    answer: dict[str, Any] = jsonValue(LONGEST_ANSWER, dict)
