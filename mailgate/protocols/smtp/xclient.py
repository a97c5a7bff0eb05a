# -*- test-case-name: mailgate.test.protocols.smtp.test_xclient -*-
"""
XCLIENT (Postfix's U{XCLIENT_README<https://www.postfix.org/XCLIENT_README.html>}, Dovecot's submission), by which an
SMTP backend learns who the client is: nginx's form of it, and all that a backend's EHLO offers to take.
"""

from __future__ import annotations

from collections.abc import Iterator

from mailgate.backend.credentials import BackendCredentials
from mailgate.backend.errors import BackendError
from mailgate.backend.identity import Forward, connectedTo, forwardText, plainForm, sessionOf
from mailgate.directives import isHostName
from mailgate.login import Client, Envelope
from mailgate.protocols.smtp.trust import xtext

__all__ = ["forwardFor", "forwardLine", "likeNginx", "xclientLines"]

_LONGEST = 510
"""Bytes of a command without its line end (RFC 5321, 4.5.3.1.4)."""
_LONGEST_VALUE = 255
"""Bytes of a value that Postfix takes."""
_COMMAND = b"XCLIENT"
_UNNAMED = (b"NAME", b"ADDR", b"LOGIN")
"""What a backend is told whose EHLO offers XCLIENT without attributes: what nginx tells."""
_UNAVAILABLE = "[UNAVAILABLE]"


def likeNginx(client: Client, login: BackendCredentials | None) -> bytes:
    """
    Return nginx's command, which nginx sends whatever the backend offers.

    @param client: the client.
    @param login: the login whose user is sent; L{None} to send no LOGIN.
    """
    address = _UNAVAILABLE if client.host == "unix:" else client.host
    command = _COMMAND + b" ADDR=" + ("IPV6:" if ":" in address else "").encode() + address.encode()
    if login is not None and login.person:
        command += b" LOGIN=" + xtext(login.person)
    return command + b" NAME=" + client.name.encode()


def forwardFor(forward: Forward, offered: bytes) -> tuple[bytes, bool]:
    """
    Return the value of C{FORWARD}, not yet as xtext. A line has room for 370 bytes of fields or more.

    @param forward: additional fields about the client.
    @param offered: the attributes that the backend's EHLO lists, in upper case. Only Dovecot lists C{FORWARD}.
    @return: the value, which is empty if the backend does not take it; and whether all fields are in it.
    """
    if not forward or b"FORWARD" not in offered.split():
        return b"", True
    room = _LONGEST - len(_COMMAND + b" FORWARD=")
    limit = room
    text, isWhole = forwardText(forward, limit)
    while len(xtext(text)) > room:
        limit -= 4
        text, isWhole = forwardText(forward, limit)
    return text, isWhole


def forwardLine(text: bytes) -> bytes:
    """
    Return a command with C{FORWARD} alone.

    @param text: the value, from L{forwardFor}.
    """
    return _COMMAND + _attribute(b"FORWARD", text)


def xclientLines(
    client: Client,
    envelope: Envelope,
    login: BackendCredentials | None,
    hops: int,
    offered: bytes,
    forward: bytes = b"",
) -> Iterator[bytes]:
    """
    The commands, without line ends, that tell all of the attributes C{offered} that are known, in as many lines as they
    need. There is one line nearly always.

    Postfix judges by the address and name of the last XCLIENT whether it takes another, and forgets the LOGIN, HELO
    and PROTO that a line does not repeat. So ADDR and LOGIN are in the last line, and before all others NAME, PROTO and
    HELO are, as far as there is room; EHLO comes behind the last line anyway.

    @param client: the client.
    @param envelope: what the client has greeted with.
    @param login: the login to tell, once its password has been judged; L{None} where AUTH follows, or there is none.
        LOGIN is a login at the backend, without a password.
    @param hops: through how many gateways the login may still go.
    @param offered: the attributes that the backend's EHLO lists, in upper case.
    @param forward: the value of C{FORWARD}, from L{forwardFor}; may be empty.
    @raise BackendError: the name of the user is too long for a line.
    """
    known = set(offered.split()) or set(_UNNAMED)
    last = [_attribute(b"ADDR", _address(client.host) or _UNAVAILABLE.encode())] if b"ADDR" in known else []
    if b"LOGIN" in known and login is not None and login.person:
        last.append(_attribute(b"LOGIN", login.person))
    size = len(_COMMAND) + sum(map(len, last))
    if size > _LONGEST:
        raise BackendError("cannot be told the name of the user by XCLIENT, which is too long", counts=False)
    lines = [last]
    rest = list(_rest(client, envelope, hops, known))
    if forward:
        rest.append(_attribute(b"FORWARD", forward))
    for attribute in rest:
        if size + len(attribute) > _LONGEST:
            size = len(_COMMAND)
            lines.insert(0, [])
        if lines[0] is last and attribute.startswith(b" NAME="):
            last.append(attribute)
        else:
            lines[0].insert(0, attribute)
        size += len(attribute)
    return (_COMMAND + b"".join(line) for line in lines if line)


def _rest(client: Client, envelope: Envelope, hops: int, known: set[bytes]) -> Iterator[bytes]:
    """The attributes beside ADDR and LOGIN; what is needed most in the last line comes first."""
    yield from (
        _attribute(name, value)
        for name, value in _values(client, envelope, hops, known)
        if name in known and value and len(xtext(value)) <= _LONGEST_VALUE
    )


def _values(client: Client, envelope: Envelope, hops: int, known: set[bytes]) -> Iterator[tuple[bytes, bytes]]:
    name = client.name.encode()
    yield b"NAME", name
    if envelope.helo:
        yield b"PROTO", b"ESMTP" if envelope.extended else b"SMTP"
        yield b"HELO", envelope.helo
    if not name.startswith(b"["):
        # It has been verified forwards and backwards. Of others it is not known that they have none.
        yield b"REVERSE_NAME", name
    if client.port and client.host != "unix:":
        yield b"PORT", b"%d" % client.port
    if not known.isdisjoint((b"DESTADDR", b"DESTPORT")):
        there, port = _destination(client)
        yield b"DESTPORT", b"%d" % port if port else b""
        yield b"DESTADDR", _address(there)
    yield b"CLIENT-TRANSPORT", b"insecure" if client.tls is None else b"TLS"
    yield b"TTL", b"%d" % hops
    yield b"SESSION", sessionOf(client)
    if b"DESTNAME" in known and client.tls is not None:
        asked = client.details.serverName if client.details is not None else ""
        yield b"DESTNAME", asked.encode() if isHostName(asked) else b""


def _destination(client: Client) -> tuple[str, int]:
    """The address and port that C{client} has connected to; the system is asked where they are not known."""
    there, port = connectedTo(client)
    return (there, port) if port else (client.local, client.localPort)


def _address(host: str) -> bytes:
    """C{host} as XCLIENT has it; empty if it is no address."""
    address = plainForm(host)
    return (b"IPV6:" if b":" in address else b"") + address


def _attribute(name: bytes, value: bytes) -> bytes:
    # An address's colons, and the brackets of what is not known, are xtext as they are.
    return b" " + name + b"=" + xtext(value)
