# -*- test-case-name: mailgate.test.auth.http.test_exchange -*-
"""
Reads single values of the answers of an C{auth_http} service.
"""

from __future__ import annotations

import re
from functools import lru_cache

from twisted.internet.abstract import isIPv6Address

from mailgate.auth.http.headers import Values
from mailgate.directives import LONGEST_SOCKET_PATH, isHostName
from mailgate.login import Backend

__all__ = ["LONGEST_CREDENTIAL", "SECONDS", "Unusable", "backendAt", "isUnknownUser", "isUnlimited", "lastOf"]

LONGEST_CREDENTIAL = 1024
"""
The longest user name or password in bytes, as sent. Services limit the head of a request, often to 8 KiB, and answer a
longer one with 400 or 431. Real passwords are shorter. OAuth tokens are limited by the client's buffer only.
"""

SECONDS = re.compile(rb"[0-9]{1,18}")
"""Matches a number of seconds."""

_PORT = re.compile(rb"0{0,9}[0-9]{1,5}")
_SOCKET = re.compile(rb"unix:(/[!-~]{1,%d})" % (LONGEST_SOCKET_PATH - 1))
_NUMBERS = re.compile(r"[0-9.]+")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]+")


class Unusable(Exception):
    """
    An answer that the gateway cannot use.

    @param message: what the service did, as a phrase for the log that begins with a verb.
    @param quoted: the bytes that the service sent, if they help.
    """

    def __init__(self, message: str, quoted: bytes = b"") -> None:
        super().__init__(message)
        self.quoted = quoted


def lastOf(values: Values, name: bytes) -> bytes | None:
    """
    Return the value of a header, or of the last one if there are several; L{None} if it is missing.

    @param values: the values of the response's headers.
    @param name: the name of the header, in lower case.
    """
    return values[name][-1] if name in values else None


def isUnlimited(values: Values) -> bool:
    """
    Return whether the login does not count for C{limit_login} (C{Auth-Limit: none}).

    @param values: the values of the response's headers.
    """
    return lastOf(values, b"auth-limit") == b"none"


def isUnknownUser(values: Values) -> bool:
    """
    Return whether the service says that there is no such user (C{Auth-User-Exists}). Mailu writes C{False}.

    @param values: the values of the response's headers.
    """
    return (lastOf(values, b"auth-user-exists") or b"").lower() in (b"no", b"false")


@lru_cache(1024)
def backendAt(address: bytes, port: bytes) -> Backend:
    """
    Return the backend of C{Auth-Server} and C{Auth-Port}. The results are cached: a site has few backends and many
    logins.

    @param address: the value of C{Auth-Server}.
    @param port: the value of C{Auth-Port}. A unix socket needs none.
    @raise Unusable: one of the headers is invalid.
    """
    socket = _SOCKET.fullmatch(address)
    if socket is not None:
        return Backend(f"unix:{socket[1].decode('ascii')}", 0)
    host = _host(address)
    if host is None:
        raise Unusable("sent an invalid server address", address)
    if not _PORT.fullmatch(port) or not 0 < int(port) < 65536:
        raise Unusable("sent an invalid server port", port)
    return Backend(host, int(port))


def _host(raw: bytes) -> str | None:
    """
    Return C{raw} as the host of a L{Backend}: an address with or without brackets, or a host name. L{None} if it is
    neither.
    """
    text = raw.decode("ascii", "replace")
    if _NUMBERS.fullmatch(text):
        # inet_pton() rejects leading zeros, nginx accepts them.
        parts = [int(part) for part in text.split(".") if re.fullmatch("[0-9]{1,3}", part)]
        whole = len(parts) == 4 == text.count(".") + 1 and max(parts) < 256
        return ".".join(map(str, parts)) if whole else None
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if _IPV6.fullmatch(bare) and isIPv6Address(bare):
        return bare
    return text if isHostName(text) else None
