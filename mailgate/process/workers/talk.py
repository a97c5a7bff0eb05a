# -*- test-case-name: mailgate.test.process.workers.test_messages -*-
"""
The messages by which workers pass on what they know of backends, and answer questions of the master.

Unlike all other messages, these contain data from the network: addresses of backends that an authentication service may
have named, and reasons with a backend's own words. So their sizes are bounded, their values are checked, and no process
acts on them beyond its knowledge of backends and its answer to an operator.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from mailgate.system.fields import flag, jsonValue, number, seconds, slotNumber, text, word

__all__ = ["LONGEST_ORDER", "LONGEST_REPORT", "OF_WORKERS", "Announce", "Query", "Reply"]

OF_WORKERS = frozenset(("capabilities", "rest", "verdict"))
"""
The topics of workers. Orders come from operators through the master alone: a worker that is taken over must not forge
them, because they outlast it.
"""

LONGEST_ORDER = 64 * 1024
"""Bytes of a message to a worker. The longest contains a notice."""

LONGEST_REPORT = 1024 * 1024
"""Bytes of a message from a worker. The longest contains a part of an answer."""

_LONGEST_KEY = 1024
_LONGEST_BODY = 16 * 1024
_LONGEST_ARGUMENTS = 4096
_LONGEST_ROWS = LONGEST_REPORT - 16 * 1024
_LONGEST_FAILURE = 1000


@frozen
class Announce:
    """
    A L{Notice<mailgate.upstream.notices.Notice>}. From a worker to the zygote, which passes it on to the master. From
    the master to each zygote, which keeps it for later workers and passes it on to those that run.

    @ivar topic: what it is about.
    @ivar key: the backend that it is about.
    @ivar body: a value of JSON; L{None} takes the earlier notice back.
    @ivar age: the seconds since it was published.
    @ivar slot: the number of the worker that has published it, if this is a worker of the receiver's generation. The
        worker itself receives it as a confirmation.
    """

    topic: str = word("[a-z]{1,32}")
    key: str = text(_LONGEST_KEY, isOneLine=True)
    body: Any = jsonValue(_LONGEST_BODY)
    age: float = seconds()
    slot: int | None = slotNumber()


@frozen
class Query:
    """
    Master to zygote, which passes it on to each worker: a question.

    @ivar id: the number of the question.
    @ivar word: what is asked: a name of L{QUERIES<mailgate.process.queries.QUERIES>}.
    @ivar arguments: the arguments, by name.
    """

    id: int = number()
    word: str = word("[a-z ]{1,40}")
    arguments: dict[str, Any] = jsonValue(_LONGEST_ARGUMENTS, dict)


@frozen
class Reply:
    """
    Worker to zygote, which passes it on to the master: a part of the answer to a L{Query}.

    @ivar id: the number of the question.
    @ivar rows: values of JSON.
    @ivar isLast: whether the answer is complete.
    @ivar failure: why the answer is incomplete; empty after a success.
    @ivar slot: the worker's number; L{None} from the worker itself.
    """

    id: int = number()
    rows: list[Any] = jsonValue(_LONGEST_ROWS, list)
    isLast: bool = flag()
    failure: str = text(_LONGEST_FAILURE)
    slot: int | None = slotNumber()
