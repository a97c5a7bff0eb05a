# -*- test-case-name: mailgate.test.log.test_privacy -*-
"""
C{log_user} and C{log_address}: what the log shows of users and of clients' addresses.

The log has them in fields of events, so L{Masking} changes fields and no texts. Texts from the network may quote a name
or an address in any form: they are left out. A field of a line about a connection that L{SAFE} does not list counts as
such a text, so that a new field is masked until it is known to be safe.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b
from ipaddress import ip_address, ip_network
from typing import Any

from attrs import frozen
from twisted.logger import ILogObserver, LogEvent
from twisted.python.failure import Failure
from twisted.python.reflect import qual
from zope.interface import implementer

from mailgate.log.connection import formOf, peerOf
from mailgate.log.levels import CONNECTIONS
from mailgate.log.textlines import TRACEBACK

__all__ = ["ADDRESSES", "FULL", "KEY_BYTES", "SAFE", "USERS", "Masking", "Privacy", "networkOf"]

USERS = ("full", "hash", "domain", "off")
"""The values of C{log_user}."""

ADDRESSES = ("full", "network")
"""The values of C{log_address}."""

KEY_BYTES = 32
"""The length of the key of C{log_user = hash}."""

SAFE = frozenset(
    (
        *("protocol", "server", "session", "tls", "method", "mechanism", "attempt", "attempts", "backend", "backends"),
        *("reached", "phase", "outcome", "trouble", "reason", "seconds", "received", "sent", "times"),
        *("url", "rest", "path", "servers", "error", "count", "beginning"),
        *("rule", "action", "would", "group", "before"),
        # The steps at debug. The address is the backend's.
        *("trace", "resumed", "initial", "result", "verdict", "why", "address", "what", "early", "side"),
    )
)
"""
The fields of lines about connections that contain neither users nor clients' addresses, nor texts from the network.
C{beginning} is that of a format.
"""

_OF_OTHERS = {"client", "user", "values"}
"""
The fields of other lines that are masked. C{values} are what an operator has sent to the admin server, such as the user
whose sessions are to end.
"""

_MARK = "log_masked"
"""A field of events that are masked already."""

_CONCERN = ', text "'
"""In the field C{concern}, a text from the network stands behind this."""

_DOMAIN = re.compile(r"[^\W_](?:[\w.-]{0,251}[^\W_])?")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\Z)')
"""In a reason, which has mailgate's words, a text from the network or from an operator is in quotes."""

_LEFT_OUT = "-"


@frozen
class Privacy:
    """
    What the log shows of people.

    @ivar user: one of L{USERS}.
    @ivar address: one of L{ADDRESSES}.
    """

    user: str = "full"
    address: str = "full"

    @property
    def isFull(self) -> bool:
        """Whether the log shows everything."""
        return self.user == self.address == "full"


FULL = Privacy()
"""The log shows users and addresses in full."""


class Masking:
    """
    Changes events so that they show of users and addresses what C{privacy} allows.

    @param privacy: what may be shown.
    @param key: the secret key for C{log_user = hash}, of L{KEY_BYTES}.
    """

    def __init__(self, privacy: Privacy, key: bytes) -> None:
        self._privacy = privacy
        self._key = key

    def masked(self, event: LogEvent) -> LogEvent:
        """
        Return a masked copy of C{event}, or C{event} itself if it is masked already.

        @param event: an event of the log, from mailgate or any other source.
        """
        if _MARK in event:
            return event
        changed = {**event, _MARK: True}
        if event.get("log_source") == CONNECTIONS or formOf(event.get("log_format")) is not None:
            for name, value in event.items():
                if name not in SAFE and not name.startswith("log_") and not isinstance(value, int | float):
                    changed[name] = self._field(name, str(value))
            if '"' in (reason := str(event.get("reason", ""))):
                changed["reason"] = _QUOTED.sub(f'"{_LEFT_OUT}"', reason)
        else:
            for name in _OF_OTHERS & event.keys():
                changed[name] = self._field(name, str(event[name]))
        # twisted.python.log has its failure in the second field, and the traceback in log_text.
        failure = changed.pop("log_failure", None) or changed.pop("failure", None)
        if isinstance(failure, Failure):
            changed[TRACEBACK] = _withoutMessage(failure)
            if "log_text" in event:
                changed["log_text"] = str(event.get("why") or "unhandled error")
        return changed

    def _field(self, name: str, value: str) -> str:
        if name == "user":
            return self._user(value)
        if name == "client":
            return value if self._privacy.address == "full" else networkOf(value)
        if name == "concern":
            return value.partition(_CONCERN)[0]
        # Such a field brings the comma before it along.
        return "" if not value or value.startswith(", ") else _LEFT_OUT

    def _user(self, user: str) -> str:
        kind = self._privacy.user
        if kind == "full" or not user:
            return user
        if kind == "hash":
            return f"#{blake2b(user.encode('utf-8', 'backslashreplace'), digest_size=8, key=self._key).hexdigest()}"
        domain = user.rpartition("@")
        if kind == "domain" and domain[1] and _DOMAIN.fullmatch(domain[2]):
            return f"@{domain[2]}"
        return _LEFT_OUT

    def observing(self, target: ILogObserver) -> ILogObserver:
        """
        Return an observer that masks events.

        @param target: receives the masked events.
        """
        return _MaskingObserver(self, target)


@implementer(ILogObserver)
class _MaskingObserver:
    def __init__(self, masking: Masking, target: ILogObserver) -> None:
        self._masking = masking
        self._target = target

    def __call__(self, event: LogEvent) -> None:
        self._target(self._masking.masked(event))


@lru_cache(1000)
def networkOf(client: str) -> str:
    """
    Return the network of a client: C{192.0.2.0/24} or C{2001:db8::/48}.

    @param client: a result of L{mailgate.log.connection.peerName}, or an address without a port.
    @return: the network. C{unix:} stays; C{-} for what is no address.
    """
    if client == "unix:":
        return client
    for host in (client, peerOf(client)[0]):
        try:
            address: Any = ip_address(host.partition("%")[0])
        except ValueError:
            continue
        address = getattr(address, "ipv4_mapped", None) or address
        return str(ip_network((address, 24 if address.version == 4 else 48), strict=False))
    return _LEFT_OUT


def _withoutMessage(failure: Failure) -> str:
    """Return the traceback of C{failure} without the message of the exception, which may quote a name."""
    first, *lines = failure.getTraceback().split("\n")
    kept = [first]
    for line in lines:
        # Frames stand before the message, which may have several lines.
        if not line.startswith(("  ", "--- <exception caught here> ---")):
            break
        kept.append(line)
    return "\n".join([*kept, qual(type(failure.value))])
