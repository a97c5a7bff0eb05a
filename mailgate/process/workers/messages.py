# -*- test-case-name: mailgate.test.process.workers.test_messages -*-
"""
What the master, a zygote and its workers say to each other: JSON, a message a line, each of a known kind with all of
its fields and no others.

All of them are parts of one release, unless another one was installed while the master runs: so L{Begin} says which
release the master is of, and a zygote of another release refuses it. Nothing that came from the network is ever in a
message.
"""

from __future__ import annotations

import json
import re
from enum import Enum
from typing import Any, TypeAlias

from attrs import asdict, field, fields, frozen
from attrs.validators import and_, deep_iterable, deep_mapping, ge, in_, instance_of, optional

from mailgate._version import __version__

__all__ = [
    "LONGEST",
    "Become",
    "Begin",
    "ControlError",
    "Cut",
    "Ended",
    "Failed",
    "Fork",
    "Kill",
    "Lines",
    "Loaded",
    "Message",
    "Order",
    "OtherRelease",
    "Ready",
    "Retired",
    "Started",
    "Tell",
    "decode",
    "encode",
    "otherRelease",
]

LONGEST = 8 * 1024 * 1024
"""Bytes of a message. The longest holds a configuration."""


class ControlError(Exception):
    """What was received is no message, or what is to be sent is too long for one."""


class OtherRelease(ControlError):
    """The master is of another release than this process; the text says what to do about it."""


def otherRelease(running: object = None) -> str:
    """
    Why a master does not get a zygote of this release, and what to do.

    @param running: the master's release; L{None} for one that does not say it.
    """
    known = isinstance(running, str) and re.fullmatch(r"[0-9A-Za-z.+!_-]{1,40}", running) is not None
    which = f"is version {running}" if known else "is of another version"
    difference = f"the running mailgate {which}, the installed one is version {__version__}"
    return f"{difference}: run mailgate upgrade or restart the gateway"


class Order(str, Enum):
    """What a generation's workers are told to do."""

    RETIRE = "retire"
    """Accept nobody any more; the sessions that there are go on, until worker_shutdown_timeout."""
    DRAIN = "drain"
    """The same, but those who have not logged in are sent away."""
    STOP = "stop"
    """End all sessions now."""
    REOPEN = "reopen"
    """Open the log files anew."""


def _number(least: int = 0) -> Any:
    return field(validator=_isNumber(least))


def _isNumber(least: int) -> Any:
    # A bool is an int, too.
    return and_(instance_of(int), _noFlag, ge(least))


def _noFlag(instance: Any, attribute: Any, value: Any) -> None:
    if isinstance(value, bool):
        raise TypeError(f"{attribute.name} is no number")


def _numbers() -> Any:
    return field(
        converter=lambda value: tuple(value) if isinstance(value, list) else value,
        validator=deep_iterable(_isNumber(0), instance_of(tuple)),
    )


def _descriptors() -> Any:
    return field(validator=deep_mapping(instance_of(str), _isNumber(3), instance_of(dict)))


def _text() -> Any:
    return field(validator=instance_of(str), repr=False)


@frozen
class Begin:
    """
    Master to zygote, the first: the configuration C{text} of the ini C{file}, and the descriptors of the C{sockets}, by
    address. The C{release} is the master's.
    """

    file: str = _text()
    text: str = _text()
    sockets: dict[str, int] = _descriptors()
    release: str = field(default=__version__, validator=in_([__version__]))


@frozen
class Become:
    """Master to zygote: be no longer root, but this user with these groups."""

    uid: int = _number(1)
    gid: int = _number()
    groups: tuple[int, ...] = _numbers()


@frozen
class Fork:
    """Master to zygote: make the worker of this number."""

    slot: int = _number()


@frozen
class Kill:
    """Master to zygote: the worker of this number does not obey."""

    slot: int = _number()


@frozen
class Tell:
    """Master to zygote, and on to each worker: obey."""

    order: Order = field(converter=Order)


@frozen
class Loaded:
    """Zygote to master: workers can be made."""


@frozen
class Failed:
    """Zygote to master: none can be; C{reason} has a line for everything that is wrong."""

    reason: str = _text()


@frozen
class Started:
    """Zygote to master: a worker's process is there."""

    slot: int = _number()
    pid: int = _number(1)


@frozen
class Ready:
    """Worker to zygote: it serves; zygote to master: the worker C{slot} does."""

    slot: int | None = field(default=None, validator=optional(_isNumber(0)))


@frozen
class Retired:
    """Worker to zygote: it lets nobody in any more; zygote to master: the worker C{slot} does not."""

    slot: int | None = field(default=None, validator=optional(_isNumber(0)))


@frozen
class Cut:
    """Worker to zygote, the last: how many sessions with a backend it has ended that had not."""

    sessions: int = _number()


@frozen
class Ended:
    """
    Zygote to master: a worker has ended, with C{status}, as C{subprocess.Popen.returncode} has it, and has C{cut} so
    many sessions. With a C{pid} of 0 there has been none: the system would not fork, and C{status} is its C{errno}.
    """

    slot: int = _number()
    pid: int = _number()
    status: int = _number(-1000)
    cut: int = _number()


Message: TypeAlias = Begin | Become | Fork | Kill | Tell | Loaded | Failed | Started | Ready | Retired | Cut | Ended

_KINDS: dict[str, Any] = {
    kind.__name__.lower(): kind
    for kind in (Begin, Become, Fork, Kill, Tell, Loaded, Failed, Started, Ready, Retired, Cut, Ended)
}


def encode(message: Message) -> bytes:
    """
    C{message} as a line.

    @raise ControlError: it is longer than L{LONGEST}.
    """
    line = json.dumps({"kind": type(message).__name__.lower(), **asdict(message)}).encode("ascii") + b"\n"
    if len(line) > LONGEST:
        raise ControlError(f"the message is too long: {len(line)} bytes, the limit is {LONGEST}")
    return line


def decode(line: bytes) -> Message:
    """
    The message in C{line}.

    @raise ControlError: it holds none.
    @raise OtherRelease: it is the first of a master of another release, whatever else it holds.
    """
    try:
        given = json.loads(line)
        kind = _KINDS[given.pop("kind")]
        if kind is Begin and given.get("release") != __version__:
            raise OtherRelease(otherRelease(given.get("release")))
        if given.keys() != {attribute.name for attribute in fields(kind)}:
            raise ValueError("unexpected fields")
        message: Message = kind(**given)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        # What it holds may be a secret of the configuration.
        raise ControlError(f"invalid message: {type(error).__name__}") from None
    return message


class Lines:
    """Bytes, as they come in, into messages."""

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._parts: list[bytes] = []
        self._length = 0

    def feed(self, data: bytes) -> list[Message]:
        """
        The messages that are whole with C{data}.

        @raise ControlError: one is none, or too long.
        """
        *whole, rest = data.split(b"\n")
        if whole:
            whole[0] = b"".join((*self._parts, whole[0]))
            self._parts, self._length = [], 0
        self._parts.append(rest)
        self._length += len(rest)
        if max([self._length, *map(len, whole)]) > self._longest:
            raise ControlError(f"the message is longer than {self._longest} bytes")
        return [decode(line) for line in whole]
