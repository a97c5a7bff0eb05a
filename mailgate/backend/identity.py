# -*- test-case-name: mailgate.test.backend.test_identity -*-
"""
How a backend is told who the client is, in its own protocol: by ID in IMAP (RFC 2971), by XCLIENT in POP3, both with
the names that Dovecot reads. SMTP's XCLIENT is another command, and L{mailgate.protocols.smtp.client}'s.

The backend believes what is said here. So what a client says of itself comes behind what we say of it, and only where
it cannot pass for that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from mailgate.login import Client
from mailgate.net.networks import plainAddress

__all__ = ["Atom", "connectedTo", "fieldsOf", "hopsIn", "idCommand", "plainForm", "sessionOf", "xclientCommand"]

_MOST_FIELDS = 30
_LONGEST_LINE = 8000
"""Bytes that a server takes in one command at least (RFC 2683, section 3.2.1.5); a client's fields fill no more."""
_NAME = re.compile(rb"[!-~]{1,30}")
_VALUE = re.compile(rb"[ -~]{0,1024}")
_SESSION = re.compile(r"[!-~]{1,64}")
_SPECIAL = re.compile(rb'["\\]')
_HOPS = b"x-proxy-ttl"
_RESERVED = b"x-"
"""How the names of fields begin that gateways add: Dovecot's x-originating-ip and x-forward-…, Zimbra's X-VIA."""


class Atom(bytes):
    """What stands in ID's argument without being a string: C{NIL}, a parenthesis, or what does not belong there."""


def fieldsOf(arguments: Sequence[bytes]) -> tuple[bytes, ...]:
    """
    The fields that a client's ID gives, each as C{"name" "value"} or C{"name" NIL} for a backend: at most 30, names of
    up to 30 bytes, values of up to 1,024 (RFC 2971, section 3.3).

    Left out is what is no printable ASCII, and what only a gateway may say of a client. An argument that is no list of
    pairs gives none.
    """
    if len(arguments) < 2 or len(arguments) % 2 or not _isAtom(arguments[0], b"(") or not _isAtom(arguments[-1], b")"):
        return ()
    names, values = arguments[1:-1:2], arguments[2:-1:2]
    if any(isinstance(name, Atom) for name in names):
        return ()
    if any(isinstance(value, Atom) and value.upper() != b"NIL" for value in values):
        return ()
    pairs = zip(names, values, strict=True)
    return tuple(_field(name, value) for name, value in pairs if _maySay(name, value))[:_MOST_FIELDS]


def hopsIn(arguments: Sequence[bytes]) -> bytes:
    """The value of C{x-proxy-ttl} in the arguments of a client's ID; empty where it has none."""
    pairs = zip(arguments[1:-1:2], arguments[2:-1:2], strict=False)
    return next((value for name, value in pairs if name.lower() == _HOPS), b"")


def _isAtom(argument: bytes, text: bytes) -> bool:
    return isinstance(argument, Atom) and argument == text


def _maySay(name: bytes, value: bytes) -> bool:
    if not _NAME.fullmatch(name) or name.lower().startswith(_RESERVED):
        return False
    return _VALUE.fullmatch(value) is not None


def _field(name: bytes, value: bytes) -> bytes:
    return _quoted(name) + b" " + (b"NIL" if isinstance(value, Atom) else _quoted(value))


def _quoted(text: bytes) -> bytes:
    return b'"' + _SPECIAL.sub(rb"\\\g<0>", text) + b'"'


def idCommand(tag: bytes, client: Client | None, said: Sequence[bytes] = (), hops: int = 0) -> bytes:
    """
    The command that tells an IMAP backend who the client is; line end included. Empty where there is nothing to tell.

    One command has all fields, as Dovecot heeds the first ID of a connection alone.

    @param client: the client; L{None} to tell nothing of it.
    @param said: the client's own fields, as of L{fieldsOf}.
    @param hops: through how many gateways the login may still go; 0 is not told.
    """
    fields = _facts(client, _IN_IMAP, hops)
    if said:
        room = _LONGEST_LINE - len(tag + b" ID ()\r\n")
        for field in said[: _MOST_FIELDS - len(fields)]:
            if sum(map(len, fields)) + len(fields) + len(field) > room:
                break
            fields.append(field)
    return tag + b" ID (" + b" ".join(fields) + b")\r\n" if fields else b""


def xclientCommand(client: Client, hops: int = 0) -> bytes:
    """
    The command that tells Dovecot's POP3 server of C{client}, line end included. Empty where there is nothing to
    tell. C{hops} are as of L{idCommand}.
    """
    facts = _facts(client, _IN_POP3, hops)
    return b"XCLIENT" + b"".join(facts) + b"\r\n" if facts else b""


_IN_IMAP = tuple(
    b'"x-%b" "%%b"' % name
    for name in (
        b"originating-ip",
        b"originating-port",
        b"connected-ip",
        b"connected-port",
        b"session-id",
        b"proxy-ttl",
    )
)
_IN_POP3 = tuple(b" %b=%%b" % name for name in (b"ADDR", b"PORT", b"DESTADDR", b"DESTPORT", b"SESSION", b"TTL"))
"""
How each protocol tells of the client's address and port, the address and port that it has connected to, and the
session and the hops that are left: with the place of the value.
"""


def _facts(client: Client | None, forms: Sequence[bytes], hops: int) -> list[bytes]:
    """What is known of C{client}, and C{hops}, in their C{forms}."""
    address, port, local, localPort, session, ttl = forms
    last = [ttl % (b"%d" % hops)] if hops else []
    if client is None:
        return last
    facts: list[bytes] = []
    host = plainForm(client.host)
    if host:
        facts.append(address % host)
        # Dovecot refuses all of XCLIENT for a port 0, which a PROXY header may bring.
        if client.port:
            facts.append(port % (b"%d" % client.port))
        there, therePort = connectedTo(client)
        if therePort and (connected := plainForm(there)):
            facts += local % connected, localPort % (b"%d" % therePort)
    if name := sessionOf(client):
        facts.append(session % name)
    return facts + last


def sessionOf(client: Client) -> bytes:
    """The id of the session of C{client}, where it has one that a backend takes; otherwise empty."""
    return client.session.encode() if client.session and _SESSION.fullmatch(client.session) else b""


def connectedTo(client: Client) -> tuple[str, int]:
    """
    The address and port that C{client} has connected to: a load balancer's, where that has said so. C{("", 0)} where
    the system would have to be asked.
    """
    proxied = client.proxied
    if proxied is not None and proxied.source == client.host:
        return proxied.destination, proxied.destinationPort
    return client.knownLocal


@lru_cache(1024)
def plainForm(host: str) -> bytes:
    """
    The address C{host} as a backend compares it with others: without the name of an interface, and as IPv4 where it is
    an IPv4 address in IPv6's form. Empty where it is none.
    """
    address = plainAddress(host.partition("%")[0])
    return b"" if address is None else str(address).encode()
