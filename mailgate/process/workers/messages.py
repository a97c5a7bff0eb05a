# -*- test-case-name: mailgate.test.process.workers.test_messages -*-
"""
The messages between the master, a zygote and its workers. A message is one line of JSON, of a known kind and with
exactly the fields of this kind. The keeper and its zygote have the same messages, and those of
L{mailgate.process.keeper.talk}.

All processes are of one release, unless another release was installed while the master runs. So L{Begin} contains the
master's release, and a zygote of another release refuses it. Messages contain no data from the network, except those of
L{mailgate.process.workers.talk}.
"""

from __future__ import annotations

import json
import re
from enum import Enum
from typing import Any, TypeAlias, get_args

from attrs import asdict, field, fields, frozen
from attrs.validators import in_, instance_of

from mailgate._version import __version__
from mailgate.log.privacy import KEY_BYTES
from mailgate.process.keeper.talk import Configure, Event, Instruct, NotStarted, Request, Result, Taken
from mailgate.process.workers.talk import Announce, Query, Reply
from mailgate.system.fields import descriptors, hexadecimal, number, numbers, slotNumber, text

__all__ = [
    "LONGEST",
    "Announce",
    "Become",
    "Begin",
    "Configure",
    "ControlError",
    "Cut",
    "Ended",
    "Event",
    "Failed",
    "Fork",
    "Instruct",
    "Kill",
    "Lines",
    "Loaded",
    "Message",
    "NotStarted",
    "Order",
    "OtherRelease",
    "Query",
    "Ready",
    "Reply",
    "Request",
    "Result",
    "Retired",
    "Started",
    "Taken",
    "Tell",
    "decode",
    "encode",
    "otherRelease",
]

LONGEST = 8 * 1024 * 1024
"""Bytes of a message. The longest message contains a configuration."""


class ControlError(Exception):
    """A received line is not a valid message, or a message to send is too long."""


class OtherRelease(ControlError):
    """The master is of another release than this process; the text says what to do."""


def otherRelease(running: object = None) -> str:
    """
    Return why a zygote of this release refuses the master, and what to do.

    @param running: the release in the master's message; L{None} if it is missing.
    """
    known = isinstance(running, str) and re.fullmatch(r"[0-9A-Za-z.+!_-]{1,40}", running) is not None
    which = f"is version {running}" if known else "is of another version"
    difference = f"the running mailgate {which}, the installed one is version {__version__}"
    return f"{difference}: run mailgate upgrade or restart the gateway"


class Order(str, Enum):
    """An order to the workers of a generation."""

    RETIRE = "retire"
    """Stop accepting; sessions continue until they end or worker_shutdown_timeout expires."""
    DRAIN = "drain"
    """The same, but disconnect clients that have not logged in."""
    STOP = "stop"
    """End all sessions now."""
    REOPEN = "reopen"
    """Open the log files again."""


@frozen
class Begin:
    """
    The first message from the master to a zygote.

    @ivar file: the path of the configuration.
    @ivar text: the text of the configuration.
    @ivar sockets: the descriptors of the listening sockets, by address; for the zygote of the keeper by name.
    @ivar logKey: the key of C{log_user = hash} as hexadecimal digits. Every process of a run has the same.
    @ivar keeper: the path of the keeper's socket; empty without a keeper.
    @ivar columns: for each worker its column in the memory that counts for limits. If there are fewer than workers, the
        last ones count for themselves.
    @ivar release: the master's release.
    """

    file: str = text()
    text: str = text()
    sockets: dict[str, int] = descriptors()
    logKey: str = hexadecimal(KEY_BYTES)
    keeper: str = field(default="", validator=instance_of(str))
    columns: tuple[int, ...] = numbers(())
    release: str = field(default=__version__, validator=in_([__version__]))


@frozen
class Become:
    """
    Master to zygote: change from root to this user.

    @ivar uid: the user.
    @ivar gid: the group.
    @ivar groups: the supplementary groups.
    """

    uid: int = number(1)
    gid: int = number()
    groups: tuple[int, ...] = numbers()


@frozen
class Fork:
    """
    Master to zygote: fork a worker.

    @ivar slot: the worker's number, from 0.
    """

    slot: int = number()


@frozen
class Kill:
    """
    Master to zygote: kill a worker.

    @ivar slot: the worker's number.
    """

    slot: int = number()


@frozen
class Tell:
    """
    Master to zygote, which passes it on to each worker: an order.

    @ivar order: the order.
    """

    order: Order = field(converter=Order)


@frozen
class Loaded:
    """Zygote to master: it is ready to fork workers."""


@frozen
class Failed:
    """
    Zygote to master: it cannot fork workers.

    @ivar reason: why, with a line for each error.
    """

    reason: str = text()


@frozen
class Started:
    """
    Zygote to master: it has forked a worker.

    @ivar slot: the worker's number.
    @ivar pid: its process.
    """

    slot: int = number()
    pid: int = number(1)


@frozen
class Ready:
    """
    Worker to zygote, which passes it on to the master: the worker serves.

    @ivar slot: the worker's number; L{None} from the worker itself.
    """

    slot: int | None = slotNumber()


@frozen
class Retired:
    """
    Worker to zygote, which passes it on to the master: the worker has stopped accepting.

    @ivar slot: the worker's number; L{None} from the worker itself.
    """

    slot: int | None = slotNumber()


@frozen
class Cut:
    """
    The last message from a worker to the zygote.

    @ivar sessions: the number of proxied sessions that the worker has cut.
    """

    sessions: int = number()


@frozen
class Ended:
    """
    Zygote to master: a worker has exited, or the system refused to fork it.

    @ivar slot: the worker's number.
    @ivar pid: its process; 0 if the system refused to fork.
    @ivar status: the exit status, negative for a signal, as in C{subprocess.Popen.returncode}; the C{errno} if the
        system refused to fork.
    @ivar cut: the number of proxied sessions that the worker has cut.
    """

    slot: int = number()
    pid: int = number()
    status: int = number(-1000)
    cut: int = number()


_Orders: TypeAlias = Begin | Become | Fork | Kill | Tell | Query
_Reports: TypeAlias = Loaded | Failed | Started | Ready | Retired | Cut | Ended | Reply
_OfKeepers: TypeAlias = Configure | Instruct | NotStarted | Event | Request | Result | Taken
Message: TypeAlias = _Orders | _Reports | _OfKeepers | Announce

_KINDS: dict[str, Any] = {kind.__name__.lower(): kind for kind in get_args(Message)}


def encode(message: Message) -> bytes:
    """
    Write a message as a line of JSON.

    @param message: the message.
    @raise ControlError: the line is longer than L{LONGEST}.
    """
    line = (
        json.dumps({"kind": type(message).__name__.lower(), **asdict(message, recurse=False)}).encode("ascii") + b"\n"
    )
    if len(line) > LONGEST:
        raise ControlError(f"the message is too long: {len(line)} bytes, the limit is {LONGEST}")
    return line


def decode(line: bytes) -> Message:
    """
    Read a message.

    @param line: the line, without its line end.
    @raise ControlError: the line is not a valid message.
    @raise OtherRelease: the line is the L{Begin} of a master of another release, whatever else it contains.
    """
    try:
        given = json.loads(line)
        kind = _KINDS[given.pop("kind")]
        if kind is Begin and given.get("release") != __version__:
            raise OtherRelease(otherRelease(given.get("release")))
        if given.keys() != {attribute.name for attribute in fields(kind)}:
            raise ControlError("invalid message: unexpected fields")
        message: Message = kind(**given)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        # The error must not quote the line, which may contain secrets of the configuration.
        raise ControlError(f"invalid message: {type(error).__name__}") from None
    return message


class Lines:
    """
    Splits a stream of bytes into messages.

    @param longest: the longest message, in bytes.
    """

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._parts: list[bytes] = []
        self._length = 0

    def feed(self, data: bytes) -> list[Message]:
        """
        Add received bytes.

        @param data: the bytes.
        @return: the messages that are now complete.
        @raise ControlError: a message is invalid or too long.
        """
        *whole, rest = data.split(b"\n")
        if whole:
            whole[0] = b"".join((*self._parts, whole[0]))
            self._parts, self._length = [], 0
        self._parts.append(rest)
        self._length += len(rest)
        if max([self._length, *map(len, whole)]) > self._longest:
            raise ControlError(f"invalid message: longer than {self._longest} bytes")
        return [decode(line) for line in whole]
