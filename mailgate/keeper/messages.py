# -*- test-case-name: mailgate.test.keeper.test_messages -*-
"""
The messages on the keeper's socket. A message is one line of JSON, in ASCII, of a known kind and with exactly the
fields of this kind.

A process that serves clients (a member) begins with L{Hello}, a keeper that hands over with L{Handover}. Both contain
the version of these messages, so that a keeper refuses what it does not understand: after an upgrade, processes of two
releases talk to each other. User names and addresses of clients travel here, and nowhere else between processes.

The messages of limits (L{Check}, L{Judged}, L{Record}, L{News}) follow only if the member has answered the question
L{LIMITS}. Releases without limits answer it with a failure, so that they never receive such a message. Likewise
L{Sessions} follow only after the question L{REGISTRY}, which a keeper with a store asks. It is the same with those of
L{mailgate.keeper.placemessages}.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, TypeAlias

from attrs import field, fields, frozen
from attrs.validators import and_, instance_of, max_len, optional

from mailgate._version import __version__
from mailgate.keeper.placemessages import Place, Placed, Seat
from mailgate.system.fields import checkDepth, flag, isNumber, jsonValue, number, text, word

__all__ = [
    "FROM_KEEPERS",
    "FROM_OTHERS",
    "LIMITS",
    "LIMITS_VERSION",
    "LONGEST_HANDOVER",
    "LONGEST_ORDER",
    "LONGEST_REPORT",
    "MOST_MEMBERS",
    "NAME",
    "REGISTRY",
    "REGISTRY_VERSION",
    "ROWS_A_PART",
    "STORIES_A_REPORT",
    "VERSION",
    "Ask",
    "Check",
    "Enough",
    "Handover",
    "Hello",
    "Judged",
    "Message",
    "Move",
    "Moved",
    "News",
    "OtherVersion",
    "Part",
    "Received",
    "Record",
    "Refused",
    "Report",
    "Sessions",
    "Welcome",
    "WireError",
    "decode",
    "encode",
]

VERSION = 1
"""The version of the messages. A process that speaks another one is refused."""

LIMITS = "limits"
"""The question with which a keeper offers to judge logins."""

LIMITS_VERSION = 1
"""The version of the messages of limits. A member answers L{LIMITS} with it, or with a failure."""

REGISTRY = "registry"
"""The question with which a keeper wants to hear of sessions that begin and end."""

REGISTRY_VERSION = 2
"""The version of L{Sessions}. A member answers L{REGISTRY} with it, or with a failure."""

LONGEST_ORDER = 64 * 1024
"""Bytes of a message from a keeper."""

LONGEST_REPORT = 1024 * 1024
"""Bytes of a message to a keeper."""

LONGEST_HANDOVER = 128 * 1024
"""Characters of the state in one message. As JSON they may need six times as many bytes."""

ROWS_A_PART = 200
"""Rows in one part of an answer."""

STORIES_A_REPORT = 100
"""Stories in one report."""

MOST_MEMBERS = 1000
"""Names in a handover."""

NAME = r"[0-9A-Za-z._-]{1,64}"
"""What the name of a member looks like."""

_WORD = "[a-z_ ]{1,40}"
_LONGEST_ARGUMENTS = 16 * 1024
_LONGEST_REASON = 1000
_FIELDS_OF_LIMITS = 16


class WireError(Exception):
    """A received line is not a valid message, or a message to send is too long."""


class OtherVersion(WireError):
    """The other process speaks another version of these messages."""


def _list(most: int) -> Any:
    """A list of values of JSON. The length of the line bounds its size: checking that again would double the work."""

    def check(instance: Any, attribute: Any, value: Any) -> None:
        if type(value) is not list or len(value) > most:
            raise ValueError(f"{attribute.name} is no list, or too long")
        checkDepth(value)

    return field(validator=check, repr=False)


def _totals() -> Any:
    """L{Totals<mailgate.watch.tally.Totals>}, which L{mailgate.keeper.sums.readValues} checks, or L{None}."""

    def check(instance: Any, attribute: Any, value: Any) -> None:
        checkDepth(value)

    return field(validator=and_(optional(instance_of(dict)), check), repr=False)


def _names() -> Any:
    """A tuple of names of members; a list becomes one."""

    def check(instance: Any, attribute: Any, value: Any) -> None:
        if not all(isinstance(each, str) and len(each) <= 64 for each in value):
            raise ValueError(f"{attribute.name} has something else than names")

    return field(
        converter=lambda value: tuple(value) if isinstance(value, list) else value,
        validator=and_(instance_of(tuple), max_len(MOST_MEMBERS), check),
    )


@frozen
class Hello:
    """
    The first message of a process that serves clients.

    @ivar member: its name, the beginning of its session ids.
    @ivar pid: its process id.
    @ivar slot: its number among the workers, from 0.
    @ivar version: of these messages.
    @ivar release: of mailgate.
    """

    member: str = word(NAME)
    pid: int = number(1)
    slot: int = number()
    version: int = field(default=VERSION, validator=isNumber(1))
    release: str = field(default=__version__, validator=and_(instance_of(str), max_len(40)))


@frozen
class Report:
    """
    Member to keeper: what it has counted.

    @ivar totals: its counters and histograms from its start on, and its gauges; L{None} if this report has only
    stories.
    @ivar stories: the stories of connections and logins that have ended since its last report.
    @ivar isRetiring: whether it accepts no new clients.
    """

    totals: dict[str, Any] | None = _totals()
    stories: list[Any] = _list(STORIES_A_REPORT)
    isRetiring: bool = flag()


@frozen
class Part:
    """
    Member to keeper: a part of the answer to an L{Ask}.

    @ivar id: the number of the question.
    @ivar rows: values of JSON.
    @ivar isLast: whether the answer ends here.
    @ivar failure: why the answer is incomplete, in words; empty after a success.
    """

    id: int = number()
    rows: list[Any] = _list(ROWS_A_PART)
    isLast: bool = flag()
    failure: str = text(_LONGEST_REASON, isOneLine=True)


@frozen
class Moved:
    """Member to keeper, after L{Move}: it sends no more reports on this connection, only parts of answers."""


@frozen
class Handover:
    """
    Keeper to its successor: a part of its state.

    @ivar members: the names of the members that it has sent to the successor.
    @ivar state: the next characters of its state (L{mailgate.keeper.keeper.Keeper.stateToHandOver}).
    @ivar isLast: whether the state ends here.
    @ivar version: of these messages.
    """

    members: tuple[str, ...] = _names()
    state: str = text(LONGEST_HANDOVER)
    isLast: bool = flag()
    version: int = field(default=VERSION, validator=isNumber(1))


@frozen
class Check:
    """
    Member to keeper: may a login begin?

    @ivar id: the number of the question.
    @ivar ticket: that of the keeper's last answer about this login; 0 at first.
    @ivar attempt: the login (L{mailgate.keeper.attempts}).
    """

    id: int = number()
    ticket: int = number()
    attempt: list[Any] = _list(_FIELDS_OF_LIMITS)


@frozen
class Record:
    """
    Member to keeper: a login has ended.

    @ivar ticket: that of the keeper's last answer about it; 0 without one.
    @ivar result: a value of L{mailgate.limits.attempt.Result}.
    @ivar attempt: the login, as in L{Check}.
    """

    ticket: int = number()
    result: str = word(_WORD)
    attempt: list[Any] = _list(_FIELDS_OF_LIMITS)


@frozen
class Sessions:
    """
    Member to keeper, after L{REGISTRY}: relays that have begun and ended.

    @ivar began: rows of L{mailgate.keeper.feed.rowOf}.
    @ivar ended: the ids of sessions, which the keeper may not know.
    @ivar isFirst: whether the member begins to tell all its sessions anew.
    @ivar isLast: whether it has told all.
    """

    began: list[Any] = _list(ROWS_A_PART)
    ended: list[Any] = _list(ROWS_A_PART)
    isFirst: bool = flag()
    isLast: bool = flag()


@frozen
class Welcome:
    """
    Keeper to member: it has joined.

    @ivar gateway: the name of the gateway (C{gateway_name}).
    """

    gateway: str = text(255, isOneLine=True)


@frozen
class Refused:
    """
    Keeper to member or predecessor: it is refused, and the connection ends.

    @ivar reason: why, in words.
    """

    reason: str = text(_LONGEST_REASON, isOneLine=True)


@frozen
class Ask:
    """
    Keeper to member: a question.

    @ivar id: the number of the question.
    @ivar word: a name of L{mailgate.keeper.view.ANSWERERS}, or C{report}: send a L{Report} at once.
    @ivar arguments: the arguments, by name.
    """

    id: int = number()
    word: str = word(_WORD)
    arguments: dict[str, Any] = jsonValue(_LONGEST_ARGUMENTS, dict)


@frozen
class Enough:
    """
    Keeper to member: stop answering a question.

    @ivar id: the number of the question.
    """

    id: int = number()


@frozen
class Move:
    """Keeper to member: connect anew, to the successor. Finish the answers that have begun on this connection."""


@frozen
class Received:
    """Keeper to its predecessor: the state has arrived, the predecessor may exit."""


@frozen
class Judged:
    """
    Keeper to member: the answer to a L{Check}.

    @ivar id: the number of the question.
    @ivar verdict: the answer (L{mailgate.keeper.attempts}).
    """

    id: int = number()
    verdict: list[Any] = _list(_FIELDS_OF_LIMITS)


@frozen
class News:
    """
    Keeper to member: what limits must know without asking.

    @ivar rows: rows of L{mailgate.limits.defence.Defence.news}.
    """

    rows: list[Any] = _list(ROWS_A_PART)


FROM_KEEPERS: frozenset[Any] = frozenset((Welcome, Refused, Ask, Enough, Move, Received, Judged, News, Placed))
"""The kinds of messages that members and predecessors receive."""

FROM_OTHERS: frozenset[Any] = frozenset((Hello, Report, Part, Moved, Handover, Check, Record, Sessions, Place, Seat))
"""The kinds of messages that a keeper receives."""

Message: TypeAlias = (
    Hello
    | Report
    | Part
    | Moved
    | Handover
    | Check
    | Record
    | Sessions
    | Place
    | Seat
    | Welcome
    | Refused
    | Ask
    | Enough
    | Move
    | Received
    | Judged
    | News
    | Placed
)

_KINDS: dict[str, Any] = {kind.__name__.lower(): kind for kind in FROM_KEEPERS | FROM_OTHERS}
_FIELDS: dict[Any, dict[str, None]] = {
    kind: dict.fromkeys(attribute.name for attribute in fields(kind)) for kind in _KINDS.values()
}
"""The names of the fields of each kind, in their order."""


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")


_ENCODER = json.JSONEncoder(allow_nan=False)
_DECODER = json.JSONDecoder(parse_constant=_refuse)


def encode(message: Message) -> bytes:
    """
    Write a message as a line of JSON, without the line end.

    @param message: the message.
    @raise WireError: the line is too long, or a value is none of JSON.
    """
    try:
        kind = type(message)
        content = {"kind": kind.__name__.lower(), **{name: getattr(message, name) for name in _FIELDS[kind]}}
        line = _ENCODER.encode(content).encode("ascii")
    except (ValueError, TypeError) as error:
        raise WireError(f"cannot write the message: {error}") from None
    longest = LONGEST_ORDER if kind in FROM_KEEPERS else LONGEST_REPORT
    if len(line) > longest:
        raise WireError(f"the message is too long: {len(line)} bytes, the limit is {longest}")
    return line


def decode(line: bytes, kinds: Collection[Any]) -> Message:
    """
    Read a message.

    @param line: the line, without its line end.
    @param kinds: the kinds that are allowed: L{FROM_KEEPERS} or L{FROM_OTHERS}.
    @raise WireError: the line is not a valid message of these kinds.
    @raise OtherVersion: the line begins the conversation of a process that speaks another version, whatever else it
        contains.
    """
    try:
        content = _DECODER.decode(line.decode("ascii"))
        kind = _KINDS[content.pop("kind")]
        if kind not in kinds:
            raise WireError(f"unexpected message: {kind.__name__.lower()}")
        if kind in (Hello, Handover) and content.get("version") != VERSION:
            raise OtherVersion(f"version {VERSION} of the keeper's messages is needed")
        if content.keys() != _FIELDS[kind].keys():
            raise WireError("invalid message: unexpected fields")
        message: Message = kind(**content)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        # The error must not quote the line: it has names of users.
        raise WireError(f"invalid message: {type(error).__name__}") from None
    return message
