# -*- test-case-name: mailgate.test.backend.test_identity -*-
"""
Builds the commands that send the client's address to a backend: ID in IMAP (RFC 2971) and XCLIENT in POP3, both with
the names that Dovecot reads. SMTP has another XCLIENT, in L{mailgate.protocols.smtp.client}.

The backend trusts these commands. So the client's own fields come after the gateway's, and fields that could be
mistaken for the gateway's are left out.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypeAlias

from mailgate.login import Client
from mailgate.net.networks import plainAddress

__all__ = [
    "LEFT_OUT",
    "LONGEST_FORWARDED",
    "MOST_FORWARDED",
    "Atom",
    "Forward",
    "carriesAll",
    "connectedTo",
    "fieldsOf",
    "forwardText",
    "hopsIn",
    "idCommand",
    "isForwardable",
    "plainForm",
    "sessionOf",
    "xclientCommand",
]

LEFT_OUT = "cannot receive all fields of Auth-Proxy-Forward: its XCLIENT command has no room for them"
"""The concern about a backend that has not received all additional fields."""

MOST_FORWARDED = 24
"""
The most additional fields for a backend. ID has room for 30 fields, and the gateway's own are 6 of them (RFC 2971,
section 3.3).
"""

LONGEST_FORWARDED = 1024
"""Bytes of the value of a field (RFC 2971, section 3.3)."""

_MOST_FIELDS = 30
_LONGEST_LINE = 8000
"""
The length in bytes that every server accepts in a command (RFC 2683, section 3.2.1.5). The client's fields fill at most
this.
"""
_NAME = re.compile(rb"[!-~]{1,30}")
_VALUE = re.compile(rb"[ -~]{0,1024}")
_FORWARD_PREFIX = b"x-forward-"
_FORWARD_KEY = re.compile(rb"[A-Za-z0-9_-]{1,20}")
"""The prefix and the key together have up to 30 bytes in ID."""
_LONGEST_POP3_LINE = 1000
"""Bytes of a command that Dovecot's POP3 server reads are 1,024, line end included."""
_ESCAPED = {0: b"\x010", 1: b"\x011", 9: b"\x01t", 10: b"\x01n", 13: b"\x01r"}
"""What separates fields in C{FORWARD}, as Dovecot writes it."""
_SESSION = re.compile(r"[!-~]{1,64}")
_SPECIAL = re.compile(rb'["\\]')
_HOPS = b"x-proxy-ttl"
_RESERVED = b"x-"
"""The prefix of fields that only gateways add: Dovecot's x-originating-ip and x-forward-…, Zimbra's X-VIA."""


Forward: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Additional fields about a client for backends, as pairs of key and value."""


class Atom(bytes):
    """A word in ID's argument that is not a string: C{NIL}, a parenthesis, or an error."""


def fieldsOf(arguments: Sequence[bytes]) -> tuple[bytes, ...]:
    """
    Return the fields of a client's ID for a backend, each as C{"name" "value"} or C{"name" NIL}: at most 30, with names
    of up to 30 bytes and values of up to 1,024 (RFC 2971, section 3.3).

    Fields that are not printable ASCII, and fields that only gateways may add, are left out.

    @param arguments: the arguments of ID. If they are not a list of pairs, there are no fields.
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
    """
    Return the value of C{x-proxy-ttl} in a client's ID; empty if it has none.

    @param arguments: the arguments of ID.
    """
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


def isForwardable(key: bytes, value: bytes) -> bool:
    """
    Check an additional field about a client.

    @param key: its key, without C{x-forward-}.
    @param value: its value.
    @return: whether every protocol can carry it.
    """
    return _FORWARD_KEY.fullmatch(key) is not None and _VALUE.fullmatch(value) is not None


def forwardText(forward: Forward, room: int) -> tuple[bytes, bool]:
    """
    Return additional fields as the value of C{FORWARD} in XCLIENT: pairs C{key=value} with TABs between them, in
    base64. Bytes that separate are escaped with a byte of value 1 (Dovecot's C{str_tabescape}).

    @param forward: the fields.
    @param room: the most bytes of the result. Fields that find no room are left out.
    @return: the value, and whether all fields are in it.
    """
    text = b""
    for key, value in forward:
        longer = text + (b"\t" if text else b"") + _tabEscaped(key + b"=" + value)
        if (len(longer) + 2) // 3 * 4 > room:
            return b64encode(text), False
        text = longer
    return b64encode(text), True


def _tabEscaped(text: bytes) -> bytes:
    return b"".join(_ESCAPED.get(byte) or bytes((byte,)) for byte in text)


def carriesAll(command: bytes, forward: Forward) -> bool:
    """
    Check an XCLIENT command of POP3.

    @param command: the command.
    @param forward: the additional fields that it should carry.
    @return: whether it carries all of them.
    """
    return not forward or forwardText(forward, 1 << 20)[0] in command


def idCommand(
    tag: bytes, client: Client | None, said: Sequence[bytes] = (), hops: int = 0, forward: Forward = ()
) -> bytes:
    """
    Return the ID command for an IMAP backend, line end included; empty if nothing is known.

    All fields go into one command: Dovecot uses only the first ID of a connection.

    @param tag: the tag of the command.
    @param client: the client; L{None} to send nothing about it.
    @param said: the client's own fields, from L{fieldsOf}.
    @param hops: through how many gateways the login may still go; 0 to send nothing about that.
    @param forward: additional fields about the client. Those that ID cannot carry are left out.
    """
    facts = _facts(client, _IN_IMAP, hops)
    if forward:
        said = [*_forwarded(forward), *said]
    if said:
        room = _LONGEST_LINE - len(tag + b" ID ()\r\n")
        for field in said[: _MOST_FIELDS - facts.count(_OWN)]:
            if len(facts) + len(field) > room:
                break
            facts += b" " + field
    return b"%b ID (%b)\r\n" % (tag, facts[1:]) if facts else b""


def _forwarded(forward: Forward) -> Iterator[bytes]:
    """Yield the fields of ID for C{forward}."""
    for key, value in forward:
        if isForwardable(key, value):
            yield _quoted(_FORWARD_PREFIX + key) + b" " + _quoted(value)


def xclientCommand(client: Client, hops: int = 0, forward: Forward = ()) -> bytes:
    """
    Return the XCLIENT command about C{client} for Dovecot's POP3 server, line end included; empty if nothing is known.

    @param client: the client.
    @param hops: as for L{idCommand}.
    @param forward: additional fields about the client, as many as the line has room for.
    """
    facts = _facts(client, _IN_POP3, hops)
    if forward:
        text, _ = forwardText(forward, _LONGEST_POP3_LINE - len(facts) - len(b"XCLIENT FORWARD=\r\n"))
        if text:
            facts += b" FORWARD=" + text
    return b"XCLIENT" + facts + b"\r\n" if facts else b""


_IN_IMAP = tuple(
    b' "x-%b" "%%%b"' % fact
    for fact in (
        (b"originating-ip", b"b"),
        (b"originating-port", b"d"),
        (b"connected-ip", b"b"),
        (b"connected-port", b"d"),
        (b"session-id", b"b"),
        (b"proxy-ttl", b"d"),
    )
)
_OWN = b' "x-'
"""How each field of the gateway begins in IMAP."""
_IN_POP3 = (b" ADDR=%b", b" PORT=%d", b" DESTADDR=%b", b" DESTPORT=%d", b" SESSION=%b", b" TTL=%d")
"""
For each protocol the templates of six facts: the client's address and port, the address and port to which the client
has connected, the session's id and the hops that are left.
"""


def _facts(client: Client | None, forms: tuple[bytes, ...], hops: int) -> bytes:
    """Return the known facts about C{client}, and C{hops}, formatted with the templates C{forms}."""
    if client is None:
        return forms[5] % hops if hops else b""
    host, port, name = plainForm(client.host), client.port, sessionOf(client)
    there, therePort = client.knownLocal if client.proxied is None else connectedTo(client)
    if host and port and name:
        return _form(forms, there, therePort, hops) % (host, port, name)
    if not host:
        port, there, therePort = 0, "", 0
    known = tuple(filter(None, (host, port, name)))
    return _form(forms, there, therePort, hops, host != b"", port != 0, name != b"") % known


@lru_cache(256)
def _form(
    forms: tuple[bytes, ...],
    there: str,
    therePort: int,
    hops: int,
    hasHost: bool = True,
    hasPort: bool = True,
    hasName: bool = True,
) -> bytes:
    """
    Return the template for the facts in which clients differ. The others, in which few servers differ, are filled in.
    """
    parts = [forms[0]] if hasHost else []
    # A PROXY header may contain port 0, and Dovecot refuses the whole XCLIENT for it.
    if hasPort:
        parts.append(forms[1])
    connected = plainForm(there) if therePort else b""
    if connected:
        parts += (forms[2] % connected, forms[3] % therePort)
    if hasName:
        parts.append(forms[4])
    if hops:
        parts.append(forms[5] % hops)
    return b"".join(parts)


def sessionOf(client: Client) -> bytes:
    """Return the id of the session of C{client} if a backend accepts it, otherwise nothing."""
    return client.session.encode() if _SESSION.fullmatch(client.session) else b""


def connectedTo(client: Client) -> tuple[str, int]:
    """
    Return the address and port to which C{client} has connected, on the load balancer if there is one. C{("", 0)} if
    the system would have to be asked.
    """
    proxied = client.proxied
    if proxied is not None and proxied.source == client.host:
        return proxied.destination, proxied.destinationPort
    return client.knownLocal


@lru_cache(1024)
def plainForm(host: str) -> bytes:
    """
    Return the address C{host} without an interface name, and an IPv4-mapped IPv6 address as IPv4. Empty if it is not an
    address.
    """
    address = plainAddress(host.partition("%")[0])
    return b"" if address is None else str(address).encode()
