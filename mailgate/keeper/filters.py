# -*- test-case-name: mailgate.test.keeper.test_filters -*-
"""
Which sessions an operator means: filters of lists and kicks. All conditions of a filter must hold.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from fnmatch import translate
from math import isfinite
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any, TypeAlias

from attrs import fields, frozen

from mailgate.directives import seconds
from mailgate.log.journal import oneLine
from mailgate.net.networks import parseNetwork
from mailgate.registry import PROTOCOLS
from mailgate.session import Phase, Session

__all__ = ["LOGIN_PHASES", "MASK", "Filter", "Matcher", "exactly", "nearest", "userMatcher"]

MASK = 2048
"""The most characters of a mask for user names."""

_WILDCARDS = 128
"""The most wildcards of a mask. A mask of two thousand takes fifty milliseconds until it can be used."""

_TEXT = 256
"""The most characters of other values."""

_LONGEST = 10 * 365 * 86400.0
"""The most seconds of an age."""

_MAPPED = b"\0" * 10 + b"\xff\xff"
"""The beginning of an IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2)."""

LOGIN_PHASES = (Phase.AUTH, Phase.CONNECT, Phase.BACKEND_TLS, Phase.BACKEND_LOGIN)
"""The phases of a login that is under way."""

_ID = re.compile(r"(?:[A-Za-z0-9-]{1,10}\.)?([0-9a-v]{5})\.[0-9a-v]{2,10}")
_WILD = re.compile(r"[*?\[]")
_LITERAL = re.compile(r"\[[*?\[]\]")
_PHASES = tuple(phase.value for phase in Phase)

Matcher: TypeAlias = Callable[[Session, str, float, float], bool]
"""
Returns whether a session is meant. Its arguments are the session, the name of its server, the time, and the time at
which the last login began, both in seconds of the gateway's clock.
"""


def nearest(word: str, known: Iterable[str], what: str) -> str:
    """
    Return a sentence about a word that is not known, with the nearest known one.

    @param word: the word, from an operator.
    @param known: the known words.
    @param what: what the word should be, such as C{parameter}.
    """
    words = sorted(known)
    close = get_close_matches(word[:64], words, 1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(words)}"
    return f"{oneLine(word[:64])} is no known {what}; {hint}"


def exactly(user: str) -> str:
    """
    Return the mask that matches one user name and no other, except in upper and lower case.

    @param user: the user name.
    """
    return _WILD.sub(lambda match: f"[{match[0]}]", user)


def userMatcher(mask: str) -> Callable[[bytes], bool]:
    """
    Return what tells whether a user name, as bytes, matches a mask (L{fnmatch}) without regard to case. Names are
    compared as UTF-8; what is not valid there is U+FFFD.

    @param mask: the mask.
    @raise ValueError: it is not valid.
    """
    if not _WILD.search(mask):
        wanted = mask.lower()
        return lambda user: user.decode("utf-8", "replace").lower() == wanted
    if len(_WILD.findall(_LITERAL.sub("", mask))) > _WILDCARDS:
        raise ValueError(f"user has more than {_WILDCARDS} wildcards")
    try:
        match = re.compile(translate(mask), re.IGNORECASE).match
    except re.error:
        raise ValueError("user is not a valid mask") from None
    return lambda user: match(user.decode("utf-8", "replace")) is not None


@frozen
class Filter:
    """
    The conditions that sessions must fulfil; L{None} is no condition. Make one by L{fromQuery} or L{fromJSON}, which
    check the values.

    @ivar user: a mask for the user name (L{fnmatch}), without regard to case.
    @ivar address: the client's address or network, or C{unix:}. IPv4-mapped addresses are IPv4 addresses.
    @ivar backend: the backend, such as C{10.0.0.1:143}.
    @ivar protocol: the protocol.
    @ivar server: the name of the server in the configuration, or the address that it listens at.
    @ivar phase: the value of the phase.
    @ivar id: the id of a session.
    @ivar older: the least age of a session, in seconds.
    @ivar stuck: the least time that a login has been under way, in seconds.
    """

    user: str | None = None
    address: str | None = None
    backend: str | None = None
    protocol: str | None = None
    server: str | None = None
    phase: str | None = None
    id: str | None = None
    older: float | None = None
    stuck: float | None = None

    @classmethod
    def fromQuery(cls, query: Iterable[tuple[str, str]]) -> Filter:
        """
        Make a filter from the parameters of a query.

        @param query: names and values. Ages are times as in directives: C{90}, C{1h30m}.
        @raise ValueError: a name is not known or occurs twice, or a value is not valid.
        """
        given: dict[str, Any] = {}
        for name, value in query:
            if name in given:
                raise ValueError(f"{oneLine(name[:64])} is given twice")
            given[name] = value
        return cls.fromJSON(given)

    @classmethod
    def fromJSON(cls, given: Mapping[str, Any]) -> Filter:
        """
        Make a filter from an object of JSON.

        @param given: its members. Ages are numbers of seconds, or texts as in L{fromQuery}.
        @raise ValueError: a name is not known, or a value is not valid.
        """
        for name in given:
            if name not in _READERS:
                raise ValueError(nearest(name, _READERS, "parameter"))
        # None of JSON is no condition.
        return cls(**{name: _READERS[name](name, value) for name, value in given.items() if value is not None})

    @classmethod
    def of(cls, given: Filter | Mapping[str, Any]) -> Filter:
        """
        Return a filter.

        @param given: the filter, or the object of JSON from which L{fromJSON} makes it.
        @raise ValueError: the object is not valid.
        """
        return given if isinstance(given, Filter) else cls.fromJSON(given)

    def asJSON(self) -> dict[str, Any]:
        """Return the object from which L{fromJSON} makes this filter again."""
        found = ((name, getattr(self, name)) for name in _READERS)
        return {name: value for name, value in found if value is not None}

    @property
    def isEverything(self) -> bool:
        """Whether all sessions, or all with a user, are meant: no condition, or conditions that exclude nothing."""
        if any((self.backend, self.protocol, self.server, self.phase, self.id, self.older, self.stuck)):
            return False
        if self.user is not None and self.user.strip("*?"):
            return False
        return self.address is None or self.address.endswith("/0")

    @property
    def member(self) -> str | None:
        """The name of the process that has the session of C{id}; L{None} without an C{id}."""
        match = None if self.id is None else _ID.fullmatch(self.id)
        return None if match is None else match[1]

    def compiled(self) -> Matcher:
        """
        Return what tells which sessions are meant.

        @raise ValueError: a value is not valid.
        """
        # The cheapest conditions come first.
        checks = [_CHECKS[name](getattr(self, name)) for name in _CHECKS if getattr(self, name) is not None]
        if len(checks) == 1:
            return checks[0]

        def matches(session: Session, server: str, now: float, began: float) -> bool:
            return all(check(session, server, now, began) for check in checks)

        return matches


# Reading values.


def _text(name: str, value: Any, most: int = _TEXT) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be a text that is not empty")
    if len(value) > most:
        raise ValueError(f"{name} must have at most {most} characters")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"{name} must be valid Unicode")
    return value


def _mask(name: str, value: Any) -> str:
    mask = _text(name, value, MASK)
    userMatcher(mask)
    return mask


def _address(name: str, value: Any) -> str:
    text = _text(name, value).strip("[]")
    if text == "unix:":
        return text
    try:
        network = parseNetwork(text)
    except ValueError:
        raise ValueError(f"{name} must be an address, or a network such as 192.0.2.0/24") from None
    return str(network) if "/" in text else str(network.network_address)


def _one(known: Iterable[str]) -> Callable[[str, Any], str]:
    words = tuple(known)

    def read(name: str, value: Any) -> str:
        text = _text(name, value).lower()
        if text not in words:
            raise ValueError(nearest(text, words, name))
        return text

    return read


def _id(name: str, value: Any) -> str:
    text = _text(name, value)
    if not _ID.fullmatch(text):
        raise ValueError(f"{name} must be the id of a session, such as 5g0qa.7k")
    return text


def _age(name: str, value: Any) -> float:
    if isinstance(value, str):
        try:
            value = float(value) if re.fullmatch(r"[0-9]{1,10}\.[0-9]{1,6}", value) else seconds(value, "")
        except ValueError:
            raise ValueError(f"{name} must be a time, such as 90, 30s or 1h30m") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ValueError(f"{name} must be a number of seconds")
    if not 0 <= value <= _LONGEST:
        raise ValueError(f"{name} must be from 0 to {_LONGEST:.0f} seconds")
    return float(value)


_READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "user": _mask,
    "address": _address,
    "backend": _text,
    "protocol": _one(PROTOCOLS),
    "server": _text,
    "phase": _one(_PHASES),
    "id": _id,
    "older": _age,
    "stuck": _age,
}
assert tuple(_READERS) == tuple(each.name for each in fields(Filter))


# Checking sessions.


def _isInAddress(text: str) -> Matcher:
    if text == "unix:":
        return lambda session, server, now, began: session.client.startswith("unix:")
    network = parseNetwork(text)
    bits, size = network.prefixlen, network.max_prefixlen // 8
    drop = network.max_prefixlen - bits
    wanted = int(network.network_address) >> drop

    def check(session: Session, server: str, now: float, began: float) -> bool:
        host = session.host
        try:
            if ":" in host:
                # A link-local address has its interface behind "%".
                packed = inet_pton(AF_INET6, host.partition("%")[0])
                if packed.startswith(_MAPPED):
                    packed = packed[12:]
            else:
                packed = inet_pton(AF_INET, host)
        except OSError:
            return False
        return len(packed) == size and int.from_bytes(packed, "big") >> drop == wanted

    return check


def _hasUser(mask: str) -> Matcher:
    matches = userMatcher(mask)
    return lambda session, server, now, began: bool(session.user) and matches(session.user)


def _hasPhase(value: str) -> Matcher:
    wanted = Phase(value)
    return lambda session, server, now, began: session.phase is wanted


def _isAt(server: str) -> Matcher:
    return lambda session, name, now, began: name == server or session.server == server


def _hasBackend(backend: str) -> Matcher:
    wanted = backend.lower()
    return lambda session, server, now, began: session.backend.lower() == wanted


_CHECKS: Mapping[str, Callable[[Any], Matcher]] = {
    "id": lambda wanted: lambda session, server, now, began: session.id == wanted,
    "protocol": lambda wanted: lambda session, server, now, began: session.protocol == wanted,
    "phase": _hasPhase,
    "server": _isAt,
    "older": lambda least: lambda session, server, now, began: now - session.started >= least,
    "stuck": lambda least: lambda session, server, now, began: session.phase in LOGIN_PHASES and now - began >= least,
    "backend": _hasBackend,
    "user": _hasUser,
    "address": _isInAddress,
}
